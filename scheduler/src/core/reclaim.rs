//! Attempts at jobs that outlive the scheduler that gave them out: their workers hold on to them and say so when they join, and
//! whoever comes to lead goes on with them instead of running them again.

use std::collections::{BTreeMap, BTreeSet};

use orion_net::{AttemptDelta, BatchResult, FromWorker, WORK_LEASE};
use orion_proto::{JobAttempt, session};

use super::{
    Admitted, Command, Core, Nanos, RequestKey, WorkerState, booking::Given, nanos, queue::LaneKey, tenants::PRIORITIES,
};

/// Batches of which a worker may say that it holds them.
const MOST_HELD: usize = 1024;

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
    /// Another scheduler comes to lead: what this one gave out for jobs runs on.
    pub(super) hands_over: bool,
}

/// A batch that was given out by another scheduler, or by this one before it handed over.
#[derive(Debug)]
struct Held {
    worker: usize,
    device: usize,
    epoch: u64,
    until: Nanos,
    /// Those with which nobody goes on yet.
    attempts: Vec<(u64, JobAttempt)>,
    /// What its worker said of it meanwhile.
    told: Vec<FromWorker>,
}

impl<T, L: Clone> Core<T, L> {
    /// This scheduler comes to lead. These workers may have been given jobs, and these attempts were under way: where they are
    /// is waited for.
    pub fn expect(
        &mut self,
        now: Nanos,
        workers: impl IntoIterator<Item = String>,
        attempts: impl IntoIterator<Item = JobAttempt>,
    ) {
        let here = |name: &String| self.worker_index(name).is_some_and(|at| self.workers[at].is_connected());
        let awaited = workers.into_iter().filter(|name| !here(name)).collect();
        self.reclaim.hands_over = false;
        (self.reclaim.awaited, self.reclaim.until) = (awaited, now.saturating_add(nanos(WORK_LEASE)));
        self.reclaim.expected = Some(attempts.into_iter().collect());
        self.hold_own();
        self.give_up_unexpected(now);
        self.changed = true;
    }

    /// Another scheduler comes to lead: what this one gave out for jobs is not called off any more.
    pub fn hand_over(&mut self) {
        self.reclaim.hands_over = true;
        self.reclaim.expected = None;
        self.reclaim.awaited.clear();
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
        let mut held = self.reclaim.held.values().filter(|held| held.attempts.iter().any(|(_, of)| *of == job));
        match held.next() {
            Some(held) if self.model_names.get(model).is_some_and(|index| self.is_at(held, *index)) => Reclaimed::Held,
            None if self.reclaim.awaited.is_empty() => Reclaimed::Lost,
            _ => Reclaimed::Awaited,
        }
    }

    /// Whether the worker of a batch is here, with its model.
    fn is_at(&self, held: &Held, index: usize) -> bool {
        self.workers[held.worker].is_connected() && self.replica_at(held.device, index).is_some()
    }

    fn replica_at(&self, device: usize, index: usize) -> Option<usize> {
        let serves = |id: &usize| self.replicas[*id].model == index && self.replicas[*id].serves();
        self.devices.get(device)?.residents.iter().copied().find(serves)
    }

