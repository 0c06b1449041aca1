//! Which batch runs next, and where: late binding by predicted completion.

use std::sync::Arc;

use orion_net::{Attempt, Batch};
use orion_proto::{Code, Error};

use super::{Command, Core, ModelState, Nanos, RequestKey, WorkerState, catalogue::Replica};

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
    pub attempts: Vec<(u64, RequestKey)>,
    pub rows: usize,
    pub predicted: Nanos,
    pub inline: bool,
    /// Bytes of its requests that were given up.
    pub abandoned_bytes: usize,
}

impl<T, L: Clone> Core<T, L> {
    /// Starts whatever can start, the model whose oldest request waits longest first.
    pub(super) fn dispatch(&mut self, now: Nanos) {
        let mut waiting: Vec<(u64, usize)> = (0..self.models.len())
            .filter_map(|index| {
                self.models[index].queue.front().map(|key| (self.request(*key).map_or(0, |r| r.serial), index))
            })
            .collect();
        waiting.sort_unstable();
        for (_, index) in waiting {
            self.dispatch_model(now, index);
        }
    }

    pub(super) fn dispatch_model(&mut self, now: Nanos, index: usize) {
        while let Some(head) = self.live_head(now, index) {
            let Some(place) = self.choose(now, index, head) else { return };
            if !self.run_batch(now, index, place) {
                return;
            }
        }
    }

    /// The first request that still waits; those that were cancelled or are too late leave the queue.
    fn live_head(&mut self, now: Nanos, index: usize) -> Option<RequestKey> {
        while let Some(&key) = self.models[index].queue.front() {
            let late = self.request(key).map(|request| request.deadline.is_some_and(|deadline| deadline <= now));
            if late == Some(false) {
                return Some(key);
            }
            self.models[index].queue.pop_front();
            if late == Some(true) {
                self.fail(now, key, Error::new(Code::DeadlineExceeded, "the request's time ran out while it waited"));
            }
        }
        None
    }

    /// The replica that would finish `head` soonest among those that take work now.
    fn choose(&self, now: Nanos, index: usize, head: RequestKey) -> Option<usize> {
        let model = &self.models[index];
        let inline = model.spec.as_ref().is_some_and(|spec| spec.inline);
        let request = self.request(head)?;
        let serves = |replica: &Replica| {
            replica.state == ModelState::Ready && self.workers[replica.worker].state == WorkerState::Ready
        };
        let elsewhere = model.replicas.iter().any(|r| serves(r) && Some(r.worker) != request.failed_on);
        let candidates = model.replicas.iter().enumerate().filter(|(_, replica)| {
            serves(replica)
                && !(elsewhere && Some(replica.worker) == request.failed_on)
                && self.takes_work(now, replica, request.rows, inline)
        });
        let completion = |replica: &Replica| {
            let worker = &self.workers[replica.worker];
            let free = worker.devices[replica.device].booked_until.max(now.saturating_add(worker.lead));
            free.saturating_add(replica.curve.predict(request.rows)).saturating_add(worker.lead)
        };
        candidates.min_by_key(|(_, replica)| completion(replica)).map(|(place, _)| place)
    }

    /// Whether a device is idle, or will be by the time that a batch sent now arrives.
    fn takes_work(&self, now: Nanos, replica: &Replica, rows: usize, inline: bool) -> bool {
        let worker = &self.workers[replica.worker];
        let device = &worker.devices[replica.device];
        if inline {
            return device.inline_batches < INLINE_BATCHES;
        }
        let ahead = worker.lead.div_ceil(replica.curve.predict(rows).max(1)).min(AHEAD);
        device.booked_until <= now.saturating_add(worker.lead) && (device.batches.len() as u64) < 1 + ahead
            || device.batches.is_empty()
    }

    fn run_batch(&mut self, now: Nanos, index: usize, place: usize) -> bool {
        let (worker, device) = (self.models[index].replicas[place].worker, self.models[index].replicas[place].device);
        let (Some(link), Some(spec)) = (self.workers[worker].link.clone(), self.models[index].spec.clone()) else {
            return false;
        };
        let (number, mut rows, mut bytes) = (self.number(), 0usize, 0usize);
        let (mut attempts, mut keys) = (Vec::new(), Vec::new());
        while let Some(key) = self.live_head(now, index) {
            let attempt = self.next_number;
            let Some(request) = self.request_mut(key) else { break };
            let together = (rows.checked_add(request.rows), bytes.checked_add(request.bytes));
            let fits = matches!(together, (Some(r), Some(b)) if r <= spec.max_batch_rows && b <= BATCH_BYTES);
            if !keys.is_empty() && (!fits || request.failed_on == Some(worker)) {
                break;
            }
            rows = rows.saturating_add(request.rows);
            bytes = bytes.saturating_add(request.bytes);
            request.attempts += 1;
            request.dispatched = now;
            request.running = Some((number, attempt));
            attempts.push(Attempt { attempt, request: request.request.clone() });
            keys.push((attempt, key));
            self.next_number += 1;
            self.models[index].queue.pop_front();
        }
        let predicted = self.models[index].replicas[place].curve.predict(rows);
        let booked = &mut self.workers[worker];
        let lead = booked.lead;
        let device_state = &mut booked.devices[device];
        if spec.inline {
            device_state.inline_batches += 1;
        } else {
            device_state.batches.push(number);
            device_state.booked_until =
                device_state.booked_until.max(now.saturating_add(lead)).saturating_add(predicted);
        }
        let batch = Batch {
            batch: number,
            epoch: self.epoch,
            model: self.models[index].name.clone(),
            device: Arc::clone(&device_state.name),
            attempts,
        };
        let running = Running {
            worker,
            device,
            model: index,
            attempts: keys,
            rows,
            predicted,
            inline: spec.inline,
            abandoned_bytes: 0,
        };
        self.batches.insert(number, running);
        self.commands.push(Command::Run { link, batch });
        true
    }

    /// A batch is off its device.
    pub(super) fn release(&mut self, now: Nanos, number: u64) -> Option<Running> {
        let running = self.batches.remove(&number)?;
        self.request_bytes -= running.abandoned_bytes;
        let lead = self.workers[running.worker].lead;
        let Some(device) = self.workers[running.worker].devices.get_mut(running.device) else { return Some(running) };
        if running.inline {
            device.inline_batches = device.inline_batches.saturating_sub(1);
            return Some(running);
        }
        device.batches.retain(|batch| *batch != number);
        let left: Nanos = device.batches.iter().filter_map(|batch| self.batches.get(batch)).map(|b| b.predicted).sum();
        // Never earlier than what is left, never later than was booked: the report is newer than the booking.
        let end = now.saturating_add(left);
        device.booked_until = if left == 0 { now } else { device.booked_until.min(end.saturating_add(lead)) };
        Some(running)
    }
}
