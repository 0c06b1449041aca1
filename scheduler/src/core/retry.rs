//! What is tried again: after a fault, a lost worker, or a batch that stands still.

use std::time::Duration;

use orion_proto::{Code, Error, Result};

use super::{Command, Core, Nanos, RequestKey, dispatch::Running, queue::Group, replica::Replica, request::Request};

impl<T, L: Clone> Core<T, L> {
    /// Tries requests of one batch again, on another device if there is one; or answers those that nothing allows that.
    pub(super) fn retry(&mut self, now: Nanos, failed: Vec<(RequestKey, Error)>, failed_on: usize) {
        let mut again = Vec::with_capacity(failed.len());
        for (key, error) in failed {
            match self.count_retry(now, key, failed_on, error) {
                Ok(()) => again.push(key),
                Err(error) => self.fail(now, key, error),
            }
        }
        self.try_again(now, again);
    }

    /// Puts requests whose retries are counted in line again, after a copy elsewhere where all that hold their model failed.
    fn try_again(&mut self, now: Nanos, again: Vec<RequestKey>) {
        let first = again.first().and_then(|key| self.request(*key));
        let Some(index) = first.map(|request| request.model) else { return };
        // Before they are in line: the one that failed would take them again.
        let failed: Vec<usize> =
            again.iter().filter_map(|key| self.request(*key)).flat_map(|r| r.failed_on.clone()).collect();
        let deadlines = again.iter().filter_map(|key| self.request(*key)?.deadline);
        let within = deadlines.min().map_or(Nanos::MAX, |deadline| deadline.saturating_sub(now));
        match again.iter().copied().find(|key| self.has_begun(*key)) {
            Some(key) => self.copy_to_go_on(now, index, key, &failed),
            None => self.copy_elsewhere(now, index, &failed, within),
        }
        self.wait_together(now, again);
    }

    /// Counts a fault of a request and a retry; the error with which to answer it if that is not allowed.
    fn count_retry(&mut self, now: Nanos, key: RequestKey, failed_on: usize, error: Error) -> Result<()> {
        let Some(request) = self.request(key) else { return Err(error) };
        let (index, faults, deadline) = (request.model, request.faults.saturating_add(1), request.deadline);
        if !self.models[index].wanted {
            return Err(self.not_ready(index));
        }
        if faults >= self.limits.attempts {
            let text = format!("{}; {faults} attempts were made", error.message);
            return Err(Error::new(error.code, text));
        }
        if !self.can_go_on(key) {
            let text = format!("{}; no other device of its kind can go on with it", error.message);
            return Err(Error::new(Code::Unavailable, text));
        }
        if deadline.is_some_and(|deadline| deadline <= now) {
            let text = "the request's time ran out while it was tried again";
            return Err(Error::new(Code::DeadlineExceeded, text));
        }
        if !self.budget.withdraw(now) {
            let text = format!("{}; too much fails at present to try again (the retry budget is spent)", error.message);
            return Err(Error::new(Code::Unavailable, text).retry_after(Duration::from_secs(1)));
        }
        self.totals.retried += 1;
        if let Some(request) = self.request_mut(key) {
            request.faults = faults;
            if !request.failed_on.contains(&failed_on) {
                request.failed_on.push(failed_on);
            }
        }
        Ok(())
    }

    /// Puts requests of one batch in line again, as few groups as may run together.
    fn wait_together(&mut self, now: Nanos, keys: Vec<RequestKey>) {
        struct Together {
            bucket: u8,
            rows: usize,
            failed_on: Vec<usize>,
            keys: Vec<RequestKey>,
        }
        let mut groups: Vec<Together> = Vec::new();
        for key in keys {
            let Some(request) = self.request(key) else { continue };
            let (bucket, rows, most) = (request.lane.bucket, request.rows, self.models[request.model].max_rows());
            let joins = |group: &&mut Together| {
                let fits = group.rows.saturating_add(rows) <= most;
                fits && group.bucket == bucket && group.failed_on == request.failed_on
            };
            match groups.iter_mut().find(joins) {
                Some(group) => {
                    group.rows = group.rows.saturating_add(rows);
                    group.keys.push(key);
                }
                None => groups.push(Together { bucket, rows, failed_on: request.failed_on.clone(), keys: vec![key] }),
            }
        }
        groups.into_iter().for_each(|group| self.wait_again(now, group.keys, false));
    }

