//! Generations: which replica each begins on, what its client has got of it, and where it goes on when a worker is lost.
//!
//! A generator shares its device's steps among its sequences, so a generation is given out when a replica has a place for
//! it, or would preempt one that is less urgent (`preempt.rs`), not when its device is idle.

use std::{fmt::Debug, sync::Arc};

use orion_net::AttemptDelta;
use orion_proto::{Code, Delta, Error, InferRequest};

use super::{
    Command, Cordon, Core, Nanos, Prefix, RequestKey, WorkerState, catalogue::Model, cordon::GIVEN_UP,
    decode_time::DecodeTime, device::Device, failed_load::Failure, filter, order::WEIGHTS, prompt_report::Begun,
    queue::Group,
};

/// Who is told of each step of a generation.
pub trait Listener: Send + Sync + Debug {
    /// The next step.
    fn tell(&self, delta: Delta);
}

/// What a generation begins with.
#[derive(Clone, Debug)]
pub struct Opening {
    /// Who is told of its steps.
    pub listener: Arc<dyn Listener>,
    /// How its prompt begins.
    pub prefix: Prefix,
}

/// What the client of a generation has got.
#[derive(Debug)]
pub(super) struct Generated {
    listener: Arc<dyn Listener>,
    pub prefix: Prefix,
    /// What was believed when it was given to a replica, until that replica has told.
    pub begun: Option<Begun>,
    tokens: Vec<u32>,
    pub decode: DecodeTime,
    /// Kind of the device that made them: another may round differently.
    kind: Option<Arc<str>>,
}

impl Generated {
    pub(super) fn new(opening: Opening) -> Self {
        let Opening { listener, prefix } = opening;
        Self { listener, prefix, begun: None, tokens: Vec::new(), decode: DecodeTime::default(), kind: None }
    }

    /// How many tokens were sent.
    pub(super) fn sent(&self) -> usize {
        self.tokens.len()
    }

    /// The request as the next attempt is to run it: from what was sent on.
    pub(super) fn resumed(&self, request: &Arc<InferRequest>) -> Arc<InferRequest> {
        if self.tokens.is_empty() {
            return request.clone();
        }
        let mut resumed = InferRequest::clone(request);
        resumed.generation.iter_mut().for_each(|generation| generation.resume.clone_from(&self.tokens));
        Arc::new(resumed)
    }
}

impl Model {
    /// Generations that one of its replicas runs at once.
    pub(super) fn places(&self) -> usize {
        let generator = self.spec.as_ref().and_then(|spec| spec.generator);
        generator.map_or(0, |generator| generator.max_sequences as usize)
    }
}

impl<T, L: Clone> Core<T, L> {
    /// Gives a generator's requests to replicas that have a place for them.
    pub(super) fn run_generator(&mut self, now: Nanos, index: usize) {
        // A turn that is over ends before another generation begins: the replica would never be idle.
        for id in self.models[index].replicas.clone() {
            self.end_turn(now, self.replicas[id].device);
        }
        while let Some((id, key)) = self.next_generation(now, index) {
            self.requeued(index);
            let service = self.generation_time(&self.replicas[id]);
            self.charge_tenants(&[key], service);
            // Of as many as run at once, each takes its share of the device.
            let share = service / (self.models[index].places().max(1) as Nanos);
            self.count_overdue(self.replicas[id].device, share, false);
            if !self.send_batch(now, id, vec![key], 0, false) {
                return;
            }
            self.begin_prefill(now, id, key);
        }
    }

