//! What devices have: each batch is booked when it is given out, and off the books when it is off its device.

use super::{Core, Nanos, RequestKey, dispatch::Running};

/// A batch that a device was given.
pub(super) struct Given {
    pub number: u64,
    /// Of the scheduler that gave it out.
    pub epoch: u64,
    /// In ascending order.
    pub attempts: Vec<(u64, RequestKey)>,
    pub rows: usize,
    pub bucket: u8,
    /// The highest of its requests.
    pub priority: u8,
    /// A second run of a batch that straggles.
    pub hedged: bool,
    /// A worker had it already.
    pub adopted: bool,
}

impl<T, L: Clone> Core<T, L> {
    /// Books a replica's device for a batch.
    pub(super) fn count_batch(&mut self, now: Nanos, id: usize, given: Given) {
        let Given { number, epoch, attempts, rows, bucket, priority, hedged, adopted } = given;
        let (model, device) = (self.replicas[id].model, self.replicas[id].device);
        let spec = self.models[model].spec.clone();
        let predicted = self.replicas[id].line(bucket).predict(rows);
        // What runs beside the device is not booked.
        let beside = spec.as_ref().is_some_and(|spec| spec.inline || spec.generator.is_some());
        self.trace_dispatch(now, id, number, &attempts, hedged);
        let expected = self.book(now, device, number, predicted, beside);
        let replica = &mut self.replicas[id];
        replica.running += 1;
        replica.by_priority[usize::from(priority)] += 1;
        replica.ran = true;
        replica.breaker.probe_started(now);
        let places = spec.and_then(|spec| spec.generator).map(|generator| generator.max_sequences as usize);
        if places.is_some_and(|places| replica.running > places) {
            replica.crowded = number;
        }
        let job = |(attempt, key): &(u64, RequestKey)| Some((*attempt, self.request(*key)?.request.parameters.job?));
        let running = Running {
            worker: self.devices[device].worker,
            device,
            model,
            replica: id,
            jobs: attempts.iter().filter_map(job).collect(),
            attempts,
            rows,
            bucket,
            priority,
            given: now,
            begun: now,
            expected,
            predicted,
            prefill: 0,
            reading: 0,
            beside,
            hedged,
            abandoned_bytes: 0,
            epoch,
            adopted,
        };
        self.batches.insert(number, running);
        self.note_straggling(number);
        // A batch is what a balancer sees sent and ended: requests of one may be bound, moved and called off meanwhile.
        if let Some(balancer) = &mut self.models[model].balancer {
            balancer.started(now, self.devices[device].hash);
        }
    }

    fn book(&mut self, now: Nanos, device: usize, number: u64, predicted: Nanos, beside: bool) -> Nanos {
        let start = self.available(now, device);
        let at = &mut self.devices[device];
        if beside {
            at.beside += 1;
            return now;
        }
        // One that a worker has from another scheduler came before what it was given by this one.
        let place = at.batches.partition_point(|batch| *batch < number);
        at.batches.insert(place, number);
        at.booked_until = start.saturating_add(predicted);
        let until = at.booked_until;
        self.set_alarm(now, device);
        until
    }

    /// A batch is off its device.
    pub(super) fn release(&mut self, now: Nanos, number: u64) -> Option<Running> {
        let running = self.batches.remove(&number)?;
        self.request_bytes -= running.abandoned_bytes;
        let mut stalled = false;
        if let Some(replica) = self.replicas.get_mut(running.replica).filter(|r| r.device == running.device) {
            replica.running = replica.running.saturating_sub(1);
            let as_urgent = &mut replica.by_priority[usize::from(running.priority)];
            *as_urgent = as_urgent.saturating_sub(1);
            replica.prompts.reading = replica.prompts.reading.saturating_sub(running.prefill);
            // It moves again, or nobody will tell any more whether it does.
            stalled = std::mem::take(&mut replica.stalled);
        }
        self.tell_unload(running.replica);
        let Some(device) = self.devices.get_mut(running.device) else { return Some(running) };
        if running.beside {
            device.beside = device.beside.saturating_sub(1);
            if stalled {
                self.give_up_copies(now, running.device);
            }
            return Some(running);
        }
        let was_first = device.batches.first() == Some(&number);
        device.batches.retain(|batch| *batch != number);
        if was_first {
            stalled = std::mem::take(&mut device.stalled);
            if let Some(next) = device.batches.first().and_then(|next| self.batches.get_mut(next)) {
                next.begun = now;
            }
        }
        let left: Nanos = device.batches.iter().filter_map(|batch| self.batches.get(batch)).map(|b| b.predicted).sum();
        // Never later than was booked: the report is newer than the booking.
        let lead = self.workers[running.worker].lead;
        let end = now.saturating_add(left);
        device.booked_until = if left == 0 { now } else { device.booked_until.min(end.saturating_add(lead)).max(now) };
        self.set_alarm(now, running.device);
        if stalled {
            self.give_up_copies(now, running.device);
        }
        Some(running)
    }
}
