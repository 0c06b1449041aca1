//! Why: for a request, its stages and its device; for a model, every device's cost or refusal.

use std::collections::VecDeque;

use orion_proto::{Code, cluster};

use super::{Core, Nanos, RequestKey, cost::Cost, request::Request};

/// Answered requests that are remembered.
const REMEMBERED: usize = 2048;
/// Bytes of a request's id up to which it is remembered.
const LONGEST_ID: usize = 256;
/// Other devices whose cost is kept beside the chosen one's.
const OTHERS: usize = 3;

/// Where an attempt went and what that was predicted to cost.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Placed {
    pub device: Option<usize>,
    pub cost: Cost,
    /// The best of the other devices, and how many there were.
    pub other: Option<(usize, Cost)>,
    pub others: usize,
    pub batch_requests: usize,
    pub batch_rows: usize,
    /// On the device and before it on the worker, as the worker says.
    pub service: Nanos,
    pub waited: Nanos,
}

/// What is remembered of an answered request.
#[derive(Debug)]
pub(super) struct Trace {
    id: String,
    explanation: cluster::RequestExplanation,
    answered: Nanos,
}

/// The last requests that were answered.
#[derive(Debug, Default)]
pub(super) struct Traces(VecDeque<Trace>);

fn seconds(nanos: Nanos) -> f64 {
    nanos as f64 / 1e9
}

fn terms(cost: Cost) -> cluster::Cost {
    cluster::Cost {
        work_seconds: seconds(cost.work),
        load_seconds: seconds(cost.load),
        carriage_seconds: seconds(cost.carriage),
        service_seconds: seconds(cost.service),
        answer_seconds: seconds(cost.answer),
        total_seconds: seconds(cost.total()),
    }
}

impl<T, L: Clone> Core<T, L> {
    /// Notes where a batch's requests go.
    pub(super) fn trace_dispatch(
        &mut self,
        now: Nanos,
        id: usize,
        keys: &[(u64, RequestKey)],
        rows: usize,
        bytes: usize,
    ) {
        let (index, device) = (self.replicas[id].model, self.replicas[id].device);
        let cost = self.cost(now, index, device, rows, bytes);
        let replicas = &self.models[index].replicas;
        let others = replicas.iter().filter(|other| **other != id).take(OTHERS);
        let costs = others.map(|other| self.replicas[*other].device);
        let costs = costs.map(|other| (other, self.cost(now, index, other, rows, bytes)));
        let other = costs.min_by_key(|(_, cost)| cost.total());
        let placed = Placed {
            device: Some(device),
            cost,
            other,
            others: replicas.len() - 1,
            batch_requests: keys.len(),
            batch_rows: rows,
            ..Placed::default()
        };
        for (_, key) in keys {
            if let Some(request) = self.request_mut(*key) {
                request.placed = placed;
            }
        }
    }

    /// Remembers an answered request that its client named.
    pub(super) fn trace_end(&mut self, now: Nanos, request: &Request<T>, failed: Option<Code>) {
        // A name longer than this is no name: kept, it would cost more than what it explains.
        if request.request.id.is_empty() || request.request.id.len() > LONGEST_ID {
            return;
        }
        let explanation = self.explanation(now, request, failed.map_or("ok", Code::name));
        if self.traces.0.len() == REMEMBERED {
            self.traces.0.pop_front();
        }
        self.traces.0.push_back(Trace { id: request.request.id.clone(), explanation, answered: now });
    }

    fn place_name(&self, device: usize) -> (String, String) {
        match self.devices.get(device) {
            Some(at) => (self.workers[at.worker].name.to_string(), at.name.to_string()),
            None => Default::default(),
        }
    }

    fn explanation(&self, now: Nanos, request: &Request<T>, outcome: &str) -> cluster::RequestExplanation {
        let placed = &request.placed;
        let (worker, device) = placed.device.map(|device| self.place_name(device)).unwrap_or_default();
        let dispatched = if placed.device.is_some() { request.dispatched } else { now };
        let queued = dispatched.saturating_sub(request.arrived);
        let on_the_way = now.saturating_sub(dispatched);
        let other = placed.other.map(|(device, cost)| {
            let (worker, device) = self.place_name(device);
            cluster::PlaceCost { worker, device, cost: Some(terms(cost)), ..Default::default() }
        });
        cluster::RequestExplanation {
            id: request.request.id.clone(),
            model: self.models[request.model].name.to_string(),
            outcome: outcome.to_owned(),
            priority: request.lane.priority as u32 + 1,
            tenant: request.request.parameters.tenant.as_deref().unwrap_or_default().to_owned(),
            rows: request.rows as u64,
            attempts: request.attempts,
            deadline_seconds: request
                .deadline
                .map_or(0.0, |deadline| seconds(deadline.saturating_sub(request.arrived))),
            queued_seconds: seconds(queued),
            carriage_seconds: seconds(on_the_way.saturating_sub(placed.service).saturating_sub(placed.waited)),
            worker_queue_seconds: seconds(placed.waited),
            service_seconds: seconds(placed.service),
            total_seconds: seconds(now.saturating_sub(request.arrived)),
            batch_requests: placed.batch_requests as u64,
            batch_rows: placed.batch_rows as u64,
            chosen: placed.device.map(|_| cluster::PlaceCost {
                worker,
                device,
                cost: Some(terms(placed.cost)),
                ..Default::default()
            }),
            next_best: other,
            other_replicas: placed.others as u64,
            why: why(placed).to_owned(),
            age_seconds: 0.0,
        }
    }