    /// The request that is to begin now, off its queue, and the replica on which.
    fn next_generation(&mut self, now: Nanos, index: usize) -> Option<(usize, RequestKey)> {
        let groups = self.models[index].queue.groups.iter().enumerate();
        let place = |group: &Group| self.place_for(now, index, group.waiting.first()?.key, Some(group));
        let found = groups.filter_map(|(at, group)| Some((at, place(group)?))).next();
        if let Some((at, id)) = found {
            return Some((id, self.first_of_group(index, at)?));
        }
        // Whose turn it is counts once, so it is asked only where there is a place.
        if !self.models[index].replicas.iter().any(|id| self.has_place(now, *id)) {
            return self.next_preempting(now, index);
        }
        // What goes on where no place is takes none from those that wait.
        if let Some((at, id)) = self.group_preempting(now, index, None) {
            return Some((id, self.first_of_group(index, at)?));
        }
        let lane = self.next_lane(now, index, None)?;
        let key = self.models[index].queue.lanes()[lane].waiting.front()?.key;
        let id = self.place_for(now, index, key, None)?;
        self.models[index].queue.pop(lane).map(|waiting| (id, waiting.key))
    }

    /// The first of a group that waits to go on, off its queue.
    pub(super) fn first_of_group(&mut self, index: usize, at: usize) -> Option<RequestKey> {
        let mut group = self.models[index].queue.take_group(at)?;
        let first = group.waiting.remove(0);
        if !group.waiting.is_empty() {
            self.models[index].queue.push_group(group);
        }
        Some(first.key)
    }

