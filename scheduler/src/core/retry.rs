//! What is tried again: after a fault, a lost worker, a batch that stands still, or beside one that straggles.

use std::time::Duration;

use orion_proto::{Code, Error};

use super::{Core, Nanos, RequestKey, dispatch::Running, queue::Group};

/// A batch straggles when it is late by so many times its predicted time.
const STRAGGLES: f64 = 1.0;

impl<T, L: Clone> Core<T, L> {
    /// Tries a request again, on another device if there is one; or answers it when nothing allows that.
    pub(super) fn retry(&mut self, now: Nanos, key: RequestKey, failed_on: usize, error: Error) {
        let Some(request) = self.request_mut(key) else { return };
        if !request.failed_on.contains(&failed_on) {
            request.failed_on.push(failed_on);
        }
        let (index, attempts, deadline) = (request.model, request.attempts, request.deadline);
        if !self.models[index].wanted {
            let error = self.not_ready(index);
            return self.fail(now, key, error);
        }
        if attempts >= self.limits.attempts {
            let text = format!("{}; {attempts} attempts were made", error.message);
            return self.fail(now, key, Error::new(error.code, text));
        }
        if deadline.is_some_and(|deadline| deadline <= now) {
            return self.fail(
                now,
                key,
                Error::new(Code::DeadlineExceeded, "the request's time ran out while it was tried again"),
            );
        }
        if !self.budget.withdraw(now) {
            let text = format!("{}; too much fails at present to try again (the retry budget is spent)", error.message);
            return self.fail(now, key, Error::new(Code::Unavailable, text).retry_after(Duration::from_secs(1)));
        }
        self.totals.retried += 1;
        self.wait_again(now, vec![key], false);
        self.copy_elsewhere(now, index, failed_on);
    }

    /// Puts requests in line as a group, before all that have not been tried yet.
    fn wait_again(&mut self, now: Nanos, keys: Vec<RequestKey>, alone: bool) {
        let Some(first) = keys.first().and_then(|key| self.request(*key)) else { return };
        let (index, bucket) = (first.model, first.lane.bucket);
        let mut waiting = Vec::with_capacity(keys.len());
        for key in keys {
            let Some(request) = self.request_mut(key) else { continue };
            waiting.push(request.waiting(key));
            request.course.waits_again(now);
            let (lane, bound) = (request.lane, request.bound.take());
            if let Some(replica) = bound.and_then(|id| self.replicas.get_mut(id)) {
                replica.outstanding = replica.outstanding.saturating_sub(1);
            }
            self.tenants.entered(lane.priority, lane.tenant);
        }
        self.models[index].queue.push_group(Group { waiting, bucket, alone });
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
        for half in [keys, rest] {
            // Where nearly all requests are bad, looking for the bad ones would cost more than the rest is worth.
            match self.budget.withdraw(now) {
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
                !request.failed_on.contains(&other) && self.takes_part(other)
            };
            !self.models[request.model].replicas.iter().any(other)
        })
    }

    /// A model that only a device held that failed, or is to be emptied, is loaded on another if one can hold it.
    pub(super) fn copy_elsewhere(&mut self, now: Nanos, index: usize, device: usize) {
        let takes_part = |id: &&usize| self.takes_part(self.replicas[**id].device);
        let model = &self.models[index];
        let stay: Vec<usize> = model.replicas.iter().filter(takes_part).map(|id| self.replicas[*id].device).collect();
        let full = model.max_replicas().is_some_and(|most| stay.len() >= most);
        if !full && stay.iter().all(|other| *other == device) {
            self.copy(now, index);
        }
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
                at != worker && self.takes_part(device) && self.replicas[*id].serves()
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
        for number in self.batches_of(worker, |_, _| true) {
            let Some(device) = self.batches.get(&number).map(|running| running.device) else { continue };
            self.take_back(now, number, device, true, &format!("worker '{name}' was lost"));
        }
    }

    fn batches_of(&self, worker: usize, which: impl Fn(u64, &Running) -> bool) -> Vec<u64> {
        let of = self.batches.iter().filter(|(number, running)| running.worker == worker && which(**number, running));
        of.map(|(number, _)| *number).collect()
    }

    /// Takes a batch's requests away from its worker. `for_good`: those that must not run twice are answered; otherwise
    /// they stay.
    fn take_back(&mut self, now: Nanos, number: u64, device: usize, for_good: bool, why: &str) {
        let Some(running) = self.batches.get_mut(&number) else { return };
        let attempts = std::mem::take(&mut running.attempts);
        let requests = &self.requests;
        let repeats = |key: RequestKey| {
            let request = requests.get(key.place).filter(|request| request.serial == key.serial);
            request.is_none_or(|request| request.request.parameters.idempotent)
        };
        let (repeated, kept): (Vec<_>, Vec<_>) = attempts.into_iter().partition(|(_, key)| repeats(*key));
        let stays = !for_good && !kept.is_empty();
        if stays {
            running.attempts = kept.clone();
        } else if let Some(running) = self.release(now, number) {
            self.tell_balancer(now, &running, false);
        }
        for (_, key) in repeated {
            let Some(request) = self.request_mut(key) else { continue };
            if request.stop(number) {
                self.retry(now, key, device, Error::new(Code::Unavailable, why));
            }
        }
        if stays {
            return;
        }
        for (_, key) in kept {
            let text = format!("{why} after the request may have run; it is not idempotent, so it is not tried again");
            self.fail(now, key, Error::new(Code::Unavailable, text));
        }
    }

    /// Runs stragglers a second time where the curve says that the copy would win, for models that ask for it.
    pub(super) fn hedge_stragglers(&mut self, now: Nanos) {
        let late = |running: &&Running| {
            let hedges = self.models[running.model].spec.as_ref().is_some_and(|spec| spec.policy.hedge);
            let limit = running.expected as f64 + running.predicted as f64 * STRAGGLES;
            hedges && !running.hedged && now as f64 > limit
        };
        let late: Vec<u64> = self.batches.iter().filter(|(_, r)| late(r)).map(|(number, _)| *number).collect();
        for number in late {
            self.hedge(now, number);
        }
    }

    fn hedge(&mut self, now: Nanos, number: u64) {
        let Some(running) = self.batches.get(&number) else { return };
        let left = self.devices[running.device].remaining(now);
        let (index, own, rows, bucket) = (running.model, running.replica, running.rows, running.bucket);
        let wins = |id: &&usize| {
            let replica = &self.replicas[**id];
            let idle = self.devices[replica.device].batches.is_empty() && self.takes_part(replica.device);
            **id != own && replica.serves() && idle && replica.line(bucket).predict(rows) < left
        };
        let fastest = |id: &&usize| self.replicas[**id].line(bucket).predict(rows);
        let Some(id) = self.models[index].replicas.iter().filter(wins).min_by_key(fastest).copied() else { return };
        let repeats = |key: &RequestKey| {
            let request = self.request(*key);
            let there = self.replicas[id].device;
            request
                .is_some_and(|r| r.request.parameters.idempotent && r.hedge.is_none() && !r.failed_on.contains(&there))
        };
        let keys: Vec<RequestKey> = running.attempts.iter().map(|(_, key)| *key).filter(repeats).collect();
        if keys.is_empty() || !self.budget.withdraw(now) {
            return;
        }
        if let Some(running) = self.batches.get_mut(&number) {
            running.hedged = true;
        }
        self.totals.hedged += 1;
        self.send_batch(now, id, keys, bucket, true);
    }
}
