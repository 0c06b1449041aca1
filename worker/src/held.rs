//! The session, and the batches that the scheduler counts on.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use orion_models::GivenUp;
use orion_net::{AttemptDelta, Batch, BatchResult, SchedulerLink};

use crate::outcome;

/// Results that are kept for a scheduler that cannot be reached; beyond, the oldest are dropped and tried again there.
/// Their numbers travel in the hello, which is a control message.
const UNDELIVERED: usize = 128;
/// Numbers of batches that a hello holds, beside a capability: those beyond are tried again.
const NUMBERS: usize = 1024;
/// Steps of generations that are kept for a scheduler that cannot be reached: more than a lease is long.
const STEPS: usize = 4096;
/// Cancels that are remembered for batches that have not come.
const EARLY_CANCELS: usize = 256;

/// Under one lock: a result either goes out on the session that the scheduler believes in, or is among those that the next
/// hello names.
#[derive(Default)]
pub(crate) struct Held {
    pub(crate) link: Option<Arc<dyn SchedulerLink>>,
    running: HashMap<u64, Running>,
    undelivered: VecDeque<BatchResult>,
    /// Steps of generations, each with its epoch, for a scheduler that cannot be reached.
    steps: Vec<(u64, Vec<AttemptDelta>)>,
    /// Cancels that came before their batch, the newest last: batch and attempt. They travel on another connection.
    early_cancels: VecDeque<(u64, u64)>,
}

/// A batch that was taken and is not answered.
struct Running {
    epoch: u64,
    /// Each with the mark that its model looks at.
    attempts: Vec<(u64, GivenUp)>,
    /// Its device has it.
    begun: bool,
}

