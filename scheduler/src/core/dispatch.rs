//! Devices take batches: late binding, bookings, and what each batch is made of.

use std::sync::Arc;

use orion_net::{Attempt, Batch};
use orion_proto::JobAttempt;

use super::{
    Command, Cordon, Core, Nanos, RequestKey, WorkerState,
    booking::Given,
    order::{Pick, Source},
    queue::{LaneKey, Waiting},
    tenants::PRIORITIES,
};

/// Bytes of tensors in one batch of several requests: more is better sent as two.
const BATCH_BYTES: usize = 16 << 20;
/// Batches of an inline model that one worker may have at once.
const INLINE_BATCHES: usize = 256;
/// Batches that one device may have at once, whatever the link's delay asks for.
const AHEAD: u64 = 64;

/// A batch that a worker has.
#[derive(Debug)]
pub(super) struct Running {
    pub worker: usize,
    pub device: usize,
    pub model: usize,
    pub replica: usize,
    pub attempts: Vec<(u64, RequestKey)>,
    pub rows: usize,
    pub bucket: u8,
    /// The highest of its requests.
    pub priority: u8,
    pub given: Nanos,
    /// When the one before it ended, if it was given ahead.
    pub begun: Nanos,
    /// When it is predicted to be done.
    pub expected: Nanos,
    pub predicted: Nanos,
    /// Predicted time of its prompt, until it begins to answer.
    pub prefill: Nanos,
    /// The same of all prompts that were to be read before it and of its own.
    pub reading: Nanos,
    /// It runs beside the device, which takes other batches meanwhile.
    pub beside: bool,
    /// A second run of a batch that straggles, or such a batch itself.
    pub hedged: bool,
    /// Bytes of its requests that were given up.
    pub abandoned_bytes: usize,
    /// Of the scheduler that gave it out.
    pub epoch: u64,
    /// Another scheduler gave it out, or this one before it handed over: not all that is in it is known.
    pub adopted: bool,
    /// Which of its attempts are at jobs.
    pub jobs: Vec<(u64, JobAttempt)>,
}

impl<T, L: Clone> Core<T, L> {
    /// Gives a device what it should do, as far ahead as its link's delay asks for.
    pub(super) fn fill(&mut self, now: Nanos, device: usize) {
        while self.takes_work(now, device) {
            let pick = self.choose(now, device);
            if self.hedge_on(now, device, pick.map_or(0.0, |pick| pick.standing)) {
                continue;
            }
            let Some(pick) = pick else { return };
            if !self.run_batch(now, device, pick) {
                return;
            }
        }
    }

    /// Offers a model's queue to the devices that hold it and take work, the one that would finish first before others.
    pub(super) fn offer(&mut self, now: Nanos, index: usize) {
        if self.models[index].queue.is_empty() {
            return;
        }
        let mut takers = std::mem::take(&mut self.scratch.takers);
        takers.clear();
        for id in &self.models[index].replicas {
            let replica = &self.replicas[*id];
            if self.can_run(now, *id) && self.takes_work(now, replica.device) {
                let done = self.available(now, replica.device).saturating_add(replica.line(0).predict(1));
                takers.push((done.saturating_add(replica.penalty(now)), replica.device));
            }
        }
        takers.sort_unstable();
        self.scratch.left.begin();
        for &(_, device) in &takers {
            self.fill(now, device);
            // What one leaves to others may be for any of them: their order here is that of a row, not of what waits.
            if self.models[index].queue.is_empty() {
                break;
            }
        }
        self.scratch.left.end();
        self.scratch.takers = takers;
    }

    /// Whether a device's worker takes batches at all.
    pub(super) fn takes_part(&self, device: usize) -> bool {
        let worker = &self.workers[self.devices[device].worker];
        worker.state == WorkerState::Ready && worker.cordon != Cordon::Draining
    }

    /// Whether a device's worker is being emptied, by an operator or because it leaves: it runs what nothing else can yet.
    fn is_emptied(&self, device: usize) -> bool {
        let worker = &self.workers[self.devices[device].worker];
        let drained = worker.state == WorkerState::Ready && worker.cordon == Cordon::Draining;
        drained || (worker.state == WorkerState::Draining && !worker.released)
    }

