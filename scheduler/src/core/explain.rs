//! Why: for a request, its stages and its device; for a model, every device's cost or refusal.

use std::{collections::VecDeque, sync::Arc};

use orion_proto::{Code, cluster};

use super::{
    Admitted, Core, Nanos,
    cost::Cost,
    course::{Place, Placed, Reason, Stages},
    prefill::Prefill,
    request::Request,
};

/// Requests that have ended and are remembered.
const REMEMBERED: usize = 2048;
/// Bytes of a request's id up to which it is remembered.
const LONGEST_ID: usize = 256;

/// What there is to say of a request.
#[derive(Debug)]
pub(super) struct Trace {
    id: Box<str>,
    model: Arc<str>,
    /// waiting, running, ok, cancelled, or the code of the error table.
    outcome: &'static str,
    priority: u8,
    tenant: Option<Arc<str>>,
    rows: usize,
    attempts: u32,
    deadline: Option<Nanos>,
    stages: Stages,
    total: Nanos,
    run: Option<(Reason, Arc<Placed>)>,
    /// Its model was to be loaded first.
    cold: bool,
    /// Why it was not admitted.
    refusal: Option<Box<str>>,
    /// When this was so.
    at: Nanos,
}

/// The last requests that have ended.
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
        prefill_seconds: seconds(cost.prefill),
        total_seconds: seconds(cost.total()),
    }
}

fn place(of: &Place) -> cluster::PlaceCost {
    cluster::PlaceCost {
        worker: of.worker.to_string(),
        device: of.device.to_string(),
        cost: of.cost.map(terms),
        ..Default::default()
    }
}

fn prompt(of: Prefill) -> cluster::PromptPrediction {
    cluster::PromptPrediction {
        tokens: of.tokens.round() as u64,
        cached_tokens: of.cached.round() as u64,
        saved_seconds: seconds(of.saved),
    }
}

/// A name longer than this is no name: kept, it would cost more than what it explains.
fn is_named(id: &str) -> bool {
    !id.is_empty() && id.len() <= LONGEST_ID
}

impl Trace {
    fn explanation(&self, now: Nanos) -> cluster::RequestExplanation {
        let placed = self.run.as_ref().map(|(_, placed)| &**placed);
        let stages = &self.stages;
        cluster::RequestExplanation {
            id: self.id.to_string(),
            model: self.model.to_string(),
            outcome: self.outcome.to_owned(),
            priority: u32::from(self.priority) + 1,
            tenant: self.tenant.as_deref().unwrap_or_default().to_owned(),
            rows: self.rows as u64,
            attempts: self.attempts,
            deadline_seconds: self.deadline.map_or(0.0, seconds),
            queued_seconds: seconds(stages.queued),
            earlier_seconds: seconds(stages.earlier),
            underway_seconds: seconds(stages.underway),
            carriage_seconds: seconds(stages.carriage),
            worker_queue_seconds: seconds(stages.waited),
            service_seconds: seconds(stages.service),
            total_seconds: seconds(self.total),
            batch_requests: placed.map_or(0, |placed| placed.batch_requests as u64),
            batch_rows: placed.map_or(0, |placed| placed.batch_rows as u64),
            chosen: placed.map(|placed| place(&placed.chosen)),
            next_best: placed.and_then(|placed| placed.next_best.as_ref()).map(place),
            other_replicas: placed.map_or(0, |placed| placed.others as u64),
            why: self.why(),
            age_seconds: seconds(now.saturating_sub(self.at)),
            prompt: placed.and_then(|placed| placed.prefill).map(prompt),
        }
    }

    fn why(&self) -> String {
        if let Some(refusal) = &self.refusal {
            return format!("not admitted: {refusal}");
        }
        let Some((reason, placed)) = &self.run else {
            let text = if self.attempts == 0 { "no device has taken it" } else { "no device has taken it again" };
            return text.to_owned() + self.loaded_first();
        };
        let why = match reason {
            Reason::Cost => cheapest(placed) + &saved(placed),
            Reason::Bound(balancer) => format!("bound to it by the balancer '{balancer}'"),
            Reason::Sequence => "the state of its sequence is there".to_owned(),
            Reason::Probe => "to find out whether the replica works again after failures".to_owned(),
            Reason::Elsewhere => "tried again where it had not failed".to_owned(),
            Reason::Again => "tried again where it had failed: no other device could take it".to_owned(),
            Reason::Split => "tried again with a part of its batch, which failed as a whole".to_owned(),
            Reason::Hedge => "a second run, because the first was late".to_owned(),
            Reason::Inline => "it costs nothing: the worker with the fewest such batches".to_owned(),
        };
        why + self.loaded_first()
    }

