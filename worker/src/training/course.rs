//! One training on this worker, from its first order to its end.

use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use bytes::Bytes;
use orion_models::training::{EXTRAS, Files, Learner, Progress, Taken, Work};
use orion_net::{
    reduce::{Partial, Speeds},
    transfer::{Cohort, Exchange, Stopped},
};
use orion_proto::{
    Code, Error, Result,
    session::{
        EndTraining, Gather, Gathered, Go, Trained, TrainingProgress, training_order::Order, training_report::Report,
    },
    training::{Numbers, Plan},
};
use parking_lot::Mutex;

use super::{Interrupter, checkpoint, data, fault, publish::publish, report};
use crate::{artifacts::Local, worker::Worker};

/// A course that nobody orders about ends after so long; its checkpoint stays.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often progress is told.
const TOLD_EVERY: Duration = Duration::from_millis(500);

pub(super) struct Course {
    worker: Arc<Worker>,
    job: u64,
    interrupter: Arc<Mutex<Interrupter>>,
    generation: u64,
    held: Option<Held>,
    exchange: Option<Exchange>,
    gather: Gather,
    /// Of sums, to others.
    sent_bytes: u64,
}

/// The training, and the files that it reads.
struct Held {
    learner: Arc<Mutex<Learner>>,
    _data: [Option<Local>; 3],
}

/// Why a course does not go on as it is.
enum Ended {
    Stopped(Stopped),
    Failed(Error),
}