    /// Whether a replica on such a device goes on with its model: no other serves it, but one will, or none can.
    pub(super) fn runs_last(&self, id: usize) -> bool {
        let (index, device) = (self.replicas[id].model, self.replicas[id].device);
        let serves = |other: &usize| {
            let replica = &self.replicas[*other];
            replica.serves() && self.takes_part(replica.device) && !self.is_stalled(*other)
        };
        let goes_on = || self.moves(index) || !self.could_move(index);
        let model = &self.models[index];
        !model.is_inline() && self.is_emptied(device) && !model.replicas.iter().any(serves) && goes_on()
    }

    /// Whether a replica's device takes what waits for its model.
    pub(super) fn takes_requests(&self, id: usize) -> bool {
        self.takes_part(self.replicas[id].device) || self.runs_last(id)
    }

    /// Whether a device is idle, or will be by the time that a batch sent now arrives.
    pub(super) fn takes_work(&self, now: Nanos, device: usize) -> bool {
        if !self.takes_part(device) && !self.is_emptied(device) {
            return false;
        }
        let at = &self.devices[device];
        if at.stalled {
            return false;
        }
        if self.is_taken(now, device) {
            return false;
        }
        let Some(last) = at.batches.last() else { return true };
        let lead = self.workers[at.worker].lead;
        let usual = self.batches.get(last).map_or(1, |batch| batch.predicted.max(1));
        // Until the result of one is known, the next may have to be under way, and the one after that.
        let ahead = lead.saturating_mul(2).div_ceil(usual).min(AHEAD);
        at.booked_until <= now.saturating_add(lead) && (at.batches.len() as u64) < 1 + ahead
    }

    /// Takes a pick's requests out of their queue.
    fn take(&mut self, pick: Pick) -> (Vec<Waiting>, u8) {
        let model = self.replicas[pick.replica].model;
        let requests = &self.requests;
        let bytes_of = |waiting: &Waiting| requests.get(waiting.key.place).map_or(0, |request| request.bytes);
        let queue = match pick.bound {
            true => self.replicas[pick.replica].bound.as_deref_mut(),
            false => Some(&mut self.models[model].queue),
        };
        let Some(queue) = queue else { return (Vec::new(), 0) };
        let (mut taken, bucket) = match pick.source {
            Source::Group(at) => match queue.take_group(at) {
                Some(group) if group.alone => return (group.waiting, group.bucket),
                Some(group) => (group.waiting, group.bucket),
                None => return (Vec::new(), 0),
            },
            Source::Lane { lane, .. } => (Vec::new(), queue.lanes()[lane].key.bucket),
        };
        let mut rows: usize = taken.iter().map(|waiting| waiting.rows).sum();
        let mut bytes: usize = taken.iter().map(bytes_of).sum();
        let mut left: Vec<(LaneKey, Waiting)> = Vec::new();
        let (first, skip) = match pick.source {
            Source::Lane { lane, skip } => (Some(lane), skip),
            Source::Group(_) => (None, 0),
        };
        for _ in 0..skip {
            let Some(lane) = first else { break };
            left.extend(queue.pop(lane).map(|waiting| (queue.lanes()[lane].key, waiting)));
        }
        // What shares the chosen lane's bucket fills the batch up, the highest priority first.
        let mut order: Vec<usize> = first.into_iter().collect();
        if skip == 0 {
            order.extend((0..queue.lanes().len()).filter(|at| Some(*at) != first));
        }
        for lane in order {
            if queue.lanes()[lane].key.bucket != bucket {
                continue;
            }
            while let Some(next) = queue.lanes()[lane].waiting.front() {
                let together = (rows.saturating_add(next.rows), bytes.saturating_add(bytes_of(next)));
                if !taken.is_empty() && (together.0 > pick.rows || together.1 > BATCH_BYTES) {
                    break;
                }
                (rows, bytes) = together;
                taken.extend(queue.pop(lane));
            }
        }
        for (key, waiting) in left {
            queue.push(key, waiting);
        }
        queue.tidy();
        (taken, bucket)
    }

    fn run_batch(&mut self, now: Nanos, device: usize, pick: Pick) -> bool {
        let model = self.replicas[pick.replica].model;
        let worker = self.devices[device].worker;
        if self.workers[worker].link.is_none() || self.models[model].spec.is_none() {
            return false;
        }
        let on_credit = pick.on_credit;
        let (taken, bucket) = self.take(pick);
        if taken.is_empty() {
            return false;
        }
        self.requeued(model);
        let keys: Vec<RequestKey> = taken.iter().map(|waiting| waiting.key).collect();
        let service = self.replicas[pick.replica].line(bucket).predict(taken.iter().map(|w| w.rows).sum());
        self.charge_tenants(&keys, service);
        // What a model runs in its turn was paid for with the loads: it neither saves up nor spends.
        if self.devices[device].turn.is_none_or(|turn| turn.replica != pick.replica) {
            self.count_overdue(device, service, on_credit);
        }
        self.send_batch(now, pick.replica, keys, bucket, false)
    }

