//! Runs jobs: each attempt is a request of this scheduler.

mod attempt;
mod call;
mod train;

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use orion_proto::{Code, Error};
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
};

use super::{
    Jobs,
    ask::{Ask, Told},
    decide::Attempt,
};
use crate::front::Front;
use attempt::Attempter;
pub(crate) use attempt::request_id;

/// Attempts that are under way at once, half of them of one model: enough to fill every device's batches, few enough that what is
/// more urgent comes soon.
pub(super) const PLACES: usize = 512;
/// How often the writer looks at what time brought.
const TICK: Duration = Duration::from_millis(20);

/// Runs what it is told until the writer is gone.
pub(super) async fn run(front: Front, jobs: Jobs, term: u64, mut told: mpsc::UnboundedReceiver<Told>) {
    let mut running: HashMap<u64, (Attempt, AbortHandle)> = HashMap::new();
    let mut attempts = JoinSet::new();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let attempter = Attempter::new(front.clone(), jobs.clone());
    let view = jobs.view().clone();
    front.leads(move |job| view.unfinished(job).is_none());
    let (mut workers, mut left) = (Workers::new(&front), jobs.left.subscribe());
    loop {
        tokio::select! {
            _ = left.wait_for(|left| *left) => break,
            next = told.recv() => match next {
                None => break,
                Some(Told::Begin(attempt, task)) => {
                    running.insert(attempt.job, (attempt, attempts.spawn(attempter.clone().run(attempt, *task))));
                }
                Some(Told::Resume(attempt, task)) => {
                    running.insert(attempt.job, (attempt, attempts.spawn(attempter.clone().resume(attempt, *task))));
                }
                Some(Told::Stop(id)) => {
                    if let Some((_, handle)) = running.remove(&id) {
                        handle.abort();
                    }
                }
            },
            Some(ended) = attempts.join_next_with_id() => {
                let task = ended.as_ref().map_or_else(|error| error.id(), |(task, _)| *task);
                // One that was aborted is not in the map any more.
                let job = match &ended {
                    Ok((_, job)) => Some(*job),
                    Err(_) => running.iter().find(|(_, (_, handle))| handle.id() == task).map(|(job, _)| *job),
                };
                let was = job.filter(|job| running.get(job).is_some_and(|(_, handle)| handle.id() == task));
                let attempt = was.and_then(|job| running.remove(&job)).map(|(attempt, _)| attempt);
                if let (Some(attempt), Err(error)) = (attempt, ended) {
                    tracing::error!(job = attempt.job, attempt = attempt.attempt, %error, "attempt_panicked");
                    let outcome = Err(Error::new(Code::Internal, "its attempt ended unexpectedly, the scheduler's log says where"));
                    let attempter = attempter.clone();
                    tokio::spawn(async move { attempter.settle(attempt, outcome).await });
                }
            }
            _ = ticks.tick() => {
                // With a full channel it looks without being asked.
                let _ = jobs.asks.try_send(Ask::Tick);
                workers.tell(&front, &jobs);
            }
        }
    }
    // Whoever leads next goes on with what runs.
    attempter.leaves.say();
    front.hand_over(term);
    attempts.shutdown().await;
}

/// The workers that the writer knows of.
struct Workers {
    changed: watch::Receiver<u64>,
    told: Option<BTreeSet<String>>,
}

impl Workers {
    fn new(front: &Front) -> Self {
        Self { changed: front.changed(), told: None }
    }

    /// Tells the writer where there are others than before.
    fn tell(&mut self, front: &Front, jobs: &Jobs) {
        if self.told.is_some() && !self.changed.has_changed().unwrap_or(false) {
            return;
        }
        self.changed.mark_unchanged();
        let workers = front.workers();
        // With a full channel they are told at the next tick.
        if self.told.as_ref() != Some(&workers) {
            self.told = jobs.asks.try_send(Ask::Workers(workers.clone())).is_ok().then_some(workers);
        }
    }
}