    /// The lane whose head is next, of one priority if it is given: by priority and by how long it has waited, so that none
    /// starves; tenants take turns.
    pub(super) fn next_lane(&mut self, now: Nanos, index: usize, only: Option<u8>) -> Option<usize> {
        const GRACE: Nanos = 1_000_000;
        let urgency = |core: &Self, at: usize| {
            let lane = &core.models[index].queue.lanes()[at];
            let head = lane.waiting.front()?;
            let waited = now.saturating_sub(head.due.saturating_sub(head.window)).saturating_add(GRACE);
            Some(WEIGHTS[lane.key.priority as usize] * waited as f64)
        };
        let best = |core: &Self, due: bool| {
            let lanes = core.models[index].queue.lanes();
            let wanted = |at: &usize| only.is_none_or(|priority| lanes[*at].key.priority == priority);
            let is_due = |at: &usize| core.tenants.is_due(lanes[*at].key.priority, lanes[*at].key.tenant);
            let may = |at: &usize| wanted(at) && (!due || is_due(at));
            let ranked = (0..lanes.len()).filter(may).filter_map(|at| Some((urgency(core, at)?, at)));
            ranked.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, at)| at)
        };
        if let Some(at) = best(self, true) {
            return Some(at);
        }
        let at = best(self, false)?;
        let priority = self.models[index].queue.lanes()[at].key.priority;
        let lanes = self.models[index].queue.lanes().iter();
        let present = lanes.filter(|lane| lane.key.priority == priority && !lane.waiting.is_empty());
        let present: Vec<u32> = present.map(|lane| lane.key.tenant).collect();
        self.tenants.next_round(priority, &present);
        best(self, true).or(Some(at))
    }

    /// Whether a replica takes one more generation.
    pub(super) fn has_place(&self, now: Nanos, id: usize) -> bool {
        let replica = &self.replicas[id];
        let free = replica.running < self.models[replica.model].places();
        free && self.takes_requests(id) && self.can_run(now, id) && !self.is_held_back(now, id)
    }

    /// The replica with a place that is predicted to give the first token first: one that has cached how the prompt begins
    /// is given it until its load makes another faster. A group's must be able to go on with what was sent.
    fn place_for(&self, now: Nanos, index: usize, key: RequestKey, group: Option<&Group>) -> Option<usize> {
        self.best_place(now, index, key, group, |id| self.has_place(now, id))
    }

    /// The same among the replicas that a condition holds for.
    pub(super) fn best_place(
        &self,
        now: Nanos,
        index: usize,
        key: RequestKey,
        group: Option<&Group>,
        takes_one: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let request = self.request(key)?;
        let takes = |id: &&usize| {
            let device = self.replicas[**id].device;
            let fits = group.is_none_or(|group| self.may_run_on(group, device));
            takes_one(**id) && fits && self.goes_on_with(key, device)
        };
        let first_token = |id: &&usize| {
            let total = self.first_token_cost(now, **id, request).total();
            (total.saturating_add(self.replicas[**id].penalty(now)), **id)
        };
        self.models[index].replicas.iter().filter(takes).min_by_key(first_token).copied()
    }

    /// Whether a device goes on with a generation bit for bit: any with one of which nothing was sent.
    pub(super) fn goes_on_with(&self, key: RequestKey, device: usize) -> bool {
        let generated = self.request(key).and_then(|request| request.generated.as_ref());
        let kind = generated.filter(|generated| generated.sent() > 0).and_then(|generated| generated.kind.as_ref());
        kind.is_none_or(|kind| **kind == *self.devices[device].info.kind)
    }

    /// Whether a step of a generation was sent.
    pub(super) fn has_begun(&self, key: RequestKey) -> bool {
        let generated = self.request(key).and_then(|request| request.generated.as_ref());
        generated.is_some_and(|generated| generated.sent() > 0)
    }

    /// Whether there is a copy that goes on with a generation, once it is there and has a place; on these devices none does.
    fn is_continued(&self, index: usize, key: RequestKey, mute: &[usize]) -> bool {
        let takes = |id: &usize| !self.is_stalled(*id) && (self.stays(*id) || self.takes_requests(*id));
        let goes_on = |id: &usize| {
            let device = self.replicas[*id].device;
            !mute.contains(&device) && self.goes_on_with(key, device) && takes(id)
        };
        self.models[index].replicas.iter().any(goes_on)
    }

    /// Whether a copy of its model can go on with a generation, or one could be made that can.
    pub(super) fn can_go_on(&self, key: RequestKey) -> bool {
        let Some(request) = self.request(key).filter(|_| self.has_begun(key)) else { return true };
        let index = request.model;
        let could = |(id, device): (usize, &Device)| {
            let worker = &self.workers[device.worker];
            let there = matches!(worker.state, WorkerState::Ready | WorkerState::Suspect | WorkerState::Joining);
            let spec = self.models[index].spec.as_ref();
            let suits = || spec.is_some_and(|spec| filter::suits(spec, worker, device).is_ok());
            let fails = |failure: &Failure| failure.device == id && failure.times >= GIVEN_UP;
            let fails = self.models[index].failures.iter().any(fails);
            let takes = there && worker.cordon == Cordon::No && !worker.drains && !fails;
            takes && self.goes_on_with(key, id) && suits() && self.has_room(index, id)
        };
        self.is_continued(index, key, &[]) || (self.may_copy(index) && self.devices.iter().any(could))
    }

    /// Generations that were begun and wait to go on: where no copy of their model can, one of their kind is made, and where
    /// there can be none they are answered.
    pub(super) fn see_to_begun(&mut self, now: Nanos, index: usize) {
        if !self.models[index].is_generator() {
            return;
        }
        // Beside copies of another kind it is nobody's turn to come: where none of its own could be made for so long as any
        // request may wait, it is answered.
        let limit = if self.staying(index) > 0 { self.max_queue(index) } else { Nanos::MAX };
        let groups = self.models[index].queue.groups.iter();
        let waiting = groups.flat_map(|group| group.waiting.iter().map(|waiting| (waiting.key, group.since)));
        let waiting: Vec<(RequestKey, Nanos)> = waiting.filter(|(key, _)| self.has_begun(*key)).collect();
        // Of those of one kind the first speaks for all.
        let mut kinds: Vec<Option<Arc<str>>> = Vec::new();
        for (key, since) in waiting {
            let kind = self.request(key).and_then(|request| request.generated.as_ref()?.kind.clone());
            let waits = now.saturating_sub(since) <= limit || self.is_continued(index, key, &[]);
            match waits && self.can_go_on(key) {
                true if kinds.contains(&kind) => {}
                true => {
                    kinds.push(kind);
                    self.copy_to_go_on(now, index, key, &[]);
                }
                false => {
                    self.leave_queue(key);
                    let text = "no device of the kind on which it was begun can go on with it";
                    self.fail(now, key, Error::new(Code::Unavailable, text));
                }
            }
        }
    }

    /// Where no copy can go on with a generation, one is made that can: on the least loaded device of its kind that can
    /// make room now.
    pub(super) fn copy_to_go_on(&mut self, now: Nanos, index: usize, key: RequestKey, mute: &[usize]) {
        if self.is_continued(index, key, mute) || !self.may_copy(index) || self.copying >= self.devices.len() {
            return;
        }
        let suitable = self.suitable(index);
        let takes = |device: &usize| {
            let at = &self.devices[*device];
            let failed = self.models[index].failures.iter().any(|f| f.device == *device && f.retry_at > now);
            let free = at.loading.is_none() && !at.stalled && !failed && !self.is_on(index, *device);
            let free = free && self.goes_on_with(key, *device) && !self.is_claimed(now, *device, index);
            free && self.has_room(index, *device) && self.victims(now, index, *device).is_some()
        };
        let found = suitable.iter().copied().filter(takes).min_by_key(|device| self.devices[*device].load(now));
        if let Some(device) = found {
            self.start_load(now, index, device);
        }
    }

    /// A worker's generators took steps. What belongs to no attempt that is under way is dropped.
    pub fn deltas(&mut self, now: Nanos, session: u64, epoch: u64, deltas: Vec<AttemptDelta>) {
        let from = self.by_session(session);
        for delta in deltas {
            let Some(AttemptDelta { batch, attempt, delta }) = self.keep_delta(from, epoch, delta) else { continue };
            let running = self.batches.get_mut(&batch).filter(|running| Some(running.worker) == from);
            let key = running.filter(|running| running.epoch == epoch).and_then(|running| {
                running.given = running.given.max(now);
                if let Some(replica) = self.replicas.get_mut(running.replica) {
                    replica.spoke = now;
                }
                running.attempts.iter().find(|(of, _)| *of == attempt).map(|(_, key)| *key)
            });
            if !key.is_some_and(|key| self.take_delta(now, key, batch, delta)) {
                self.totals.results_dropped += 1;
            }
        }
    }

    /// Says whether it was the next.
    fn take_delta(&mut self, now: Nanos, key: RequestKey, batch: u64, delta: Delta) -> bool {
        let Some(running) = self.batches.get(&batch) else { return false };
        let (device, kind) = (running.device, self.devices[running.device].info.kind.clone());
        let Some(request) = self.request_mut(key).filter(|r| r.running.is_some_and(|(of, _)| of == batch)) else {
            return false;
        };
        let Some(generated) = &mut request.generated else { return false };
        // A worker that joined anew tells of its jobs from the beginning.
        if (delta.position as usize).saturating_add(delta.tokens.len()) <= generated.sent() && !delta.tokens.is_empty()
        {
            return true;
        }
        if delta.position as usize != generated.sent() {
            self.take_back(now, batch, device, true, "a step of its generation was lost on the way");
            return false;
        }
        let first = generated.begun.is_some();
        generated.tokens.extend(&delta.tokens);
        generated.kind.get_or_insert_with(|| Arc::from(kind));
        let listener = generated.listener.clone();
        if first {
            self.end_prefill(now, key, batch, &delta);
        }
        self.note_step(now, key, batch, delta.tokens.len());
        self.commands.push(Command::Tell { listener, delta });
        true
    }

    /// Whether an answer's last step follows what was sent.
    pub(super) fn follows(&self, key: RequestKey, last: Option<&Delta>) -> orion_proto::Result<()> {
        let Some(generated) = self.request(key).and_then(|request| request.generated.as_ref()) else { return Ok(()) };
        match last {
            Some(delta) if delta.position as usize == generated.sent() => Ok(()),
            Some(_) => Err(Error::new(Code::Unavailable, "a step of its generation was lost on the way")),
            None => Err(Error::new(Code::Internal, "the worker ended the generation without a last step")),
        }
    }
}
