//! Requests in the core: how they come, wait and leave.

use std::sync::Arc;

use orion_proto::{Code, Datatype, Error, InferRequest, ModelSpec, Result};

use super::{
    Command, Core, Nanos,
    cost::SAMPLE,
    course::Course,
    generate::{Generated, Opening},
    placement::Concern,
    queue::{LaneKey, Waiting},
};

/// Bytes of one row up to which requests are in the first length bucket; each next bucket is four times as long.
const FIRST_BUCKET: usize = 128;
const BUCKETS: u8 = 4;
/// Requests of a lane that are looked at for those that cannot be met any more, or as many as a batch may hold.
const FIRST: usize = 64;

/// A request in the core; stays unique when its place is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestKey {
    pub(super) place: usize,
    pub(super) serial: u64,
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
    /// The deadline, or the objective by which it is ordered.
    pub due: Nanos,
    pub lane: LaneKey,
    pub attempts: u32,
    /// Attempts that ended by a fault which was not the request's own.
    pub faults: u32,
    /// The replica, and its device, on which it failed alone: which of the two is to blame is not known yet.
    pub blamed: Option<(usize, usize)>,
    /// Devices on which an attempt failed: the next goes elsewhere if there is another.
    pub failed_on: Vec<usize>,
    /// Batch and attempt that run it.
    pub running: Option<(u64, u64)>,
    /// A second run, because the first straggles.
    pub hedge: Option<(u64, u64)>,
    /// The replica to which a balancer bound it, or the state of its sequence.
    pub bound: Option<usize>,
    /// For its explanation.
    pub course: Course,
    /// Of a generation: what its client has got.
    pub generated: Option<Generated>,
}

impl<T> Request<T> {
    /// An attempt begins.
    pub(super) fn start(&mut self, now: Nanos, batch: u64, attempt: u64) {
        self.attempts += 1;
        match self.running {
            None => (self.running, self.dispatched) = (Some((batch, attempt)), now),
            Some(_) => self.hedge = Some((batch, attempt)),
        }
    }

    /// An attempt ended without an answer. Says whether none is left.
    pub(super) fn stop(&mut self, batch: u64) -> bool {
        if self.running.is_some_and(|(of, _)| of == batch) {
            self.running = self.hedge.take();
        } else if self.hedge.is_some_and(|(of, _)| of == batch) {
            self.hedge = None;
        }
        self.running.is_none()
    }

    pub(super) fn waiting(&self, key: RequestKey) -> Waiting {
        let window = self.due.saturating_sub(self.arrived);
        Waiting { due: self.due, window, hard: self.deadline.is_some(), rows: self.rows, bytes: self.bytes, key }
    }
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
    /// Of a generation.
    pub generation: Option<Opening>,
}

/// The length bucket of a request: only models whose rows differ in length have more than one.
fn bucket(spec: &ModelSpec, rows: usize, bytes: usize) -> u8 {
    let varies = |tensor: &orion_proto::TensorSpec| {
        tensor.datatype == Datatype::Bytes || tensor.shape.iter().skip(1).any(|dimension| *dimension < 0)
    };
    if spec.generator.is_some() || !spec.inputs.iter().any(varies) {
        return 0;
    }
    let row = bytes / rows.max(1);
    (0..BUCKETS - 1).find(|bucket| row <= FIRST_BUCKET << (2 * bucket)).unwrap_or(BUCKETS - 1)
}

