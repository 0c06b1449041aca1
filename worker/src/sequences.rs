//! A generator on its device: the sequences that share its steps, and whom each belongs to.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Instant,
};

use orion_models::{Generator, GeneratorLoad, GivenUp};
use orion_net::{Attempt, AttemptDelta, Batch};
use orion_proto::{Code, Delta, Error, InferAnswer, Result};

use crate::{
    outcome::{Done, Outcome},
    worker::Worker,
};

/// A loaded generator.
pub(crate) struct Sequences {
    generator: Box<dyn Generator>,
    /// By attempt.
    running: BTreeMap<u64, Sequence>,
}

struct Sequence {
    worker: Arc<Worker>,
    /// The batch without its request.
    batch: Batch,
    given_up: GivenUp,
    arrived: Instant,
    started: Instant,
}

impl Sequences {
    pub(crate) fn new(generator: Box<dyn Generator>) -> Self {
        Self { generator, running: BTreeMap::new() }
    }

    /// Whether no sequence is under way.
    pub(crate) fn are_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// How the generator is filled.
    pub(crate) fn load(&self) -> GeneratorLoad {
        self.generator.load()
    }

    /// The generator, for warm-up.
    pub(crate) fn generator(&mut self) -> &mut dyn Generator {
        &mut *self.generator
    }

    /// Takes a batch of one generation. Answered at once when it cannot begin; says whether it began.
    pub(crate) fn add(&mut self, worker: &Arc<Worker>, batch: Batch, arrived: Instant) -> bool {
        let Some(marks) = worker.begin(batch.batch) else { return false };
        let attempts = batch.attempts.iter().map(|attempt| attempt.attempt).collect::<Vec<_>>();
        let added = match (batch.attempts.as_slice(), marks.first()) {
            (_, Some(given_up)) if given_up.is_set() => Err(Outcome::cancelled()),
            ([Attempt { attempt, request }], Some(_)) => match &request.generation {
                Some(generation) => guarded(|| self.generator.add(*attempt, request.parameters.priority, generation))
                    .map_err(|error| Outcome::Ran(Err(error))),
                None => Err(Outcome::Ran(Err(Error::invalid("the request holds no generation")))),
            },
            _ => Err(Outcome::Ran(Err(Error::invalid("a batch of generations must hold one")))),
        };
        let batch = Batch {
            attempts: attempts.iter().map(|attempt| Attempt { attempt: *attempt, request: Arc::default() }).collect(),
            ..batch
        };
        let sequence =
            |given_up| Sequence { worker: worker.clone(), batch, given_up, arrived, started: Instant::now() };
        match (added, attempts.first(), marks.into_iter().next()) {
            (Ok(()), Some(attempt), Some(given_up)) => {
                self.running.insert(*attempt, sequence(given_up));
                true
            }
            (Err(outcome), _, _) => {
                sequence(GivenUp::default()).end(outcome);
                false
            }
            _ => false,
        }
    }

    /// Computes a step and tells its news. Says how many sequences ended.
    pub(crate) fn step(&mut self) -> usize {
        let mut ended = self.drop_given_up();
        if self.running.is_empty() {
            return ended;
        }
        let news = guarded(|| Ok(self.generator.step()));
        let news = match news {
            Ok(news) => news,
            // Its state is not to be trusted: whoever runs there is answered, and may go on elsewhere.
            Err(error) => self.running.keys().map(|attempt| (*attempt, Err(error.clone()))).collect(),
        };
        let mut steps: Vec<(Arc<Worker>, u64, Vec<AttemptDelta>)> = Vec::new();
        let mut last = Vec::new();
        for (attempt, delta) in news {
            let Some(sequence) = self.running.get(&attempt) else { continue };
            match delta {
                Ok(delta) if delta.finish.is_none() => {
                    let (batch, epoch) = (sequence.batch.batch, sequence.batch.epoch);
                    let delta = AttemptDelta { batch, attempt, delta };
                    match steps.iter_mut().find(|(_, of, _)| *of == epoch) {
                        Some((_, _, deltas)) => deltas.push(delta),
                        None => steps.push((sequence.worker.clone(), epoch, vec![delta])),
                    }
                }
                ended => last.push((attempt, ended)),
            }
        }
        steps.into_iter().for_each(|(worker, epoch, deltas)| worker.deliver_step(epoch, deltas));
        for (attempt, delta) in last {
            ended += 1;
            if let Some(sequence) = self.running.remove(&attempt) {
                if delta.is_err() {
                    self.give_up(attempt);
                }
                sequence.end(Outcome::Ran(delta.map(answer)));
            }
        }
        ended
    }

    fn give_up(&mut self, attempt: u64) {
        let cancel = || {
            self.generator.cancel(attempt);
            Ok(())
        };
        // One that panics here has lost its state; its next step will say so.
        let _ = guarded(cancel);
    }

    /// Gives up what nobody waits for any more.
    fn drop_given_up(&mut self) -> usize {
        let given_up = self.running.iter().filter(|(_, sequence)| sequence.given_up.is_set());
        let given_up: Vec<u64> = given_up.map(|(attempt, _)| *attempt).collect();
        for attempt in &given_up {
            self.give_up(*attempt);
            self.running.remove(attempt).into_iter().for_each(|sequence| sequence.end(Outcome::cancelled()));
        }
        given_up.len()
    }
}

impl Sequence {
    fn end(self, outcome: Outcome) {
        let service_seconds = self.started.elapsed().as_secs_f64();
        let waited_seconds = self.started.saturating_duration_since(self.arrived).as_secs_f64();
        let done = Done { outcomes: vec![outcome], service_seconds, waited_seconds, peak_bytes: 0 };
        let result = done.result(&self.batch);
        self.worker.deliver(result);
    }
}

fn answer(last: Delta) -> InferAnswer {
    let usage_tokens = u64::from(last.prompt_tokens);
    InferAnswer { usage_tokens, delta: Some(last), ..InferAnswer::default() }
}

/// A generator that panics fails its sequences, not its worker.
fn guarded<R>(work: impl FnOnce() -> Result<R>) -> Result<R> {
    let failed = |_| Err(Error::new(Code::Internal, "the generator failed unexpectedly, the worker's log says where"));
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(failed)
}
