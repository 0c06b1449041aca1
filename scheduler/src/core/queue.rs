//! Requests that wait: admission, cancellation, answering those that nobody can run.

use std::{sync::Arc, time::Duration};

use orion_proto::{Code, Error, InferRequest, ModelSpec, Result};

use super::{Command, Core, Nanos, nanos};

/// A request in the core; stays unique when its place is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestKey {
    place: usize,
    serial: u64,
}

#[derive(Debug)]
pub(super) struct Request<T> {
    pub serial: u64,
    pub ticket: T,
    pub spec: Arc<ModelSpec>,
    pub request: Arc<InferRequest>,
    pub model: usize,
    pub rows: usize,
    pub bytes: usize,
    pub arrived: Nanos,
    pub dispatched: Nanos,
    pub deadline: Option<Nanos>,
    pub attempts: u32,
    /// The worker on which the last attempt failed: the next goes elsewhere if there is another.
    pub failed_on: Option<usize>,
    pub running: Option<(u64, u64)>,
}

/// A request that was checked against its model.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// The model.
    pub spec: Arc<ModelSpec>,
    /// The request.
    pub request: Arc<InferRequest>,
    /// Its rows.
    pub rows: usize,
    /// Bytes of its tensors.
    pub bytes: usize,
    /// When the client stops waiting.
    pub deadline: Option<Nanos>,
}

impl<T, L: Clone> Core<T, L> {
    /// Queues a request, and starts it when a device is free.
    ///
    /// # Errors
    /// UNAVAILABLE when no worker can run it, RESOURCE_EXHAUSTED when too much waits, both with a time to come back.
    pub fn submit(&mut self, now: Nanos, admitted: Admitted, ticket: T) -> Result<RequestKey> {
        let index = self.index(admitted.spec.name.as_str())?;
        self.admit(index, &admitted)?;
        let serial = self.number();
        let place = self.requests.insert(Request {
            serial,
            ticket,
            spec: admitted.spec,
            request: admitted.request,
            model: index,
            rows: admitted.rows,
            bytes: admitted.bytes,
            arrived: now,
            dispatched: now,
            deadline: admitted.deadline,
            attempts: 0,
            failed_on: None,
            running: None,
        });
        self.request_bytes += admitted.bytes;
        let key = RequestKey { place, serial };
        self.models[index].queue.push_back(key);
        self.dispatch_model(now, index);
        Ok(key)
    }

    fn admit(&self, index: usize, admitted: &Admitted) -> Result<()> {
        if self.draining {
            let error = Error::new(Code::Unavailable, "the server is draining, send to another or try again");
            return Err(error.retry_after(Duration::from_secs(1)));
        }
        if !self.models[index].wanted || !self.has_hope(index) {
            return Err(self.not_ready(index));
        }
        let full = |what: String| Error::new(Code::ResourceExhausted, what).retry_after(self.predicted_drain(index));
        if self.requests.len() >= self.limits.requests {
            return Err(full(format!("{} requests are under way, no more are taken", self.limits.requests)));
        }
        if self.request_bytes.saturating_add(admitted.bytes) > self.limits.bytes {
            return Err(full(format!(
                "requests of {} bytes are under way, at most {} are taken",
                self.request_bytes, self.limits.bytes
            )));
        }
        Ok(())
    }

    /// Predicted time in which a model's replicas finish what waits.
    fn predicted_drain(&self, index: usize) -> Duration {
        let model = &self.models[index];
        let per_second: f64 = model.replicas.iter().map(|replica| 1e9 / replica.curve.predict(1).max(1) as f64).sum();
        Duration::from_secs_f64((model.queue.len() as f64 / per_second.max(1.0)).clamp(1.0, 60.0))
    }

    /// The client went away: the request leaves the queue; a result that still comes is dropped.
    pub fn cancel(&mut self, key: RequestKey) {
        if self.give_up(key).is_some() {
            self.totals.cancelled += 1;
        }
    }

    /// The client's time ran out: the request fails wherever it is.
    pub fn expire(&mut self, now: Nanos, key: RequestKey) {
        let Some(request) = self.give_up(key) else { return };
        self.count_failure(now, request.model, request.arrived);
        let outcome = Err(Error::new(Code::DeadlineExceeded, "the request's time ran out"));
        self.commands.push(Command::Settle { ticket: request.ticket, spec: request.spec, outcome });
    }

    /// Takes a request out; a worker that has it is told.
    fn give_up(&mut self, key: RequestKey) -> Option<Request<T>> {
        let request = self.take_request(key)?;
        let Some((batch, attempt)) = request.running else { return Some(request) };
        if let Some(running) = self.batches.get_mut(&batch) {
            // The carrier still holds its tensors: they count until the batch is off the device.
            running.abandoned_bytes += request.bytes;
            self.request_bytes += request.bytes;
            let worker = &self.workers[running.worker];
            if let Some(link) = worker.link.clone().filter(|_| worker.is_connected()) {
                self.commands.push(Command::Cancel { link, batch, attempt });
            }
        }
        Some(request)
    }

    pub(super) fn request(&self, key: RequestKey) -> Option<&Request<T>> {
        self.requests.get(key.place).filter(|request| request.serial == key.serial)
    }

    pub(super) fn request_mut(&mut self, key: RequestKey) -> Option<&mut Request<T>> {
        self.requests.get_mut(key.place).filter(|request| request.serial == key.serial)
    }

    pub(super) fn take_request(&mut self, key: RequestKey) -> Option<Request<T>> {
        self.request(key)?;
        let request = self.requests.remove(key.place);
        self.request_bytes -= request.bytes;
        Some(request)
    }

    pub(super) fn fail(&mut self, now: Nanos, key: RequestKey, error: Error) {
        let Some(request) = self.take_request(key) else { return };
        self.count_failure(now, request.model, request.arrived);
        self.commands.push(Command::Settle { ticket: request.ticket, spec: request.spec, outcome: Err(error) });
    }

    fn count_failure(&mut self, now: Nanos, model: usize, arrived: Nanos) {
        self.totals.failed += 1;
        let statistics = &mut self.models[model].statistics;
        statistics.failed += 1;
        statistics.failed_ns += now.saturating_sub(arrived);
    }

    /// Answers everything that waits for a model that is not served any more.
    pub(super) fn refuse_queue(&mut self, index: usize) {
        let error = self.not_ready(index);
        for key in std::mem::take(&mut self.models[index].queue) {
            self.fail(self.request(key).map_or(0, |request| request.arrived), key, error.clone());
        }
    }

    /// Answers requests whose model has had no worker for longer than the grace.
    pub(super) fn answer_orphans(&mut self, now: Nanos) {
        for index in 0..self.models.len() {
            if self.models[index].queue.is_empty() || self.has_hope(index) {
                self.models[index].orphaned = None;
                continue;
            }
            let since = *self.models[index].orphaned.get_or_insert(now);
            if now.saturating_sub(since) >= nanos(self.limits.orphan_grace) {
                self.refuse_queue(index);
            }
        }
    }
}