impl From<Stopped> for Ended {
    fn from(stopped: Stopped) -> Self {
        Self::Stopped(stopped)
    }
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Course {
    pub(super) fn new(worker: Arc<Worker>, job: u64, interrupter: Arc<Mutex<Interrupter>>) -> Self {
        Self {
            worker,
            job,
            interrupter,
            generation: 0,
            held: None,
            exchange: None,
            gather: Gather::default(),
            sent_bytes: 0,
        }
    }

    /// Follows orders until the last.
    pub(super) fn run(mut self, orders: &mpsc::Receiver<(u64, Order)>) {
        while let Ok((generation, order)) = orders.recv_timeout(PATIENCE) {
            let ended = match order {
                // What is ordered next may be here already: the thread goes on.
                Order::End(EndTraining { keep }) => {
                    (self.exchange, self.held) = (None, None);
                    tracing::info!(job = self.job, keep, "training_ended");
                    if !keep {
                        checkpoint::forget(&self.worker.options().data_dir, self.job);
                    }
                    Ok(())
                }
                Order::Gather(gather) if generation > self.generation => self.gather(generation, gather),
                Order::Pause(_) if generation > self.generation => {
                    (self.generation, self.exchange) = (generation, None);
                    Ok(())
                }
                Order::Go(go) if generation == self.generation => self.go(&go),
                // Of an earlier generation.
                Order::Gather(_) | Order::Go(_) | Order::Pause(_) => Ok(()),
            };
            match ended {
                Ok(()) | Err(Ended::Stopped(Stopped::Interrupted)) => {}
                Err(Ended::Stopped(Stopped::Broken(rank, why))) => {
                    let other = self.gather.members.get(rank).map_or("", |member| member.worker.as_str());
                    let error = Error::new(Code::Unavailable, format!("with worker '{other}': {why}"));
                    tracing::warn!(job = self.job, %error, "training_broken");
                    self.report(Report::Broken(fault(&error)));
                }
                Err(Ended::Failed(error)) => {
                    tracing::warn!(job = self.job, %error, "training_failed");
                    self.report(Report::Failed(fault(&error)));
                }
            }
        }
        tracing::info!(job = self.job, "training_left");
    }

    /// The job, and when it was submitted.
    fn name(&self) -> checkpoint::Name {
        (self.job, self.gather.submitted_unix_ms)
    }

    fn report(&self, said: Report) {
        report(&self.worker, self.job, self.generation, said);
    }

    /// Leaves the earlier generation for this, and says how far it is.
    fn gather(&mut self, generation: u64, gather: Gather) -> std::result::Result<(), Ended> {
        self.generation = generation;
        self.gather = gather;
        self.exchange = None;
        if self.gather.rank as usize >= self.gather.members.len() {
            return Err(Error::invalid(format!("rank {} is none of its members", self.gather.rank)).into());
        }
        let artifacts = self.worker.options().artifacts.clone();
        let artifacts = artifacts.ok_or_else(|| {
            Error::new(Code::FailedPrecondition, "it has no store, from which a trained model could be fetched")
        })?;
        if self.held.is_none() {
            self.held = Some(self.open()?);
        }
        let Some(held) = &self.held else { return Ok(()) };
        let cohort = Cohort {
            job: self.job,
            generation,
            addresses: self.gather.members.iter().map(|member| member.address.clone()).collect(),
            rank: self.gather.rank as usize,
        };
        let learner = held.learner.lock();
        let exchange = Exchange::join(&artifacts.node, &artifacts.runtime, cohort, learner.width(Work::Step));
        self.interrupter.lock().joined(generation, Box::new(exchange.interrupter()));
        self.exchange = Some(exchange);
        let (round, data, state) = (learner.progress().round, learner.data().to_vec(), learner.identity().to_vec());
        let gathered = Gathered { round, data: data.into(), state: state.into() };
        drop(learner);
        self.report(Report::Gathered(gathered));
        Ok(())
    }

    /// The training at its last checkpoint here, or at its beginning.
    fn open(&self) -> Result<Held> {
        let plan = Plan::from_json(&self.gather.plan)?;
        let at = |path: &str| data::local(&self.worker, path, &self.gather.peers);
        let train = at(&self.gather.train_path)?;
        let test = (!self.gather.test_path.is_empty()).then(|| at(&self.gather.test_path)).transpose()?;
        let base = plan.base().map(at).transpose()?;
        let free = self.worker.residency().free_bytes();
        let [of_base, of_test] = [&base, &test].map(|local| local.as_ref().map(|local| local.path.as_path()));
        let files = Files { base: of_base, train: &train.path, test: of_test };
        let mut learner = Learner::open(plan, &files, free)?;
        if let Some(state) = checkpoint::kept(&self.worker.options().data_dir, self.name()) {
            match learner.restore(&state) {
                Ok(()) => tracing::info!(job = self.job, step = learner.progress().step, "checkpoint_taken_up"),
                // Of another job that had this number.
                Err(error) => tracing::warn!(job = self.job, %error, "checkpoint_not_taken_up"),
            }
        }
        Ok(Held { learner: Arc::new(Mutex::new(learner)), _data: [base, Some(train), test] })
    }

    /// All members are there: goes on to the end, or until there are other orders.
    fn go(&mut self, go: &Go) -> std::result::Result<(), Ended> {
        let (Some(held), Some(mut exchange)) = (&self.held, self.exchange.take()) else { return Ok(()) };
        let (learner, rank) = (held.learner.clone(), self.gather.rank);
        let (generation, round) = (self.generation, learner.lock().progress().round);
        tracing::debug!(job = self.job, generation, rank, round, source = go.source, behind = ?go.behind, "training_goes");
        if go.behind.contains(&rank) {
            let state = exchange.fetch(go.source as usize)?;
            learner.lock().restore(&state)?;
        } else if go.source == rank && !go.behind.is_empty() {
            exchange.offer(Bytes::from(learner.lock().state()?));
        }
        learner.lock().together(self.gather.members.len());
        let mut pace = Pace::new(self.gather.members.len());
        let done = self.steps(&learner, &mut exchange, &mut pace);
        // Others may be behind, and still fetch: what is offered stays until the next order.
        self.exchange = Some(exchange);
        done?;
        // Every member: the model is not lost with one of them.
        let learner = learner.lock();
        let path = publish(&self.worker, &learner, &self.gather.version)?;
        tracing::info!(job = self.job, path, "trained");
        let progress = self.told(&learner, None, 0.0);
        drop(learner);
        self.report(Report::Trained(Trained { path, progress: Some(progress) }));
        Ok(())
    }

    fn steps(
        &mut self,
        learner: &Arc<Mutex<Learner>>,
        exchange: &mut Exchange,
        pace: &mut Pace,
    ) -> std::result::Result<(), Ended> {
        loop {
            let (work, parts, width, round, shares, rounded) = {
                let learner = learner.lock();
                let Some(work) = learner.next() else { return Ok(()) };
                let (parts, width) = (learner.parts(work), learner.width(work));
                let shares = learner.bound().unwrap_or_else(|| pace.speeds.shares(parts));
                let rounds = learner.plan().training.exchange == Numbers::Bf16;
                (work, parts, width, learner.progress().round, shares, if rounds { width - EXTRAS } else { 0 })
            };
            let mut own = Partial::rounding(parts, rounded);
            let (started, share) = (Instant::now(), shares[self.gather.rank as usize].clone());
            let begun = share.clone().any(|part| learner.lock().begun(part));
            for part in share.clone() {
                let numbers = loop {
                    exchange.goes_on()?;
                    if let Some(numbers) = self.advance(learner, work, part)? {
                        break numbers;
                    }
                };
                own.add(part..part + 1, numbers);
            }
            let seconds = match (work, share.len()) {
                (Work::Evaluation, _) | (_, 0) => 0.0,
                // Some of it was there before.
                (Work::Step, _) if begun => 0.0,
                (Work::Step, parts) => started.elapsed().as_secs_f64() / parts as f64,
            };
            let before = exchange.sent_bytes();
            let (sum, told_seconds) = exchange.sum(round, &shares, own, width, seconds)?;
            self.sent_bytes += exchange.sent_bytes() - before;
            pace.speeds.told(&told_seconds);
            let mut learner = learner.lock();
            let taken = learner.conclude(work, sum)?;
            self.tell(&learner, taken, pace);
            if learner.checkpoint_due() {
                // The others keep theirs, and this one may be able to the next time.
                let kept = checkpoint::keep(&self.worker.options().data_dir, self.name(), &learner.state()?);
                if let Err(error) = kept {
                    tracing::warn!(job = self.job, %error, "checkpoint_not_kept");
                }
            }
        }
    }

    /// Some of a part, on the device, when that has nothing else to do; its numbers, once it is whole.
    fn advance(&self, learner: &Arc<Mutex<Learner>>, work: Work, part: usize) -> Result<Option<Vec<f32>>> {
        let (done, numbers) = mpsc::channel();
        let learner = learner.clone();
        self.worker.residency().spare(Box::new(move || {
            // Nobody waits where the process ends.
            let _ = done.send(learner.lock().advance(work, part));
        }));
        let gone = |_| Error::new(Code::Internal, "the device's thread ended, the worker's log says why");
        numbers.recv().map_err(gone)?
    }

    fn tell(&self, learner: &Learner, taken: Taken, pace: &mut Pace) {
        if taken.work == Work::Step {
            pace.examples += taken.examples;
        }
        let is_due =
            taken.work == Work::Evaluation || pace.told.elapsed() >= TOLD_EVERY || learner.progress().step == 1;
        if self.gather.rank != 0 || !is_due {
            return;
        }
        let rate = pace.examples as f64 / pace.told.elapsed().as_secs_f64().max(1e-6);
        (pace.told, pace.examples) = (Instant::now(), 0);
        self.report(Report::Progress(self.told(learner, Some(taken), rate)));
    }

    fn told(&self, learner: &Learner, taken: Option<Taken>, examples_per_second: f64) -> TrainingProgress {
        let Progress { step, train_loss, test, epsilon, .. } = learner.progress();
        TrainingProgress {
            step: *step,
            steps: learner.steps(),
            train_loss: *train_loss,
            test_loss: test.map(|test| test.loss),
            test_accuracy: test.map(|test| test.accuracy),
            learning_rate: taken.map_or(0.0, |taken| taken.learning_rate),
            examples_per_second,
            exchanged_bytes: self.sent_bytes,
            epsilon: *epsilon,
        }
    }
}

/// How fast it goes.
struct Pace {
    speeds: Speeds,
    /// When progress was told, and examples since then.
    told: Instant,
    examples: u64,
}

impl Pace {
    fn new(members: usize) -> Self {
        Self { speeds: Speeds::new(members), told: Instant::now(), examples: 0 }
    }
}
