//! How requests come: each is admitted, and waits in the queue where it is looked for.

use orion_proto::{Datatype, ModelSpec, Result};

use super::{
    Admitted, Core, Nanos, RequestKey, course::Course, generate::Generated, placement::Concern, queue::LaneKey,
    request::Request,
};

/// Bytes of one row up to which requests are in the first length bucket; each next bucket is four times as long.
const FIRST_BUCKET: usize = 128;
const BUCKETS: u8 = 4;

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
        let held = parameters.job.and_then(|job| self.take_held(now, index, job));
        if let Some(held) = held {
            return Ok(self.go_on(now, index, lane, (admitted, ticket), held));
        }
        if let Err(error) = self.admit(now, index, &admitted, lane) {
            self.models[index].statistics.refused += 1;
            self.trace_refused(now, index, &admitted, &error);
            return Err(error);
        }
        let key = self.insert_request(now, index, lane, admitted, ticket);
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

    pub(super) fn insert_request(
        &mut self,
        now: Nanos,
        index: usize,
        lane: LaneKey,
        admitted: Admitted,
        ticket: T,
    ) -> RequestKey {
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
        RequestKey { place, serial }
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
}
