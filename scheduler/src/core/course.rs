//! A request's course: how long it waited, where it ran, and why there. Followed for requests that their clients named.

use std::sync::Arc;

use orion_net::{BreakerState, Strategy};

use super::{Core, Nanos, RequestKey, cost::Cost, prefill::Prefill, request::Request};

/// Other replicas whose cost is compared with the chosen one's.
const COMPARED: usize = 16;

/// A device by its names, which outlive it, and what a batch was predicted to cost there; nothing for an inline model.
#[derive(Debug)]
pub(super) struct Place {
    pub worker: Arc<str>,
    pub device: Arc<str>,
    pub cost: Option<Cost>,
}

/// Where a batch went, and where else it could have gone.
#[derive(Debug)]
pub(super) struct Placed {
    pub chosen: Place,
    /// The cheapest of those that were compared.
    pub next_best: Option<Place>,
    /// The model's other replicas, and how many of those that take work were compared.
    pub others: usize,
    pub compared: usize,
    /// The next best would be cheaper, had it not failed lately.
    pub failed_lately: bool,
    pub batch_requests: usize,
    pub batch_rows: usize,
    /// Of a generation.
    pub prefill: Option<Prefill>,
}

/// Why a run went where it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// By predicted seconds.
    Cost,
    /// A balancer of this name had bound it there.
    Bound(&'static str),
    /// The state of its sequence was there.
    Sequence,
    /// Its breaker wanted to know whether the replica works again.
    Probe,
    /// An earlier run had failed, on other devices.
    Elsewhere,
    /// An earlier run had failed there, and no other device could take it.
    Again,
    /// Its batch had failed as a whole.
    Split,
    /// The run before was late.
    Hedge,
    /// Its model is inline.
    Inline,
}

/// One run of a request.
#[derive(Debug)]
pub(super) struct Run {
    batch: u64,
    begun: Nanos,
    /// Before the device, on the worker, and on the device: as the worker said.
    told: Option<(Nanos, Nanos)>,
    pub reason: Reason,
    pub placed: Arc<Placed>,
}

/// Where a request's time went; together it is all of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stages {
    /// In the scheduler's queues.
    pub queued: Nanos,
    /// With devices that failed, and waiting for one that was late until it ran elsewhere.
    pub earlier: Nanos,
    /// With a device that has said nothing of it.
    pub underway: Nanos,
    /// Between scheduler and worker, both ways.
    pub carriage: Nanos,
    pub waited: Nanos,
    pub service: Nanos,
}

/// A request's way so far.
#[derive(Debug)]
pub(super) struct Course {
    queued: Nanos,
    earlier: Nanos,
    /// Since when it waits, or has run.
    since: Nanos,
    /// Since it last waited; two where one is a hedge.
    runs: Vec<Run>,
    /// No replica served its model when it came.
    pub(super) cold: bool,
}

impl Course {
    pub(super) fn new(now: Nanos, cold: bool) -> Self {
        Self { queued: 0, earlier: 0, since: now, runs: Vec::new(), cold }
    }

    fn began(&mut self, run: Run) {
        if self.runs.is_empty() {
            self.queued += run.begun.saturating_sub(self.since);
            self.since = run.begun;
        }
        self.runs.push(run);
    }

    /// A worker says how long a run waited there and took, whatever came of it.
    pub(super) fn told(&mut self, batch: u64, waited: Nanos, service: Nanos) {
        if let Some(run) = self.runs.iter_mut().find(|run| run.batch == batch) {
            run.told = Some((waited, service));
        }
    }

    /// Its runs are over, and it is in a queue again.
    pub(super) fn waits_again(&mut self, now: Nanos) {
        if !self.runs.is_empty() {
            self.earlier += now.saturating_sub(self.since);
            self.since = now;
            self.runs.clear();
        }
    }

    /// The run that is under way, the one that decided, or the last.
    pub(super) fn run(&self, running: Option<u64>) -> Option<&Run> {
        let underway = self.runs.iter().find(|run| Some(run.batch) == running);
        underway.or_else(|| self.runs.iter().find(|run| run.told.is_some())).or(self.runs.last())
    }

    pub(super) fn stages(&self, now: Nanos, run: Option<&Run>) -> Stages {
        let (queued, earlier) = (self.queued, self.earlier);
        let Some(run) = run else {
            return Stages { queued: queued + now.saturating_sub(self.since), earlier, ..Stages::default() };
        };
        let earlier = earlier + run.begun.saturating_sub(self.since);
        let left = now.saturating_sub(run.begun);
        let Some((waited, service)) = run.told else {
            return Stages { queued, earlier, underway: left, ..Stages::default() };
        };
        // A worker's clock is its own: no more than there was.
        let service = service.min(left);
        let waited = waited.min(left - service);
        Stages { queued, earlier, carriage: left - service - waited, waited, service, underway: 0 }
    }
}