    /// A request failed alone, as if it were to blame: it is tried once on another device, if there is one, to see
    /// whether it is. Says whether it is tried.
    pub(super) fn try_elsewhere(&mut self, now: Nanos, key: RequestKey, running: &Running) -> bool {
        let Some(request) = self.request(key).filter(|request| request.blamed.is_none()) else { return false };
        let in_time = request.deadline.is_none_or(|deadline| deadline > now);
        let other = |id: &usize| {
            let device = self.replicas[*id].device;
            device != running.device
                && !request.failed_on.contains(&device)
                && self.takes_part(device)
                && self.can_run(now, *id)
        };
        let elsewhere = self.models[request.model].replicas.iter().any(other);
        if !in_time || !elsewhere || !self.models[request.model].wanted || !self.blame_budget.withdraw(now) {
            return false;
        }
        if let Some(request) = self.request_mut(key) {
            request.blamed = Some((running.replica, running.device));
            request.failed_on.push(running.device);
        }
        self.wait_again(now, vec![key], true);
        true
    }

    /// What failed a request that another replica answered is to blame itself.
    pub(super) fn blame(&mut self, now: Nanos, request: &Request<T>) {
        let Some((id, device)) = request.blamed else { return };
        let there = |replica: &&mut Replica| replica.model == request.model && replica.device == device;
        let Some(replica) = self.replicas.get_mut(id).filter(there) else { return };
        replica.failed(now);
        let shut = !replica.breaker.allows(now);
        if let Some(balancer) = &mut self.models[request.model].balancer {
            balancer.failed(now, self.devices[device].hash);
        }
        if shut {
            self.rebind(now, id);
        }
    }

    /// A request ends without an answer: whether the replica that it failed alone on was to blame will not be known.
    pub(super) fn absolve_blamed(&mut self, request: &Request<T>) {
        if let Some((id, device)) = request.blamed {
            self.absolve(request.model, id, device);
        }
    }

    /// A request failed for its own sake, or nobody will know: what failed it alone is as good as before.
    pub(super) fn absolve(&mut self, model: usize, id: usize, device: usize) {
        let there = |replica: &&mut Replica| replica.model == model && replica.device == device;
        if let Some(replica) = self.replicas.get_mut(id).filter(there) {
            replica.breaker.probe_lost();
        }
    }

    /// Puts requests in line as a group, before all that have not been tried yet.
    pub(super) fn wait_again(&mut self, now: Nanos, keys: Vec<RequestKey>, alone: bool) {
        let Some(first) = keys.first().and_then(|key| self.request(*key)) else { return };
        let (index, bucket) = (first.model, first.lane.bucket);
        let mut priority = first.lane.priority;
        let mut waiting = Vec::with_capacity(keys.len());
        for key in keys {
            let Some(request) = self.request_mut(key) else { continue };
            waiting.push(request.waiting(key));
            request.course.waits_again(now);
            let (lane, bound) = (request.lane, request.bound.take());
            if let Some(replica) = bound.and_then(|id| self.replicas.get_mut(id)) {
                replica.outstanding = replica.outstanding.saturating_sub(1);
            }
            priority = priority.min(lane.priority);
            self.tenants.entered(lane.priority, lane.tenant, key);
        }
        self.models[index].queue.push_group(Group { waiting, bucket, since: now, priority, alone });
        self.requeued(index);
        self.start_waiting(now, index);
    }

    /// A batch failed as a whole: each half is tried on its own, so that one bad request fails alone.
    pub(super) fn bisect(&mut self, now: Nanos, mut keys: Vec<RequestKey>) {
        keys.retain(|key| self.request(*key).is_some());
        let Some(index) = keys.first().and_then(|key| self.request(*key)).map(|request| request.model) else { return };
        if !self.models[index].wanted {
            let error = self.not_ready(index);
            return keys.into_iter().for_each(|key| self.fail(now, key, error.clone()));
        }
        self.totals.bisected += 1;
        let rest = keys.split_off(keys.len().div_ceil(2));
        for half in [keys, rest].into_iter().filter(|half| !half.is_empty()) {
            // Where nearly all requests are bad, looking for the bad ones would cost more than the rest is worth.
            match self.blame_budget.withdraw_all(now, half.len()) {
                true => self.wait_again(now, half, true),
                false => half.into_iter().for_each(|key| {
                    let text = "its batch failed, and too much fails at present to find out for which request's sake";
                    self.fail(now, key, Error::new(Code::Internal, text));
                }),
            }
        }
    }

    /// Whether a group may run on a device: nowhere where one of it failed, unless there is no other.
    pub(super) fn may_run_on(&self, group: &Group, device: usize) -> bool {
        group.waiting.iter().all(|waiting| {
            let Some(request) = self.request(waiting.key) else { return true };
            if !request.failed_on.contains(&device) {
                return true;
            }
            let other = |id: &usize| {
                let other = self.replicas[*id].device;
                let may = !request.failed_on.contains(&other) && self.takes_part(other);
                may && !self.is_stalled(*id) && self.goes_on_with(waiting.key, other)
            };
            !self.models[request.model].replicas.iter().any(other)
        })
    }