    /// What a worker that joins holds of jobs.
    pub(super) fn hold(&mut self, now: Nanos, worker: usize, jobs: Vec<session::HeldBatch>) {
        self.forget_held(worker);
        for batch in jobs.into_iter().take(MOST_HELD) {
            let place = usize::try_from(batch.device).ok();
            let device = place.and_then(|place| self.workers[worker].devices.get(place).copied());
            let attempt = |held: session::HeldAttempt| {
                let session::JobAttempt { job, attempt } = held.job?;
                Some((held.attempt, JobAttempt { job, attempt }))
            };
            let mut attempts: Vec<_> = batch.attempts.into_iter().filter_map(attempt).collect();
            attempts.sort_unstable();
            if let Some(device) = device.filter(|_| !attempts.is_empty() && !self.batches.contains_key(&batch.batch)) {
                let until = now.saturating_add(nanos(WORK_LEASE));
                let held = Held { worker, device, epoch: batch.epoch, until, attempts, told: Vec::new() };
                self.reclaim.held.insert(batch.batch, held);
            }
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
                let (worker, device, epoch) = (running.worker, running.device, running.epoch);
                own.push((*number, Held { worker, device, epoch, until: Nanos::MAX, attempts, told: Vec::new() }));
            }
        }
        self.reclaim.held.extend(own);
    }

    /// A worker that was awaited is back.
    pub(super) fn is_back(&mut self, now: Nanos, worker: usize) {
        let name = self.workers[worker].name.clone();
        self.reclaim.awaited.remove(&*name);
        self.give_up_unexpected(now);
        self.changed = true;
    }

    /// Whether a worker holds this batch for whoever goes on with it.
    pub(super) fn is_held(&self, batch: u64) -> bool {
        self.reclaim.held.contains_key(&batch)
    }

    /// Whether a device has a batch with which nobody goes on yet. One that has ended is soon settled, where anybody leads.
    pub(super) fn is_taken(&self, device: usize) -> bool {
        let ended = |held: &Held| {
            self.reclaim.expected.is_none() && held.told.iter().any(|told| matches!(told, FromWorker::Result(_)))
        };
        self.reclaim.held.values().any(|held| held.device == device && !ended(held))
    }

    /// A worker is gone, and what it held.
    pub(super) fn forget_held(&mut self, worker: usize) {
        self.reclaim.held.retain(|_, held| held.worker != worker);
    }

    /// What is not wanted of the batches that workers hold is called off.
    fn give_up_unexpected(&mut self, now: Nanos) {
        let Some(expected) = &self.reclaim.expected else { return };
        let mut settled = Vec::new();
        for (number, held) in &mut self.reclaim.held {
            let unwanted = |(_, job): &&(u64, JobAttempt)| !expected.contains(job);
            let attempts: Vec<u64> = held.attempts.iter().filter(unwanted).map(|(attempt, _)| *attempt).collect();
            held.attempts.retain(|(_, job)| expected.contains(job));
            if held.attempts.is_empty() {
                settled.push(*number);
            }
            if let Some(link) = self.workers[held.worker].link.clone().filter(|_| !attempts.is_empty()) {
                self.commands.push(Command::Cancel { link, batch: *number, attempts });
            }
        }
        settled.into_iter().for_each(|number| self.settle_held(now, number));
    }

    /// Somebody goes on with each attempt of a batch that is wanted: what was said of it meanwhile counts now.
    fn settle_held(&mut self, now: Nanos, number: u64) {
        let Some(held) = self.reclaim.held.remove(&number) else { return };
        let session = self.workers[held.worker].session;
        for told in held.told {
            match told {
                FromWorker::Result(result) => self.result(now, session, result),
                FromWorker::Deltas(epoch, deltas) => self.deltas(now, session, epoch, deltas),
                FromWorker::Probe(_) => {}
            }
        }
        if self.devices.contains(held.device) {
            self.fill(now, held.device);
        }
    }

    /// Time passes: what is not back by now will not come.
    pub(super) fn end_reclaiming(&mut self, now: Nanos) {
        let reclaim = &mut self.reclaim;
        match &mut reclaim.expected {
            None => {
                let over = reclaim.held.iter().filter(|(_, held)| held.until <= now).map(|(number, _)| *number);
                let over: Vec<u64> = over.collect();
                over.into_iter().for_each(|number| self.settle_held(now, number));
            }
            Some(expected) if now >= reclaim.until && (!expected.is_empty() || !reclaim.awaited.is_empty()) => {
                expected.clear();
                reclaim.awaited.clear();
                self.give_up_unexpected(now);
                self.changed = true;
            }
            Some(_) => {}
        }
    }

    /// A result of a batch with which nobody goes on yet is kept. Others are given back.
    pub(super) fn keep_result(&mut self, now: Nanos, from: Option<usize>, result: BatchResult) -> Option<BatchResult> {
        let held = self.reclaim.held.get_mut(&result.batch).filter(|held| Some(held.worker) == from);
        let Some(held) = held else { return Some(result) };
        let device = held.device;
        held.told.push(FromWorker::Result(result));
        if self.devices.contains(device) {
            self.fill(now, device);
        }
        None
    }

    /// The same of a step.
    pub(super) fn keep_delta(&mut self, from: Option<usize>, epoch: u64, delta: AttemptDelta) -> Option<AttemptDelta> {
        match self.reclaim.held.get_mut(&delta.batch).filter(|held| Some(held.worker) == from) {
            Some(held) => held.told.push(FromWorker::Deltas(epoch, vec![delta])),
            None => return Some(delta),
        }
        None
    }

    /// The batch and the attempt in it that a worker holds of a job, once: whoever asks goes on with it.
    pub(super) fn take_held(&mut self, index: usize, job: JobAttempt) -> Option<(u64, u64)> {
        let at = |(number, held): (&u64, &Held)| {
            let place = held.attempts.iter().position(|(_, of)| *of == job)?;
            self.is_at(held, index).then_some((*number, place))
        };
        let (number, place) = self.reclaim.held.iter().find_map(at)?;
        self.reclaim.expected.as_mut()?.remove(&job);
        let (attempt, _) = self.reclaim.held.get_mut(&number)?.attempts.remove(place);
        Some((number, attempt))
    }

    /// A request goes on where a worker has it already.
    pub(super) fn go_on(
        &mut self,
        now: Nanos,
        index: usize,
        lane: LaneKey,
        (admitted, ticket): (Admitted, T),
        (number, attempt): (u64, u64),
    ) -> RequestKey {
        let (job, rows) = (admitted.request.parameters.job, admitted.rows);
        let key = self.insert_request(now, index, lane, admitted, ticket);
        if let Some(request) = self.request_mut(key) {
            request.start(now, number, attempt);
        }
        let held = self.reclaim.held.get(&number).map(|held| (held.device, held.epoch, held.attempts.is_empty()));
        let Some((device, epoch, settled)) = held else { return key };
        if let Some(running) = self.batches.get_mut(&number) {
            match running.attempts.iter_mut().find(|(of, _)| *of == attempt) {
                Some((_, gone)) => *gone = key,
                None => {
                    running.attempts.push((attempt, key));
                    running.attempts.sort_unstable_by_key(|(attempt, _)| *attempt);
                    running.jobs.extend(job.map(|job| (attempt, job)));
                    running.rows = running.rows.saturating_add(rows);
                }
            }
        } else if let Some(id) = self.replica_at(device, index) {
            let priority = lane.priority.min(PRIORITIES as u8 - 1);
            let (attempts, bucket, hedged) = (vec![(attempt, key)], lane.bucket, false);
            self.count_batch(now, id, Given { number, epoch, attempts, rows, bucket, priority, hedged });
        }
        if settled {
            self.settle_held(now, number);
        }
        key
    }
}
