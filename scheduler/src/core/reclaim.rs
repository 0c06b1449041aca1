//! Attempts at jobs that outlive the scheduler that gave them out: their workers hold on to them and say so when they join, and
//! whoever comes to lead goes on with them instead of running them again.

mod adopt;

use std::collections::{BTreeMap, BTreeSet};

use orion_net::{AttemptDelta, BatchResult, WORK_LEASE};
use orion_proto::{JobAttempt, session};

use super::{Command, Core, EPOCH_BITS, IN_PROCESS, Nanos, WorkerState, nanos};

/// Batches of which a worker may say that it holds them.
const MOST_HELD: usize = 1024;
/// Steps of generations that are kept of a batch.
const MOST_STEPS: usize = 64 * 1024;

/// Where an attempt is that was under way when this scheduler came to lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reclaimed {
    /// A worker may come back with it.
    Awaited,
    /// A worker has it, and its model there: [`Core::submit`] goes on with it.
    Held,
    /// Nobody has it, or it is not awaited any more.
    Lost,
}

/// What is known of such attempts.
#[derive(Debug, Default)]
pub(super) struct Reclaim {
    /// Those that were under way and are neither back nor given up. None: this scheduler does not lead.
    expected: Option<BTreeSet<JobAttempt>>,
    /// Workers that may have some of them and are not back, and until when that is waited for.
    awaited: BTreeSet<String>,
    until: Nanos,
    /// Batches that workers have, by their number.
    held: BTreeMap<u64, Held>,
    /// How often this scheduler came to lead.
    terms: u64,
    /// Another scheduler comes to lead: what this one gave out for jobs runs on.
    pub(super) hands_over: bool,
}

/// A batch that was given out by another scheduler, or by this one before it handed over.
#[derive(Debug)]
struct Held {
    worker: usize,
    device: usize,
    epoch: u64,
    /// Until then its device is believed to be busy with it.
    until: Nanos,
    /// Those with which nobody goes on yet.
    attempts: Vec<(u64, JobAttempt)>,
    /// What its worker said of it meanwhile: steps, and its result.
    steps: Vec<AttemptDelta>,
    result: Option<BatchResult>,
}

impl<T, L: Clone> Core<T, L> {
    /// This scheduler comes to lead. These workers may have been given jobs, and these attempts were under way: where they are
    /// is waited for. Says which of its terms begins.
    pub fn expect(
        &mut self,
        now: Nanos,
        workers: impl IntoIterator<Item = String>,
        attempts: impl IntoIterator<Item = JobAttempt>,
    ) -> u64 {
        let here = |name: &String| self.worker_index(name).is_some_and(|at| self.workers[at].is_connected());
        let awaited = workers.into_iter().filter(|name| !here(name)).collect();
        self.reclaim.hands_over = false;
        self.reclaim.terms += 1;
        (self.reclaim.awaited, self.reclaim.until) = (awaited, now.saturating_add(nanos(WORK_LEASE)));
        self.reclaim.expected = Some(attempts.into_iter().collect());
        self.hold_own();
        self.ask_for_the_rest();
        self.give_up_unexpected(now);
        self.changed = true;
        self.reclaim.terms
    }

    /// Another scheduler comes to lead after this term: what was given out for jobs is not called off any more.
    pub fn hand_over(&mut self, term: u64) {
        if term == self.reclaim.terms {
            self.reclaim.hands_over = true;
            self.reclaim.expected = None;
            self.reclaim.awaited.clear();
        }
    }

    /// Nobody waits for this attempt any more.
    pub fn unexpect(&mut self, now: Nanos, job: JobAttempt) {
        if self.reclaim.expected.as_mut().is_some_and(|expected| expected.remove(&job)) {
            self.give_up_unexpected(now);
        }
    }

    /// Workers that have been given jobs or may be, and those that are awaited.
    pub fn known_workers(&self) -> BTreeSet<String> {
        let gone = |state| matches!(state, WorkerState::Dead | WorkerState::Left);
        let here = self.workers.iter().filter(|worker| !gone(worker.state)).map(|worker| worker.name.to_string());
        here.chain(self.reclaim.awaited.iter().cloned()).collect()
    }

