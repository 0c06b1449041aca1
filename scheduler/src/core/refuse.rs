//! Requests that end without an answer: given up by their client, out of time, or refused.

use orion_proto::{Code, Error};

use super::{Command, Core, Nanos, RequestKey, cost::SAMPLE, generate::Generated, queue::Waiting, request::Request};

/// Requests of a lane that are looked at for those that cannot be met any more, or as many as a batch may hold.
const FIRST: usize = 64;

impl<T, L: Clone> Core<T, L> {
    /// The client went away: the request leaves the queue; a result that still comes is dropped.
    pub fn cancel(&mut self, now: Nanos, key: RequestKey) {
        if let Some(request) = self.give_up(now, key) {
            self.totals.cancelled += 1;
            self.trace_end(now, &request, "cancelled");
        }
        self.take_turns(now);
    }

    /// The client's time ran out: the request fails wherever it is.
    pub fn expire(&mut self, now: Nanos, key: RequestKey) {
        let Some(request) = self.give_up(now, key) else { return };
        let error = self.ran_out(now, &request);
        self.refuse(now, request, error);
        self.take_turns(now);
    }

    /// Why a request's time ran out: other work, where devices that would have run it had that.
    fn ran_out(&self, now: Nanos, request: &Request<T>) -> Error {
        let late = |text: &str| Error::new(Code::DeadlineExceeded, text);
        let takes_work = |id: &usize| self.can_run(now, *id) && self.takes_requests(*id);
        let queued = request.attempts == 0 && self.models[request.model].replicas.iter().any(takes_work);
        match request.running {
            Some(_) => late("the request's time ran out while a device had it"),
            None if queued => {
                let text = "the request's time ran out in the queue, other work had the devices";
                Error::new(Code::ResourceExhausted, text).retry_after(self.drain_after(now, request.model))
            }
            None => late("the request's time ran out before a device took it"),
        }
    }

    /// Takes a request out; workers that have it are told.
    fn give_up(&mut self, now: Nanos, key: RequestKey) -> Option<Request<T>> {
        self.leave_queue(key);
        let request = self.remove_request(key)?;
        self.absolve_blamed(&request);
        let runs = [request.running, request.hedge];
        let runs_on = self.reclaim.hands_over && request.request.parameters.job.is_some();
        for (batch, attempt) in runs.into_iter().flatten() {
            let Some(running) = self.batches.get_mut(&batch) else { continue };
            // The carrier still holds its tensors: they count until the batch is off the device.
            running.abandoned_bytes += request.bytes;
            self.request_bytes += request.bytes;
            let worker = &self.workers[running.worker];
            if let Some(link) = worker.link.clone().filter(|_| worker.is_connected() && !runs_on) {
                self.commands.push(Command::Cancel { link, batch, attempts: vec![attempt] });
            }
        }
        if let Some(sequence) = request.sequence() {
            // Whether one that runs still changes the state is not known.
            self.leave_sequence(now, request.model, sequence.key, key, request.running.is_none());
        }
        Some(request)
    }

    /// Takes a request that waits out of its queue.
    pub(super) fn leave_queue(&mut self, key: RequestKey) {
        let Some(request) = self.request(key).filter(|request| request.running.is_none()) else { return };
        let (index, lane, due) = (request.model, request.lane, request.due);
        let was_there = match request.bound.and_then(|id| self.replicas.get_mut(id)) {
            Some(replica) => replica.bound.as_mut().is_some_and(|queue| queue.remove(lane, due, key)),
            None => self.models[index].queue.remove(lane, due, key),
        };
        if was_there {
            self.tenants.left(lane.priority, lane.tenant, key);
            self.requeued(index);
        }
    }

    /// Answers requests among the first of a replica's queues that cannot be met any more, wherever they ran.
    pub(super) fn shed(&mut self, now: Nanos, id: usize) {
        let index = self.replicas[id].model;
        let mut late = Vec::new();
        let first = self.models[index].max_rows().max(FIRST);
        let queues = [Some(&self.models[index].queue), self.replicas[id].bound.as_deref()];
        let lanes = queues.into_iter().flatten().flat_map(|queue| queue.lanes());
        for lane in lanes.filter(|lane| lane.hard > 0) {
            for waiting in lane.waiting.iter().take(first).filter(|waiting| waiting.hard) {
                let least = self.least_time(id, lane.key.bucket, waiting);
                if now.saturating_add(least) <= waiting.due {
                    break;
                }
                late.push((waiting.key, least, waiting.window));
            }
        }
        for (key, least, window) in late {
            self.leave_queue(key);
            let error = if least > window {
                let (least, window) = (least as f64 / 1e9, window as f64 / 1e9);
                let text =
                    format!("the deadline was {window:.3} s after the arrival, an idle device takes {least:.3} s");
                Error::new(Code::DeadlineExceeded, text)
            } else {
                let text = "the deadline cannot be met any more, other work took the devices";
                Error::new(Code::ResourceExhausted, text).retry_after(self.drain_after(now, index))
            };
            self.fail(now, key, error);
        }
    }

    /// The time within which a request that waits could be answered if this replica or the fastest other took it at once.
    fn least_time(&self, id: usize, bucket: u8, waiting: &Waiting) -> Nanos {
        let time = |id: &usize| {
            let replica = &self.replicas[*id];
            let (there, back) = (self.carriage(replica.device, waiting.bytes), self.lead(replica.device));
            there.saturating_add(replica.least_line(bucket).predict(waiting.rows)).saturating_add(back)
        };
        let holders = self.models[self.replicas[id].model].replicas.iter().take(SAMPLE);
        holders.map(time).min().unwrap_or(Nanos::MAX).min(time(&id))
    }

    /// Answers a request that is in no queue with an error.
    pub(super) fn fail(&mut self, now: Nanos, key: RequestKey, error: Error) {
        let Some(request) = self.remove_request(key) else { return };
        let (index, sequence) = (request.model, request.sequence());
        // A worker that was not heard of again may have run it.
        let kept = request.attempts == 0 || error.code != Code::Unavailable;
        self.refuse(now, request, error);
        if let Some(sequence) = sequence {
            self.leave_sequence(now, index, sequence.key, key, kept);
        }
    }

    pub(super) fn refuse(&mut self, now: Nanos, request: Request<T>, mut error: Error) {
        if let Some(sent) = request.generated.as_ref().map(Generated::sent).filter(|sent| *sent > 0) {
            error.message = format!("{}; {sent} tokens were sent", error.message);
        }
        self.absolve_blamed(&request);
        self.totals.failed += 1;
        let statistics = &mut self.models[request.model].statistics;
        statistics.failed += 1;
        statistics.failed_ns += now.saturating_sub(request.arrived);
        self.trace_end(now, &request, error.code.name());
        self.commands.push(Command::Settle { ticket: request.ticket, spec: request.spec, outcome: Err(error) });
    }

    /// Answers everything that waits for a model that is not served any more.
    pub(super) fn refuse_queue(&mut self, now: Nanos, index: usize) {
        let error = self.not_ready(index);
        // Once one of a sequence is answered, the next takes its turn.
        loop {
            let mut keys = self.models[index].queue.drain();
            for id in self.models[index].replicas.clone() {
                keys.extend(self.replicas[id].bound.take().map(|mut queue| queue.drain()).unwrap_or_default());
            }
            if keys.is_empty() {
                break;
            }
            for key in keys {
                if let Some(request) = self.request(key) {
                    let lane = request.lane;
                    self.tenants.left(lane.priority, lane.tenant, key);
                    self.fail(now, key, error.clone());
                }
            }
        }
        self.requeued(index);
    }
}