impl Held {
    /// Whether there is neither a batch nor a result that is not delivered.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_empty() && self.undelivered.is_empty()
    }

    /// The numbers of the batches that run or could not be delivered.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        let undelivered = self.undelivered.iter().map(|result| result.batch);
        undelivered.chain(self.running.keys().copied()).take(NUMBERS).collect()
    }

    /// A new session: results that could not be delivered. Steps that could not be are delivered here, under the lock, so
    /// that none of a later step goes before them; in one process, where that would call back, there are none.
    pub(crate) fn attach(&mut self, link: Arc<dyn SchedulerLink>) -> VecDeque<BatchResult> {
        self.steps.drain(..).for_each(|(epoch, steps)| link.deltas(epoch, steps));
        self.link = Some(link);
        std::mem::take(&mut self.undelivered)
    }

    /// A batch has come; cancels that came before it are applied. Its result, if nobody waits for any of it.
    pub(crate) fn take(&mut self, batch: &Batch) -> Option<BatchResult> {
        let early = |(of, attempt): &(u64, u64)| (*of == batch.batch).then_some(*attempt);
        let cancelled: Vec<u64> = self.early_cancels.iter().filter_map(early).collect();
        self.early_cancels.retain(|(of, _)| *of != batch.batch);
        let attempts = batch.attempts.iter().map(|attempt| (attempt.attempt, GivenUp::default())).collect();
        self.running.insert(batch.batch, Running { epoch: batch.epoch, attempts, begun: false });
        self.give_up(batch.batch, |attempt| cancelled.contains(&attempt))
    }

    /// Nobody waits for these attempts any more; no attempts: for any of the batch's. The batch's result, if it waits itself and nobody waits for any of it.
    pub(crate) fn cancel(&mut self, batch: u64, attempts: Vec<u64>) -> Option<BatchResult> {
        if self.running.contains_key(&batch) {
            return self.give_up(batch, |attempt| attempts.is_empty() || attempts.contains(&attempt));
        }
        for attempt in attempts {
            if self.early_cancels.len() == EARLY_CANCELS {
                self.early_cancels.pop_front();
            }
            self.early_cancels.push_back((batch, attempt));
        }
        None
    }

    fn give_up(&mut self, batch: u64, which: impl Fn(u64) -> bool) -> Option<BatchResult> {
        let running = self.running.get(&batch)?;
        running.attempts.iter().filter(|(attempt, _)| which(*attempt)).for_each(|(_, given_up)| given_up.set());
        let all = !running.attempts.is_empty() && running.attempts.iter().all(|(_, given_up)| given_up.is_set());
        let attempts = running.attempts.iter().map(|(attempt, _)| *attempt);
        (all && !running.begun).then(|| outcome::not_started(running.epoch, batch, attempts, &GivenUp::error()))
    }

    /// The batch's device has it: the marks of its attempts, in order. None if it was answered already.
    pub(crate) fn begin(&mut self, batch: u64) -> Option<Vec<GivenUp>> {
        let running = self.running.get_mut(&batch)?;
        running.begun = true;
        Some(running.attempts.iter().map(|(_, given_up)| given_up.clone()).collect())
    }

    /// Generations took a step: where to, or it is kept until there is a session. What is beyond the room is lost: the
    /// scheduler sees the gap and has the generation go on elsewhere.
    pub(crate) fn step(
        &mut self,
        epoch: u64,
        deltas: Vec<AttemptDelta>,
    ) -> Option<(Arc<dyn SchedulerLink>, Vec<AttemptDelta>)> {
        if let Some(link) = &self.link {
            return Some((link.clone(), deltas));
        }
        if self.steps.len() < STEPS {
            self.steps.push((epoch, deltas));
        }
        None
    }

    /// A batch is answered: where to, or it is kept until there is a session.
    pub(crate) fn settle(&mut self, result: BatchResult) -> Option<(Arc<dyn SchedulerLink>, BatchResult)> {
        self.running.remove(&result.batch);
        if let Some(link) = &self.link {
            return Some((link.clone(), result));
        }
        if self.undelivered.len() == UNDELIVERED {
            self.undelivered.pop_front();
        }
        self.undelivered.push_back(result);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use orion_net::Attempt;
    use orion_proto::{Code, Error};

    fn batch(number: u64, attempts: &[u64]) -> Batch {
        let attempt = |&attempt: &u64| Attempt { attempt, request: Arc::default() };
        let attempts = attempts.iter().map(attempt).collect();
        Batch { batch: number, epoch: 9, model: "m".into(), device: "d".into(), attempts }
    }

    fn check(result: Option<BatchResult>, attempts: &[u64]) {
        let result = result.unwrap();
        assert_eq!((result.epoch, result.rows), (9, 0));
        assert_eq!(result.results.iter().map(|done| done.attempt).collect::<Vec<_>>(), attempts);
        let cancelled = |code: &Error| code.code == Code::Cancelled;
        assert!(result.results.iter().all(|done| done.not_started && done.outcome.as_ref().is_err_and(cancelled)));
    }

    #[test]
    fn a_batch_that_nobody_waits_for_is_answered_at_once_and_never_begun() {
        let mut held = Held::default();
        assert!(held.take(&batch(1, &[10, 11])).is_none());
        assert!(held.cancel(1, vec![10]).is_none());
        let result = held.cancel(1, vec![11]);
        check(result.clone(), &[10, 11]);
        assert!(held.settle(result.unwrap()).is_none(), "there is no session");
        assert!(held.begin(1).is_none() && held.numbers() == [1]);
        assert_eq!(held.attach(Arc::new(Nowhere)).len(), 1);
        assert!(held.is_idle());
    }

    #[test]
    fn cancels_may_come_before_their_batch() {
        let mut held = Held::default();
        assert!(held.cancel(2, vec![20, 21]).is_none());
        assert!(held.cancel(3, vec![30]).is_none());
        check(held.take(&batch(2, &[20, 21])), &[20, 21]);
        assert!(held.take(&batch(3, &[30, 31])).is_none());
        let marks: Vec<bool> = held.begin(3).unwrap().iter().map(GivenUp::is_set).collect();
        assert_eq!(marks, [true, false]);
    }

    #[test]
    fn what_has_begun_is_answered_by_its_device() {
        let mut held = Held::default();
        assert!(held.take(&batch(4, &[40])).is_none());
        let marks = held.begin(4).unwrap();
        assert!(!marks[0].is_set());
        assert!(held.cancel(4, vec![40]).is_none());
        assert!(marks[0].is_set() && !held.is_idle(), "its model sees it at its next step");
        assert!(held.take(&batch(5, &[50, 51])).is_none());
        check(held.cancel(5, Vec::new()), &[50, 51]);
    }

    struct Nowhere;

    impl SchedulerLink for Nowhere {
        fn result(&self, _: BatchResult) {}
        fn deltas(&self, _: u64, _: Vec<AttemptDelta>) {}
        fn control(&self, _: orion_proto::session::to_scheduler::Message) {}
    }
}