    /// The stages of a request that its client named, the newest of that name.
    ///
    /// # Errors
    /// NOT_FOUND when it is not under way and not among the last that were answered.
    pub fn explain_request(&self, now: Nanos, id: &str) -> orion_proto::Result<cluster::RequestExplanation> {
        if let Some((_, request)) = self.requests.iter().find(|(_, request)| request.request.id == id) {
            let state = if request.running.is_some() { "running" } else { "waiting" };
            return Ok(self.explanation(now, request, state));
        }
        let trace = self.traces.0.iter().rev().find(|trace| trace.id == id).ok_or_else(|| {
            let text = format!("request '{id}' is not under way and not among the last {REMEMBERED} that had an id");
            orion_proto::Error::new(Code::NotFound, text)
        })?;
        let age_seconds = seconds(now.saturating_sub(trace.answered));
        Ok(cluster::RequestExplanation { age_seconds, ..trace.explanation.clone() })
    }

    /// Every device's predicted cost for one row of a model, or why it does not take it.
    ///
    /// # Errors
    /// NOT_FOUND for an unknown name.
    pub fn explain_model(&self, now: Nanos, name: &str) -> orion_proto::Result<cluster::ModelExplanation> {
        let index = self.index(name)?;
        let model = &self.models[index];
        let mut places: Vec<cluster::PlaceCost> =
            self.devices.iter().map(|(id, _)| self.explain_place(now, index, id)).collect();
        let total = |place: &cluster::PlaceCost| place.cost.as_ref().map_or(f64::MAX, |cost| cost.total_seconds);
        places.sort_by(|a, b| {
            total(a).total_cmp(&total(b)).then_with(|| (&a.worker, &a.device).cmp(&(&b.worker, &b.device)))
        });
        Ok(cluster::ModelExplanation {
            name: model.name.to_string(),
            state: self.model_state(index).name().into(),
            reason: self.reason(index),
            memory_bytes: model.spec.as_ref().map_or(0, |spec| spec.memory_bytes),
            queued: model.queue.len() as u64,
            queued_work_seconds: seconds(model.work),
            drain_seconds: seconds(self.queue_time(now, index)),
            objective_seconds: seconds(self.objective(index)),
            arrivals_per_second: model.rate_at(now) * 1e9,
            balancer: model.spec.as_ref().map_or_else(String::new, |spec| spec.policy.balancer.clone()),
            places,
        })
    }

    fn explain_place(&self, now: Nanos, index: usize, id: usize) -> cluster::PlaceCost {
        let (model, device) = (&self.models[index], &self.devices[id]);
        let worker = &self.workers[device.worker];
        let replica = model.replicas.iter().map(|id| &self.replicas[*id]).find(|replica| replica.device == id);
        let refusal = match replica {
            Some(replica) if !replica.breaker.allows(now) => "its circuit breaker is open after failures".into(),
            Some(_) if self.takes_part(id) => String::new(),
            Some(_) => format!("the worker is {}", worker.state_name()),
            None if model.spec.is_none() => self.reason(index),
            None => self.refusal(index, id).unwrap_or_default(),
        };
        let cost = refusal.is_empty().then(|| terms(self.cost(now, index, id, 1, 0)));
        cluster::PlaceCost {
            worker: worker.name.to_string(),
            device: device.name.to_string(),
            replica: replica.map_or("", |replica| replica.state.name()).into(),
            refusal,
            cost,
            memory_free_bytes: device.ledger.free(),
            memory_weights_bytes: device.ledger.weights(),
            memory_activations_bytes: device.ledger.activations(),
            inflation: replica.map_or(0.0, |replica| replica.line(0).inflation),
        }
    }
}

fn why(placed: &Placed) -> &'static str {
    match placed.other {
        _ if placed.device.is_none() => "no device has taken it",
        None => "the only replica",
        Some((_, other)) if placed.cost.total() <= other.total() => "the lowest predicted seconds",
        Some(_) => "idle, while the queue fills the device that would answer a single request sooner",
    }
}
