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
use orion_proto::{Code, Error, JobAttempt, session};
use prost::Message;

use crate::outcome;
use answered::Answered;

/// Results that are kept for a scheduler that cannot be reached; beyond, the oldest are dropped and tried again there.
/// Their numbers travel in the hello, which is a control message.
const UNDELIVERED: usize = 128;
/// Numbers of batches that a hello holds, beside a capability: those beyond are tried again.
const NUMBERS: usize = 1024;
/// Bytes of what a hello says of jobs: what runs before what was answered, the newest first.
const JOBS_BYTES: usize = 24 * 1024;
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

    /// The numbers of the batches that run, could not be delivered, or were delivered lately.
    pub(crate) fn numbers(&mut self) -> Vec<u64> {
        self.answered.let_go();
        let undelivered = self.undelivered.iter().map(|answer| answer.result.batch);
        let answered = self.answered.iter().map(|answer| answer.result.batch);
        self.running().chain(undelivered).chain(answered).take(NUMBERS).collect()
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
        self.answered.let_go();
        let answers = self.undelivered.iter().rev().chain(self.answered.iter().rev());
        let answered = answers.filter_map(|a| a.jobs.named(a.result.batch, a.result.epoch, devices));
        let mut left = JOBS_BYTES;
        let fits = |batch: &session::HeldBatch| {
            let bytes = batch.encoded_len() + 4;
            left = left.saturating_sub(bytes);
            left > 0
        };
        self.running.iter().filter_map(runs).chain(answered).take_while(fits).collect()
    }

    /// A new session with the scheduler of this epoch, to which `named` was said to be held: results that it is to be told. Each
    /// of these that is here no more is answered so. Steps are told here, under the lock, so that none of a later step goes
    /// before them, those of jobs from the first on: another scheduler has none of them. In one process, where that would call
    /// back, there are none.
    pub(crate) fn attach(
        &mut self,
        link: Arc<dyn SchedulerLink>,
        epoch: u64,
        named: &[session::HeldBatch],
    ) -> Vec<BatchResult> {
        let undelivered = std::mem::take(&mut self.undelivered);
        let answers = || self.answered.iter().chain(&undelivered);
        for running in self.running.values().filter(|running| !running.lapsed && !running.jobs.steps.is_empty()) {
            link.deltas(running.epoch, running.jobs.steps.clone());
        }
        for answer in answers().filter(|answer| !answer.jobs.steps.is_empty()) {
            link.deltas(answer.result.epoch, answer.jobs.steps.clone());
        }
        let mut results: Vec<BatchResult> = answers().map(|answer| answer.result.clone()).collect();
        let gone = |batch: &&session::HeldBatch| {
            let runs = self.running.get(&batch.batch).is_some_and(|running| !running.lapsed);
            !runs && answers().all(|answer| answer.result.batch != batch.batch)
        };
        let error = Error::new(Code::Unavailable, "its worker gave it up");
        results.extend(named.iter().filter(gone).map(|batch| {
            let attempts = batch.attempts.iter().map(|held| held.attempt);
            outcome::not_started(batch.epoch, batch.batch, attempts, &error)
        }));
        for (of, steps) in self.steps.drain(..).filter(|(of, _)| *of == epoch) {
            link.deltas(of, steps);
        }
        undelivered.into_iter().for_each(|answer| self.answered.keep(answer));
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
        if self.answered.forget(batch, &attempts) {
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
            self.answered.keep(Answer { result: result.clone(), jobs });
            return Some((link, result));
        }
        if self.undelivered.len() == UNDELIVERED {
            self.undelivered.pop_front();
        }
        self.undelivered.push_back(Answer { result, jobs });
        None
    }
}