    fn loaded_first(&self) -> &'static str {
        if self.cold { "; no device held its model when it came: it waited for the load too" } else { "" }
    }
}

fn cheapest(placed: &Placed) -> String {
    let total = |place: &Place| place.cost.unwrap_or_default().total();
    match &placed.next_best {
        None if placed.others == 0 => "the only replica".to_owned(),
        None => "the only replica that takes work".to_owned(),
        Some(_) if placed.failed_lately => {
            "the lowest predicted seconds but for a replica that failed lately".to_owned()
        }
        Some(other) if total(&placed.chosen) > total(other) => {
            "idle, while the queue fills the device that would answer a single request sooner".to_owned()
        }
        Some(_) if placed.compared < placed.others => {
            format!("the lowest predicted seconds of the {} replicas that were compared", placed.compared + 1)
        }
        Some(_) => "the lowest predicted seconds".to_owned(),
    }
}

/// What of a generation's prompt was believed to be cached where it went.
fn saved(placed: &Placed) -> String {
    match placed.prefill.filter(|prefill| prefill.saved > 0) {
        Some(Prefill { tokens, cached, saved, .. }) => {
            let saved = seconds(saved);
            format!(
                "; {cached:.0} of about {tokens:.0} prompt tokens are cached there, which saves {saved:.3} s of prefill"
            )
        }
        None => String::new(),
    }
}

impl<T, L: Clone> Core<T, L> {
    /// Remembers a request that its client named and that has ended.
    pub(super) fn trace_end(&mut self, now: Nanos, request: &Request<T>, outcome: &'static str) {
        if is_named(&request.request.id) {
            self.keep_trace(self.trace(now, request, outcome));
        }
    }

    /// Remembers a request that its client named and that was not admitted.
    pub(super) fn trace_refused(&mut self, now: Nanos, index: usize, refused: &Admitted, error: &orion_proto::Error) {
        if !is_named(&refused.request.id) {
            return;
        }
        let parameters = &refused.request.parameters;
        self.keep_trace(Trace {
            id: refused.request.id.as_str().into(),
            model: self.models[index].name.clone(),
            outcome: error.code.name(),
            priority: parameters.priority as u8,
            tenant: parameters.tenant.clone(),
            rows: refused.rows,
            attempts: 0,
            deadline: refused.deadline.map(|deadline| deadline.saturating_sub(now)),
            stages: Stages::default(),
            total: 0,
            run: None,
            cold: false,
            refusal: Some(error.message.as_str().into()),
            at: now,
        });
    }

    fn keep_trace(&mut self, trace: Trace) {
        if self.traces.0.len() == REMEMBERED {
            self.traces.0.pop_front();
        }
        self.traces.0.push_back(trace);
    }

    fn trace(&self, now: Nanos, request: &Request<T>, outcome: &'static str) -> Trace {
        let run = request.course.run(request.running.map(|(batch, _)| batch));
        Trace {
            id: request.request.id.as_str().into(),
            model: self.models[request.model].name.clone(),
            outcome,
            priority: request.lane.priority,
            tenant: request.request.parameters.tenant.clone(),
            rows: request.rows,
            attempts: request.attempts,
            deadline: request.deadline.map(|deadline| deadline.saturating_sub(request.arrived)),
            stages: request.course.stages(now, run),
            total: now.saturating_sub(request.arrived),
            run: run.map(|run| (run.reason, run.placed.clone())),
            cold: request.course.cold,
            refusal: None,
            at: now,
        }
    }

    /// The stages of a request that its client named, the newest of that name.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for an id that is too long to be remembered, NOT_FOUND when it is not under way and not among the
    /// last that have ended.
    pub fn explain_request(&self, now: Nanos, id: &str) -> orion_proto::Result<cluster::RequestExplanation> {
        if id.len() > LONGEST_ID {
            let text = format!("the id has {} bytes, requests are remembered by ids of at most {LONGEST_ID}", id.len());
            return Err(orion_proto::Error::invalid(text));
        }
        let is_it = |request: &&Request<T>| !id.is_empty() && request.request.id == id;
        if let Some(request) = self.requests.iter().map(|(_, request)| request).filter(is_it).max_by_key(|r| r.serial) {
            let state = if request.running.is_some() { "running" } else { "waiting" };
            return Ok(self.trace(now, request, state).explanation(now));
        }
        let trace = self.traces.0.iter().rev().find(|trace| *trace.id == *id).ok_or_else(|| {
            let text = format!("request '{id}' is not under way and not among the last {REMEMBERED} that had an id");
            orion_proto::Error::new(Code::NotFound, text)
        })?;
        Ok(trace.explanation(now))
    }