impl<T, L: Clone> Core<T, L> {
    /// Queues a request, and starts it when a device is free.
    ///
    /// # Errors
    /// UNAVAILABLE when no worker can run it, RESOURCE_EXHAUSTED when too much waits, both with a time to come back;
    /// DEADLINE_EXCEEDED when its deadline cannot be met; FAILED_PRECONDITION when the state of its sequence is not there.
    pub fn submit(&mut self, now: Nanos, admitted: Admitted, ticket: T) -> Result<RequestKey> {
        let index = self.index(admitted.spec.name.as_str())?;
        let parameters = &admitted.request.parameters;
        let lane = LaneKey {
            bucket: bucket(&admitted.spec, admitted.rows, admitted.bytes),
            priority: parameters.priority as u8,
            tenant: self.tenants.number(parameters.tenant.as_ref()),
        };
        if let Err(error) = self.admit(now, index, &admitted, lane) {
            self.models[index].statistics.refused += 1;
            self.trace_refused(now, index, &admitted, &error);
            return Err(error);
        }
        let cold = !self.models[index].replicas.iter().any(|id| self.replicas[*id].serves());
        let serial = self.number();
        let objective = self.objective(index);
        let due = admitted.deadline.unwrap_or(now.saturating_add(objective));
        let bytes = admitted.bytes;
        let place = self.requests.insert(Request {
            serial,
            ticket,
            spec: admitted.spec,
            request: admitted.request,
            model: index,
            rows: admitted.rows,
            bytes,
            arrived: now,
            dispatched: now,
            deadline: admitted.deadline,
            due,
            lane,
            attempts: 0,
            faults: 0,
            blamed: None,
            failed_on: Vec::new(),
            running: None,
            hedge: None,
            bound: None,
            course: Course::new(now, cold),
            generated: admitted.generation.map(Generated::new),
        });
        self.request_bytes += bytes;
        let key = RequestKey { place, serial };
        self.models[index].arrivals.arrived(now, lane.priority);
        self.budget.deposit(now);
        self.blame_budget.deposit(now);
        if self.enter_sequence(key) {
            self.enqueue(now, key);
            self.start_waiting(now, index);
            self.take_turns(now);
        } else {
            self.tenants.entered(lane.priority, lane.tenant, key);
        }
        Ok(key)
    }

    /// Something waits for this model: whoever can take it does, and a copy is made if it pays.
    pub(super) fn start_waiting(&mut self, now: Nanos, index: usize) {
        if self.models[index].is_inline() {
            return self.run_inline(now, index);
        }
        match self.models[index].is_generator() {
            true => self.run_generator(now, index),
            false => self.offer(now, index),
        }
        match self.may_need_copy(index) {
            true => self.place(now, Concern::Model(index)),
            false => self.copy_for_long(now, index),
        }
        if self.models[index].balancer.is_some() {
            self.copy_for_bound(now, index);
        }
    }

    /// Puts a request in its queue: the model's, or that of the replica that its balancer picks or that has the state of
    /// its sequence.
    pub(super) fn enqueue(&mut self, now: Nanos, key: RequestKey) {
        let Some(request) = self.request(key) else { return };
        let (index, lane, waiting) = (request.model, request.lane, request.waiting(key));
        let (routing_key, sequence) = (request.request.parameters.routing_key, request.sequence());
        let home = match sequence.map(|sequence| self.home_of(now, index, sequence)).transpose() {
            Ok(home) => home.flatten(),
            Err(error) => return self.fail(now, key, error),
        };
        self.tenants.entered(lane.priority, lane.tenant, key);
        if let Some(id) = home {
            self.bind(id, key, lane, waiting);
            return self.turned.push(index);
        }
        if self.models[index].balancer.is_some()
            && let Some(id) = self.balance(now, index, routing_key, waiting.rows)
        {
            self.bind(id, key, lane, waiting);
            let device = self.replicas[id].device;
            return self.fill(now, device);
        }
        self.models[index].queue.push(lane, waiting);
        self.requeued(index);
    }

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
        for (batch, attempt) in runs.into_iter().flatten() {
            let Some(running) = self.batches.get_mut(&batch) else { continue };
            // The carrier still holds its tensors: they count until the batch is off the device.
            running.abandoned_bytes += request.bytes;
            self.request_bytes += request.bytes;
            let worker = &self.workers[running.worker];
            if let Some(link) = worker.link.clone().filter(|_| worker.is_connected()) {
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

    pub(super) fn request(&self, key: RequestKey) -> Option<&Request<T>> {
        self.requests.get(key.place).filter(|request| request.serial == key.serial)
    }

    pub(super) fn request_mut(&mut self, key: RequestKey) -> Option<&mut Request<T>> {
        self.requests.get_mut(key.place).filter(|request| request.serial == key.serial)
    }

    pub(super) fn remove_request(&mut self, key: RequestKey) -> Option<Request<T>> {
        self.request(key)?;
        let request = self.requests.remove(key.place);
        self.request_bytes -= request.bytes;
        if request.running.is_none() {
            self.tenants.left(request.lane.priority, request.lane.tenant, key);
        }
        if let Some(replica) = request.bound.and_then(|id| self.replicas.get_mut(id)) {
            replica.outstanding = replica.outstanding.saturating_sub(1);
        }
        Some(request)
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
