//! The session, and the batches that the scheduler counts on.

mod answered;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use orion_models::GivenUp;
use orion_net::{AttemptDelta, Batch, BatchResult, SchedulerLink};
use orion_proto::{JobAttempt, session};

use crate::outcome;
use answered::Answered;

/// Results that are kept for a scheduler that cannot be reached; beyond, the oldest are dropped and tried again there.
/// Their numbers travel in the hello, which is a control message.
const UNDELIVERED: usize = 128;
/// Numbers of batches that a hello holds, beside a capability: those beyond are tried again.
const NUMBERS: usize = 1024;
/// Batches of jobs that a hello holds.
const JOBS: usize = 512;
/// Steps of generations that are kept for a scheduler that cannot be reached: more than a lease is long.
const STEPS: usize = 4096;
/// Cancels that are remembered for batches that have not come.
const EARLY_CANCELS: usize = 256;

/// Under one lock: a result either goes out on the session that the scheduler believes in, or is among those that the next
/// hello names.
#[derive(Default)]
pub(crate) struct Held {
    link: Option<Arc<dyn SchedulerLink>>,
    /// Sessions that there were: tells whether there was another since.
    sessions: u64,
    running: HashMap<u64, Running>,
    undelivered: VecDeque<Answer>,
    /// Results of jobs that were delivered to a scheduler which may be gone before it has written them down.
    answered: Answered,
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
    jobs: Jobs,
    /// Its lease ended: whatever comes of it is nobody's.
    lapsed: bool,
}

/// Of jobs, what a batch holds.
#[derive(Clone, Default)]
struct Jobs {
    device: Arc<str>,
    attempts: Vec<(u64, JobAttempt)>,
    /// Every step of their generations: a scheduler that follows another on has none of them.
    steps: Vec<AttemptDelta>,
}

/// A result, with what a scheduler that follows another on is told beside it.
#[derive(Clone)]
struct Answer {
    result: BatchResult,
    jobs: Jobs,
}

impl Jobs {
    fn of(batch: &Batch) -> Self {
        let job = |attempt: &orion_net::Attempt| Some((attempt.attempt, attempt.request.parameters.job?));
        let attempts = batch.attempts.iter().filter_map(job).collect();
        Self { device: batch.device.clone(), attempts, steps: Vec::new() }
    }

    fn named(&self, batch: u64, epoch: u64, devices: &[session::Device]) -> Option<session::HeldBatch> {
        let device = devices.iter().position(|device| device.name == *self.device)?;
        let attempt = |(attempt, job): &(u64, JobAttempt)| session::HeldAttempt {
            attempt: *attempt,
            job: Some(session::JobAttempt { job: job.job, attempt: job.attempt }),
        };
        let attempts: Vec<_> = self.attempts.iter().map(attempt).collect();
        let device = u32::try_from(device).ok()?;
        (!attempts.is_empty()).then_some(session::HeldBatch { batch, epoch, device, attempts })
    }
}