    /// Where an attempt is that was under way when this scheduler came to lead.
    pub fn reclaimed(&self, job: JobAttempt, model: &str) -> Reclaimed {
        if !self.reclaim.expected.as_ref().is_some_and(|expected| expected.contains(&job)) {
            return Reclaimed::Lost;
        }
        let held = || self.reclaim.held.values().filter(|held| held.has(job));
        let index = self.model_names.get(model);
        match held().next() {
            None if self.reclaim.awaited.is_empty() => Reclaimed::Lost,
            Some(_) if index.is_some_and(|index| held().any(|held| self.is_at(held, *index))) => Reclaimed::Held,
            _ => Reclaimed::Awaited,
        }
    }

    /// What a worker that joins holds of jobs.
    pub(super) fn hold(&mut self, now: Nanos, worker: usize, jobs: Vec<session::HeldBatch>) {
        let of_it = self.reclaim.held.extract_if(.., |_, held| held.worker == worker);
        let mut before: BTreeMap<u64, Held> = of_it.collect();
        for batch in jobs.into_iter().take(MOST_HELD) {
            let number = batch.batch;
            // Numbers that this scheduler has yet to give out, or that another worker has, are not this worker's.
            let unknown = number >= self.next_number && number >> EPOCH_BITS == self.next_number >> EPOCH_BITS;
            if unknown || self.is_held(number) {
                continue;
            }
            let place = usize::try_from(batch.device).ok();
            let device = place.and_then(|place| self.workers[worker].devices.get(place).copied());
            let attempt = |held: session::HeldAttempt| {
                let session::JobAttempt { job, attempt } = held.job?;
                Some((held.attempt, JobAttempt { job, attempt }))
            };
            let mut attempts: Vec<_> = batch.attempts.into_iter().filter_map(attempt).collect();
            attempts.sort_unstable();
            attempts.dedup_by_key(|(_, job)| *job);
            let held = match (before.remove(&number), self.batches.contains_key(&number), device) {
                (Some(held), ..) => held,
                (None, false, Some(device)) if !attempts.is_empty() => {
                    let until = now.saturating_add(nanos(WORK_LEASE));
                    Held { worker, device, epoch: batch.epoch, until, attempts, steps: Vec::new(), result: None }
                }
                _ => continue,
            };
            self.reclaim.held.insert(number, held);
        }
    }

    /// What this scheduler gave out when it led before, and nobody waits for here any more.
    fn hold_own(&mut self) {
        let mut own = Vec::new();
        for (number, running) in self.batches.iter().filter(|(_, running)| !running.jobs.is_empty()) {
            let key_of = |attempt: u64| running.attempts.iter().find(|(of, _)| *of == attempt).map(|(_, key)| *key);
            let left = |(attempt, _): &&(u64, JobAttempt)| key_of(*attempt).is_some_and(|k| self.request(k).is_none());
            let attempts: Vec<_> = running.jobs.iter().filter(left).copied().collect();
            if !attempts.is_empty() {
                let (worker, device, epoch, until) = (running.worker, running.device, running.epoch, Nanos::MAX);
                let held = Held { worker, device, epoch, until, attempts, steps: Vec::new(), result: None };
                own.push((*number, held));
            }
        }
        self.reclaim.held.extend(own);
    }

    /// What ended while nobody led is with its worker, which says so when it joins anew.
    fn ask_for_the_rest(&mut self) {
        let held = |job: &JobAttempt| self.reclaim.held.values().any(|held| held.has(*job));
        let missing = self.reclaim.expected.iter().flatten().any(|job| !held(job));
        if self.reclaim.terms < 2 || !missing {
            return;
        }
        for worker in self.workers.iter().filter(|worker| worker.is_connected() && worker.carrier != IN_PROCESS) {
            if let Some(link) = worker.link.clone() {
                self.reclaim.awaited.insert(worker.name.to_string());
                self.commands.push(Command::Close { link, reason: "its scheduler leads again and asks what it holds" });
            }
        }
    }