impl<T, L: Clone> Core<T, L> {
    /// Notes where a batch's requests go and why, before the batch is booked there.
    pub(super) fn trace_dispatch(
        &mut self,
        now: Nanos,
        id: usize,
        batch: u64,
        attempts: &[(u64, RequestKey)],
        hedge: bool,
    ) {
        let named = |request: &&Request<T>| !request.request.id.is_empty();
        if !attempts.iter().filter_map(|(_, key)| self.request(*key)).any(|request| named(&request)) {
            return;
        }
        let placed = Arc::new(self.placed(now, id, attempts));
        for &(_, key) in attempts {
            let Some(request) = self.request(key).filter(named) else { continue };
            let reason = self.reason_to_run(now, id, request, hedge);
            if let Some(request) = self.request_mut(key) {
                request.course.began(Run { batch, begun: now, told: None, reason, placed: placed.clone() });
            }
        }
    }

    fn placed(&self, now: Nanos, id: usize, attempts: &[(u64, RequestKey)]) -> Placed {
        let requests = || attempts.iter().filter_map(|(_, key)| self.request(*key));
        let rows: usize = requests().map(|request| request.rows).sum();
        let bytes: usize = requests().map(|request| request.bytes).sum();
        let (index, device) = (self.replicas[id].model, self.replicas[id].device);
        let model = &self.models[index];
        let mut placed = Placed {
            chosen: self.place_of(device, None),
            next_best: None,
            others: model.replicas.len().saturating_sub(1),
            compared: 0,
            failed_lately: false,
            batch_requests: attempts.len(),
            batch_rows: rows,
            prefill: None,
        };
        if model.is_inline() {
            return placed;
        }
        let generation = requests().next().filter(|_| model.is_generator());
        placed.prefill = generation.map(|request| self.prefill(id, request));
        let cost = |id: usize| match generation {
            Some(request) => self.first_token_cost(now, id, request),
            None => self.cost(now, index, self.replicas[id].device, rows, bytes),
        };
        placed.chosen.cost = Some(cost(id));
        let takes_work = |other: &&usize| {
            let replica = &self.replicas[**other];
            let full = generation.is_some() && replica.running >= model.places();
            let works = self.takes_requests(**other) && !replica.stalled && replica.breaker.allows(now);
            **other != id && works && !full
        };
        let others = model.replicas.iter().filter(takes_work).take(COMPARED);
        let costs: Vec<(usize, Cost)> = others.map(|other| (*other, cost(*other))).collect();
        placed.compared = costs.len();
        if let Some((other, cost)) = costs.into_iter().min_by_key(|(_, cost)| cost.total()) {
            let chosen = placed.chosen.cost.unwrap_or_default().total();
            let penalised = |id: usize, total: Nanos| total.saturating_add(self.replicas[id].penalty(now));
            placed.failed_lately = cost.total() < chosen && penalised(id, chosen) <= penalised(other, cost.total());
            placed.next_best = Some(self.place_of(self.replicas[other].device, Some(cost)));
        }
        placed
    }

    fn place_of(&self, device: usize, cost: Option<Cost>) -> Place {
        let at = &self.devices[device];
        Place { worker: self.workers[at.worker].name.clone(), device: at.name.clone(), cost }
    }

    fn reason_to_run(&self, now: Nanos, id: usize, request: &Request<T>, hedge: bool) -> Reason {
        let (replica, model) = (&self.replicas[id], &self.models[request.model]);
        match () {
            () if hedge => Reason::Hedge,
            () if request.failed_on.contains(&replica.device) => Reason::Again,
            () if !request.failed_on.is_empty() => Reason::Elsewhere,
            () if request.attempts > 1 => Reason::Split,
            () if model.is_inline() => Reason::Inline,
            () if request.bound == Some(id) && request.sequence().is_some_and(|sequence| !sequence.start) => {
                Reason::Sequence
            }
            () if request.bound == Some(id) => {
                let policy = model.spec.as_ref().map(|spec| spec.policy.balancer.parse::<Strategy>());
                Reason::Bound(policy.and_then(std::result::Result::ok).unwrap_or_default().name())
            }
            () if replica.breaker.state(now) == BreakerState::HalfOpen => Reason::Probe,
            () => Reason::Cost,
        }
    }
}