    /// Whether another device than the one that had no memory for a request could run it.
    pub(super) fn fits_elsewhere(&self, key: RequestKey, device: usize) -> bool {
        let Some(request) = self.request(key) else { return false };
        let index = request.model;
        self.devices.iter().any(|(other, _)| {
            let new = other != device && !request.failed_on.contains(&other);
            new && ((self.takes_part(other) && self.is_on(index, other)) || self.could_take(index, other))
        })
    }

    /// Of a suspect's work, what another worker can run now and may run twice.
    pub(super) fn retry_elsewhere(&mut self, now: Nanos, worker: usize) {
        let numbers: Vec<u64> = self.batches_of(worker, |_, _| true);
        for number in numbers {
            let Some(running) = self.batches.get(&number) else { continue };
            let (index, device) = (running.model, running.device);
            let other = |id: &usize| {
                let device = self.replicas[*id].device;
                let at = self.devices[device].worker;
                let serves = at != worker && self.takes_part(device) && self.replicas[*id].serves();
                serves
                    && !self.is_stalled(*id)
                    && running.attempts.iter().all(|(_, key)| self.goes_on_with(*key, device))
            };
            if self.models[index].replicas.iter().any(other) {
                self.take_back(now, number, device, false, "its worker fell silent");
            }
        }
    }

    /// A worker is back: what it was given but does not hold never reached it, or its result was lost on the way.
    pub(super) fn retry_what_never_arrived(&mut self, now: Nanos, worker: usize, holding: &[u64]) {
        for number in self.batches_of(worker, |number, _| !holding.contains(&number)) {
            let Some(device) = self.batches.get(&number).map(|running| running.device) else { continue };
            self.take_back(now, number, device, true, "its worker lost the connection");
        }
    }

    /// A worker and all that it ran are gone.
    pub(super) fn retry_all(&mut self, now: Nanos, worker: usize) {
        let name = self.workers[worker].name.clone();
        self.forget_held(worker);
        for number in self.batches_of(worker, |_, _| true) {
            let Some(device) = self.batches.get(&number).map(|running| running.device) else { continue };
            self.take_back(now, number, device, true, &format!("worker '{name}' was lost"));
        }
    }

    fn batches_of(&self, worker: usize, which: impl Fn(u64, &Running) -> bool) -> Vec<u64> {
        let of = self.batches.iter().filter(|(number, running)| running.worker == worker && which(**number, running));
        of.map(|(number, _)| *number).collect()
    }

    /// Takes a batch's requests away from its worker, which is told. `for_good`: those that may not be tried again are
    /// answered; otherwise they stay, since their worker may come back with them.
    pub(super) fn take_back(&mut self, now: Nanos, number: u64, device: usize, for_good: bool, why: &str) {
        let Some(running) = self.batches.get_mut(&number) else { return };
        let (worker, replica) = (running.worker, running.replica);
        let attempts = std::mem::take(&mut running.attempts);
        let (mut again, mut kept, mut taken) = (Vec::new(), Vec::new(), Vec::new());
        for (attempt, key) in attempts {
            let Some(request) = self.request(key) else { continue };
            let repeats = request.request.parameters.idempotent;
            if request.hedge.is_some() {
                // Its other run goes on.
                taken.push(attempt);
                self.stop(key, number);
                self.unbind(key, replica);
                continue;
            }
            let lost = Error::new(Code::Unavailable, why);
            let refusal = if repeats { self.count_retry(now, key, device, lost).err() } else { None };
            match refusal {
                None if repeats => {
                    self.stop(key, number);
                    taken.push(attempt);
                    again.push(key);
                }
                _ if !for_good => kept.push((attempt, key)),
                Some(error) => self.fail(now, key, error),
                None => {
                    let text =
                        format!("{why} after the request may have run; it is not idempotent, so it is not tried again");
                    self.fail(now, key, Error::new(Code::Unavailable, text));
                }
            }
        }
        if kept.is_empty() {
            self.drop_batch(now, number);
        } else if let Some(running) = self.batches.get_mut(&number) {
            running.attempts = kept;
        }
        if let Some(link) = self.workers[worker].link.clone().filter(|_| !taken.is_empty()) {
            self.commands.push(Command::Cancel { link, batch: number, attempts: taken });
        }
        self.try_again(now, again);
    }

    pub(super) fn stop(&mut self, key: RequestKey, batch: u64) {
        if let Some(request) = self.request_mut(key) {
            request.stop(batch);
        }
    }

    /// Nobody waits for a batch any more: it is off its device as far as the scheduler knows.
    pub(super) fn drop_batch(&mut self, now: Nanos, number: u64) {
        let Some(running) = self.release(now, number) else { return };
        self.tell_balancer(now, &running, false);
        if let Some(replica) = self.replicas.get_mut(running.replica).filter(|r| r.device == running.device) {
            replica.breaker.probe_lost();
        }
    }
}