    /// A worker that was awaited is back, or says again that it is there.
    pub(super) fn is_back(&mut self, now: Nanos, worker: usize) {
        let name = self.workers[worker].name.clone();
        if self.reclaim.awaited.remove(&*name) || self.reclaim.held.values().any(|held| held.worker == worker) {
            self.give_up_unexpected(now);
            self.changed = true;
        }
    }

    /// Whether a worker holds this batch for whoever goes on with it.
    pub(super) fn is_held(&self, batch: u64) -> bool {
        self.reclaim.held.contains_key(&batch)
    }

    /// Whether a device runs a batch with which nobody goes on yet.
    pub(super) fn is_taken(&self, now: Nanos, device: usize) -> bool {
        let runs = |held: &Held| held.device == device && held.result.is_none() && held.until > now;
        self.reclaim.held.values().any(runs)
    }

    /// A worker is gone, and what it held.
    pub(super) fn forget_held(&mut self, worker: usize) {
        let before = self.reclaim.held.len();
        self.reclaim.held.retain(|_, held| held.worker != worker);
        self.changed |= self.reclaim.held.len() < before;
    }

    /// What is not wanted of the batches that workers hold is called off. One that is not welcomed yet is told when it is.
    fn give_up_unexpected(&mut self, now: Nanos) {
        let Some(expected) = &self.reclaim.expected else { return };
        let mut free = Vec::new();
        for (number, held) in &mut self.reclaim.held {
            let worker = &self.workers[held.worker];
            if !worker.is_connected() {
                continue;
            }
            let unwanted = |(_, job): &&(u64, JobAttempt)| !expected.contains(job);
            let attempts: Vec<u64> = held.attempts.iter().filter(unwanted).map(|(attempt, _)| *attempt).collect();
            held.attempts.retain(|(_, job)| expected.contains(job));
            if held.attempts.is_empty() {
                free.push((*number, held.device));
            }
            if let Some(link) = worker.link.clone().filter(|_| !attempts.is_empty()) {
                self.commands.push(Command::Cancel { link, batch: *number, attempts });
            }
        }
        for (number, device) in free {
            if let Some(held) = self.reclaim.held.remove(&number) {
                self.tell_held(now, held);
            }
            if self.devices.contains(device) {
                self.fill(now, device);
            }
        }
    }

    /// What was said meanwhile of a batch that is not held any more.
    fn tell_held(&mut self, now: Nanos, held: Held) {
        let session = self.workers[held.worker].session;
        self.deltas(now, session, held.epoch, held.steps);
        if let Some(result) = held.result {
            self.result(now, session, result);
        }
    }

    /// Time passes: what is not back by now will not come.
    pub(super) fn end_reclaiming(&mut self, now: Nanos) {
        let reclaim = &mut self.reclaim;
        if let Some(expected) = reclaim.expected.as_mut().filter(|_| now >= reclaim.until)
            && (!expected.is_empty() || !reclaim.awaited.is_empty())
        {
            expected.clear();
            reclaim.awaited.clear();
            self.give_up_unexpected(now);
            self.changed = true;
        }
    }

    /// A result of a batch with which nobody goes on yet is kept. Others are given back.
    pub(super) fn keep_result(&mut self, now: Nanos, from: Option<usize>, result: BatchResult) -> Option<BatchResult> {
        let held = self.reclaim.held.get_mut(&result.batch).filter(|held| Some(held.worker) == from);
        let Some(held) = held.filter(|held| held.epoch == result.epoch) else { return Some(result) };
        let device = held.device;
        held.result = Some(result);
        if self.devices.contains(device) {
            self.fill(now, device);
        }
        None
    }

    /// The same of a step.
    pub(super) fn keep_delta(&mut self, from: Option<usize>, epoch: u64, delta: AttemptDelta) -> Option<AttemptDelta> {
        match self.reclaim.held.get_mut(&delta.batch).filter(|held| Some(held.worker) == from && held.epoch == epoch) {
            // What is beyond is a gap, and its generation runs again.
            Some(held) if held.steps.len() >= MOST_STEPS => {}
            Some(held) => held.steps.push(delta),
            None => return Some(delta),
        }
        None
    }
}

impl Held {
    fn has(&self, job: JobAttempt) -> bool {
        self.attempts.iter().any(|(_, of)| *of == job)
    }
}