    /// Tenants pay for their requests by rows.
    pub(super) fn charge_tenants(&mut self, keys: &[RequestKey], service: Nanos) {
        let rows: usize = keys.iter().filter_map(|key| self.request(*key)).map(|request| request.rows).sum();
        for key in keys {
            let Some(request) = self.requests.get(key.place) else { continue };
            let (priority, tenant, own) = (request.lane.priority, request.lane.tenant, request.rows);
            let time = service as f64 * own as f64 / rows.max(1) as f64;
            self.tenants.charge(priority, tenant, time as Nanos);
            self.tenants.left(priority, tenant, *key);
        }
    }

    /// Books a device and hands it a batch of these requests.
    pub(super) fn send_batch(
        &mut self,
        now: Nanos,
        id: usize,
        keys: Vec<RequestKey>,
        bucket: u8,
        hedged: bool,
    ) -> bool {
        let (model, device) = (self.replicas[id].model, self.replicas[id].device);
        let worker = self.devices[device].worker;
        let (Some(link), Some(spec)) = (self.workers[worker].link.clone(), self.models[model].spec.clone()) else {
            return false;
        };
        if spec.policy.sequences {
            self.sequences_run_on(id, &keys);
        }
        let number = self.number();
        let (mut rows, mut priority) = (0usize, PRIORITIES as u8 - 1);
        let (mut attempts, mut running) = (Vec::with_capacity(keys.len()), Vec::with_capacity(keys.len()));
        for key in keys {
            let attempt = self.number();
            let Some(request) = self.request_mut(key) else { continue };
            rows = rows.saturating_add(request.rows);
            priority = priority.min(request.lane.priority);
            request.start(now, number, attempt);
            let run = request.generated.as_ref().map(|generated| generated.resumed(&request.request));
            attempts.push(Attempt { attempt, request: run.unwrap_or_else(|| request.request.clone()) });
            running.push((attempt, key));
        }
        let batch = Batch {
            batch: number,
            epoch: self.epoch,
            model: self.models[model].name.clone(),
            device: Arc::clone(&self.devices[device].name),
            attempts,
        };
        let (attempts, epoch, adopted) = (running, self.epoch, false);
        self.count_batch(now, id, Given { number, epoch, attempts, rows, bucket, priority, hedged, adopted });
        self.commands.push(Command::Run { link, batch });
        true
    }

    /// Gives an inline model's requests to a worker: they cost nothing, so nothing is booked and nothing waits long.
    pub(super) fn run_inline(&mut self, now: Nanos, index: usize) {
        loop {
            let takes = |id: &&usize| {
                let replica = &self.replicas[**id];
                let device = &self.devices[replica.device];
                self.can_run(now, **id) && device.beside < INLINE_BATCHES && self.takes_part(replica.device)
            };
            let busy = |id: &&usize| self.devices[self.replicas[**id].device].beside;
            let model = &self.models[index];
            let takers = || model.replicas.iter().filter(takes);
            let group = model.queue.groups.iter().enumerate().find_map(|(at, group)| {
                let allowed = takers().filter(|id| self.may_run_on(group, self.replicas[**id].device));
                Some((*allowed.min_by_key(busy)?, at))
            });
            let least_busy = takers().min_by_key(busy).copied();
            let lane = model.queue.lanes().iter().position(|lane| !lane.waiting.is_empty());
            let queue = &mut self.models[index].queue;
            let (id, keys) = match (group, least_busy, lane) {
                (Some((id, at)), ..) => {
                    (id, queue.take_group(at).map(|group| group.waiting.iter().map(|w| w.key).collect::<Vec<_>>()))
                }
                (None, Some(id), Some(lane)) => (id, queue.pop(lane).map(|waiting| vec![waiting.key])),
                _ => return,
            };
            let Some(keys) = keys else { return };
            self.requeued(index);
            self.charge_tenants(&keys, 0);
            self.send_batch(now, id, keys, 0, false);
        }
    }
}