    /// Every device's predicted cost for one row of a model, or why it does not take it.
    ///
    /// # Errors
    /// NOT_FOUND for an unknown name.
    pub fn explain_model(&self, now: Nanos, name: &str) -> orion_proto::Result<cluster::ModelExplanation> {
        let index = self.index(name)?;
        let model = &self.models[index];
        let replicas = || model.replicas.iter().map(|id| &self.replicas[*id]);
        let bound = replicas().filter_map(|replica| replica.bound.as_ref()).map(|queue| queue.len()).sum::<usize>();
        let bound_work = model.replicas.iter().map(|id| self.bound_work(*id)).fold(0, Nanos::saturating_add);
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
            queued: (model.queue.len() + bound) as u64,
            queued_work_seconds: seconds(model.work.saturating_add(bound_work)),
            drain_seconds: seconds(self.queue_time(now, index).saturating_add(self.load_before(index))),
            objective_seconds: seconds(self.objective(index)),
            arrivals_per_second: model.arrivals.rate_at(now) * 1e9,
            balancer: model.spec.as_ref().map_or_else(String::new, |spec| spec.policy.balancer.clone()),
            places,
        })
    }

    /// What goes before the first request of a model that is nowhere.
    fn load_before(&self, index: usize) -> Nanos {
        let model = &self.models[index];
        if model.replicas.iter().any(|id| self.replicas[*id].serves()) {
            return 0;
        }
        model.known.iter().map(|known| known.load).min().unwrap_or(0)
    }

    fn explain_place(&self, now: Nanos, index: usize, id: usize) -> cluster::PlaceCost {
        let (model, device) = (&self.models[index], &self.devices[id]);
        let worker = &self.workers[device.worker];
        let holder = model.replicas.iter().find(|replica| self.replicas[**replica].device == id);
        let replica = holder.map(|id| &self.replicas[*id]);
        let refusal = match holder {
            Some(holder) => self.takes_no_work(now, *holder),
            None => self.takes_no_copy(index, id),
        };
        let cost = refusal.is_none().then(|| {
            let cost = self.cost(now, index, id, 1, 0);
            // A balancer would bind it behind what is bound there.
            let ahead = holder.map_or(0, |id| self.bound_work(*id));
            terms(Cost { work: cost.work.saturating_add(ahead), ..cost })
        });
        cluster::PlaceCost {
            worker: worker.name.to_string(),
            device: device.name.to_string(),
            replica: replica.map_or("", |replica| replica.state.name()).into(),
            refusal: refusal.unwrap_or_default(),
            cost,
            memory_free_bytes: device.ledger.free(),
            memory_weights_bytes: device.ledger.weights(),
            memory_activations_bytes: device.ledger.activations(),
            inflation: replica.map_or(0.0, |replica| replica.line(0).inflation),
        }
    }

    /// Why a replica is given nothing.
    fn takes_no_work(&self, now: Nanos, id: usize) -> Option<String> {
        let replica = &self.replicas[id];
        let worker = &self.workers[self.devices[replica.device].worker];
        // What waits is run there, but nothing more is taken where the model does not move.
        let accepts = self.takes_part(replica.device) || self.moves(replica.model);
        match () {
            () if !self.takes_requests(id) || !accepts => Some(format!("the worker is {}", worker.state_name())),
            () if !replica.breaker.allows(now) => Some("its circuit breaker is open after failures".to_owned()),
            () if replica.stalled => Some("a batch of it stands still there".to_owned()),
            () if self.is_stalled(id) => Some("a batch of another model stands still there".to_owned()),
            () => None,
        }
    }

    /// Why a device gets no copy of a model.
    fn takes_no_copy(&self, index: usize, id: usize) -> Option<String> {
        let model = &self.models[index];
        if model.spec.is_none() || !model.wanted {
            return Some(self.reason(index));
        }
        if self.devices[id].residents.iter().any(|id| self.replicas[*id].model == index) {
            return Some("its copy there is being unloaded".to_owned());
        }
        let copies = self.staying(index);
        match model.max_replicas().filter(|most| copies >= *most) {
            Some(most) => Some(format!("{copies} copies are there, at most {most} may be (max_replicas)")),
            None => self.refusal(index, id),
        }
    }
}