impl Held {
    /// Whether there is neither a batch nor a result that is not delivered.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_empty() && self.undelivered.is_empty()
    }

    /// The session that the scheduler believes in.
    pub(crate) fn link(&self) -> Option<Arc<dyn SchedulerLink>> {
        self.link.clone()
    }

    /// The numbers of the batches that run or could not be delivered.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        let undelivered = self.undelivered.iter().map(|answer| answer.result.batch);
        undelivered.chain(self.running()).take(NUMBERS).collect()
    }

    fn running(&self) -> impl Iterator<Item = u64> {
        self.running.iter().filter(|(_, running)| !running.lapsed).map(|(number, _)| *number)
    }

    /// Of jobs, what runs, could not be delivered, or was delivered lately; devices are named by their places.
    pub(crate) fn jobs(&mut self, devices: &[session::Device]) -> Vec<session::HeldBatch> {
        let runs = |(number, running): (&u64, &Running)| {
            let named = running.jobs.named(*number, running.epoch, devices);
            named.filter(|_| !running.lapsed)
        };
        let answers = self.undelivered.iter().chain(self.answered.iter());
        let answered = answers.filter_map(|a| a.jobs.named(a.result.batch, a.result.epoch, devices));
        self.running.iter().filter_map(runs).chain(answered).take(JOBS).collect()
    }

    /// A new session with the scheduler of this epoch: results that could not be delivered, and of jobs those that another
    /// scheduler got. Steps that could not be delivered are here, under the lock, so that none of a later step goes before
    /// them; in one process, where that would call back, there are none.
    pub(crate) fn attach(&mut self, link: Arc<dyn SchedulerLink>, epoch: u64) -> Vec<BatchResult> {
        for (of, steps) in self.steps.drain(..).filter(|(of, _)| *of == epoch) {
            link.deltas(of, steps);
        }
        let undelivered = std::mem::take(&mut self.undelivered);
        let again = self.answered.of_others(epoch);
        let (mut results, mut steps) = (Vec::new(), Vec::new());
        for running in self.running.values().filter(|running| running.epoch != epoch && !running.lapsed) {
            steps.push((running.epoch, running.jobs.steps.clone()));
        }
        for answer in again.into_iter().chain(undelivered) {
            if answer.result.epoch != epoch {
                steps.push((answer.result.epoch, answer.jobs.steps.clone()));
            }
            results.push(answer.result.clone());
            self.answered.keep(answer);
        }
        steps.retain(|(_, steps)| !steps.is_empty());
        steps.into_iter().for_each(|(of, steps)| link.deltas(of, steps));
        self.link = Some(link);
        self.sessions += 1;
        results
    }

    /// There is no session any more; its number.
    pub(crate) fn detach(&mut self) -> u64 {
        self.link = None;
        self.sessions
    }

    /// No scheduler was heard of since this session for as long as the work lasts: others may do it by now, so nothing of it is
    /// told any more. What has not begun does not begin; whether there was any.
    pub(crate) fn lapse(&mut self, session: u64) -> bool {
        if self.link.is_some() || self.sessions != session {
            return false;
        }
        let any = !self.is_idle();
        for running in self.running.values_mut() {
            running.lapsed = true;
            running.attempts.iter().for_each(|(_, given_up)| given_up.set());
        }
        self.undelivered.clear();
        self.steps.clear();
        self.answered.clear();
        any
    }

    /// A batch has come; cancels that came before it are applied. Its result, if nobody waits for any of it.
    pub(crate) fn take(&mut self, batch: &Batch) -> Option<BatchResult> {
        let early = |(of, attempt): &(u64, u64)| (*of == batch.batch).then_some(*attempt);
        let cancelled: Vec<u64> = self.early_cancels.iter().filter_map(early).collect();
        self.early_cancels.retain(|(of, _)| *of != batch.batch);
        let attempts = batch.attempts.iter().map(|attempt| (attempt.attempt, GivenUp::default())).collect();
        let running = Running { epoch: batch.epoch, attempts, begun: false, jobs: Jobs::of(batch), lapsed: false };
        self.running.insert(batch.batch, running);
        self.give_up(batch.batch, |attempt| cancelled.contains(&attempt))
    }

    /// Nobody waits for these attempts any more; no attempts: for any of the batch's. The batch's result, if it waits itself and nobody waits for any of it.
    pub(crate) fn cancel(&mut self, batch: u64, attempts: Vec<u64>) -> Option<BatchResult> {
        if self.running.contains_key(&batch) {
            return self.give_up(batch, |attempt| attempts.is_empty() || attempts.contains(&attempt));
        }
        if self.answered.forget(batch) {
            return None;
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
        for delta in &deltas {
            let running = self.running.get_mut(&delta.batch);
            if let Some(running) = running.filter(|r| r.jobs.attempts.iter().any(|(of, _)| *of == delta.attempt)) {
                running.jobs.steps.push(delta.clone());
            }
        }
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
        let running = self.running.remove(&result.batch);
        if running.as_ref().is_some_and(|running| running.lapsed) {
            return None;
        }
        let jobs = running.map(|running| running.jobs).unwrap_or_default();
        if let Some(link) = &self.link {
            let link = link.clone();
            if !jobs.attempts.is_empty() {
                self.answered.keep(Answer { result: result.clone(), jobs });
            }
            return Some((link, result));
        }
        if self.undelivered.len() == UNDELIVERED {
            self.undelivered.pop_front();
        }
        self.undelivered.push_back(Answer { result, jobs });
        None
    }
}
