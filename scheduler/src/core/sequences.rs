//! Sequences: requests of which a model keeps a state, which is on one replica. They run one after the other, in the order
//! in which they came, each where the state is; the first begins wherever any request would.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use orion_proto::{Code, Error, InferRequest, ModelSpec, Result, Sequence};

use super::{Core, Nanos, RequestKey, WorkerState, nanos, request::Request};

/// Sequences of one model whose place is remembered: of more, the longest unused is forgotten.
const MOST: usize = 1 << 16;
/// One that is not used for so long is forgotten.
const IDLE: Duration = Duration::from_secs(600);

/// Where the states of a model's sequences are, and which of their requests is next.
#[derive(Debug, Default)]
pub(super) struct Sequences {
    places: HashMap<u64, Place>,
    /// Those of which no request is under way, by when they were last used.
    idle: BTreeSet<(Nanos, u64)>,
    /// States on each replica.
    held: HashMap<usize, usize>,
}

#[derive(Debug, Default)]
struct Place {
    /// The replica that has the state; none before the first request runs, and once the state is lost.
    replica: Option<usize>,
    /// The request that waits in a queue or runs.
    current: Option<RequestKey>,
    /// Those that came after it.
    later: VecDeque<RequestKey>,
    used: Nanos,
}

impl Sequences {
    /// Whether a request of the sequence may come: it starts it, or another is there before it.
    fn knows(&self, sequence: Sequence) -> bool {
        sequence.start || self.places.contains_key(&sequence.key)
    }

    /// A request comes. Says whether it is its turn.
    fn enter(&mut self, key: u64, request: RequestKey) -> bool {
        let place = self.places.entry(key).or_default();
        self.idle.remove(&(place.used, key));
        match place.current {
            None => place.current = Some(request),
            Some(_) => place.later.push_back(request),
        }
        place.current == Some(request)
    }

    /// Where the state is.
    fn home(&self, key: u64) -> Option<usize> {
        self.places.get(&key)?.replica
    }

    /// Whether a request of the sequence is under way.
    fn is_busy(&self, key: u64) -> bool {
        self.places.get(&key).is_some_and(|place| place.current.is_some())
    }

    /// A request was given to this replica: the state is there from now on.
    fn runs_on(&mut self, key: u64, replica: usize) {
        let Some(place) = self.places.get_mut(&key) else { return };
        let before = place.replica.replace(replica);
        self.let_go(before);
        *self.held.entry(replica).or_default() += 1;
    }

    /// A request is settled or gone; `kept`: the state is as it should be, and something may follow. Gives the request
    /// whose turn it is.
    fn leave(&mut self, now: Nanos, key: u64, request: RequestKey, kept: bool) -> Option<RequestKey> {
        let place = self.places.get_mut(&key)?;
        if place.current != Some(request) {
            place.later.retain(|later| *later != request);
            return None;
        }
        let lost = if kept { None } else { place.replica.take() };
        place.current = place.later.pop_front();
        let next = place.current;
        match (next, place.replica) {
            (Some(_), _) => {}
            (None, None) => drop(self.places.remove(&key)),
            (None, Some(_)) => {
                place.used = now;
                self.idle.insert((now, key));
            }
        }
        self.let_go(lost);
        next
    }

    /// A replica is gone, and all states on it.
    fn lose(&mut self, replica: usize) {
        if self.held.remove(&replica).is_none() {
            return;
        }
        self.places.retain(|key, place| {
            if place.replica == Some(replica) {
                place.replica = None;
                self.idle.remove(&(place.used, *key));
            }
            place.replica.is_some() || place.current.is_some()
        });
    }

    /// Forgets those that were not used for long, and the longest unused of too many.
    fn forget_idle(&mut self, now: Nanos) {
        while let Some(&(used, key)) = self.idle.first() {
            if self.places.len() <= MOST && now.saturating_sub(used) < nanos(IDLE) {
                return;
            }
            self.idle.pop_first();
            let forgotten = self.places.remove(&key).and_then(|place| place.replica);
            self.let_go(forgotten);
        }
    }

    /// Whether a request is the last that came.
    pub(super) fn ends_with(&self, key: u64, request: RequestKey) -> bool {
        self.places.get(&key).is_some_and(|place| place.later.back().copied().or(place.current) == Some(request))
    }

    /// Whether it is a request's turn.
    #[cfg(test)]
    pub(super) fn is_current(&self, key: u64, request: RequestKey) -> bool {
        self.places.get(&key).is_some_and(|place| place.current == Some(request))
    }

    /// States on a replica.
    pub(super) fn held_by(&self, replica: usize) -> usize {
        self.held.get(&replica).copied().unwrap_or(0)
    }

    fn let_go(&mut self, replica: Option<usize>) {
        let Some(replica) = replica else { return };
        let Some(held) = self.held.get_mut(&replica) else { return };
        *held -= 1;
        if *held == 0 {
            self.held.remove(&replica);
        }
    }
}

/// A request's place in a sequence, if its model keeps states. One without a number is none: the model refuses it.
pub(super) fn in_sequence(spec: &ModelSpec, request: &InferRequest) -> Option<Sequence> {
    request.parameters.sequence.filter(|sequence| spec.policy.sequences && sequence.key != 0)
}

impl<T> Request<T> {
    /// Its place in a sequence, if its model keeps states.
    pub(super) fn sequence(&self) -> Option<Sequence> {
        in_sequence(&self.spec, &self.request)
    }
}

impl<T, L: Clone> Core<T, L> {
    /// Refuses a request whose sequence was not started, or whose state cannot be reached.
    pub(super) fn admit_in_sequence(&mut self, now: Nanos, index: usize, sequence: Sequence) -> Result<()> {
        let sequences = &mut self.models[index].sequences;
        sequences.forget_idle(now);
        if !sequences.knows(sequence) {
            return Err(unknown());
        }
        // Of one that waits for another it is seen once that is settled.
        if sequence.start || sequences.is_busy(sequence.key) {
            return Ok(());
        }
        self.home_of(now, index, sequence).map(drop)
    }

    /// A request that was admitted comes. Says whether it may wait in a queue; if not, its turn comes later.
    pub(super) fn enter_sequence(&mut self, key: RequestKey) -> bool {
        let Some(request) = self.request(key) else { return false };
        let (index, sequence) = (request.model, request.sequence());
        sequence.is_none_or(|sequence| self.models[index].sequences.enter(sequence.key, key))
    }

    /// The replica that has a sequence's state; none for a request that begins it, which runs anywhere.
    pub(super) fn home_of(&self, now: Nanos, index: usize, sequence: Sequence) -> Result<Option<usize>> {
        if sequence.start {
            return Ok(None);
        }
        let home = self.models[index].sequences.home(sequence.key).and_then(|id| Some((id, self.replicas.get(id)?)));
        let (id, replica) = home.ok_or_else(unknown)?;
        let worker = &self.workers[self.devices[replica.device].worker];
        // A model that is to make room for a claimant still has the state: what waits for it is held back, not refused.
        let runs = replica.serves() && !self.is_stalled(id) && replica.breaker.allows(now);
        if runs && self.takes_requests(id) {
            return Ok(Some(id));
        }
        let comes_back = matches!(worker.state, WorkerState::Suspect | WorkerState::Joining);
        if comes_back || (replica.serves() && self.takes_requests(id)) {
            let text = format!("worker '{}', which has the sequence's state, cannot run it at present", worker.name);
            return Err(Error::new(Code::Unavailable, text).retry_after(Duration::from_secs(1)));
        }
        let text = format!(
            "worker '{}', which has the sequence's state, takes no more work: begin it again with \
                            sequence_start",
            worker.name
        );
        Err(Error::new(Code::FailedPrecondition, text))
    }

    /// A replica was given these requests: the states of their sequences are there.
    pub(super) fn sequences_run_on(&mut self, id: usize, keys: &[RequestKey]) {
        let index = self.replicas[id].model;
        for key in keys {
            if let Some(sequence) = self.request(*key).and_then(Request::sequence) {
                self.models[index].sequences.runs_on(sequence.key, id);
            }
        }
    }

    /// A request of a sequence has left the core; `kept`: the state is as it should be, and something may follow. The next
    /// takes its turn, and those that cannot any more are answered.
    pub(super) fn leave_sequence(&mut self, now: Nanos, index: usize, sequence: u64, key: RequestKey, kept: bool) {
        let mut next = self.models[index].sequences.leave(now, sequence, key, kept);
        while let Some(key) = next {
            let Some(place) = self.request(key).and_then(Request::sequence) else { return };
            let home =
                if self.models[index].wanted { self.home_of(now, index, place) } else { Err(self.not_ready(index)) };
            let Err(error) = home else {
                self.enqueue(now, key);
                return self.turned.push(index);
            };
            if let Some(request) = self.remove_request(key) {
                self.refuse(now, request, error);
            }
            next = self.models[index].sequences.leave(now, sequence, key, true);
        }
    }

    /// Gives out what took its turn while something else was dealt with.
    pub(super) fn take_turns(&mut self, now: Nanos) {
        while let Some(index) = self.turned.pop() {
            self.turned.retain(|other| *other != index);
            for id in self.models[index].replicas.clone() {
                if self.replicas.get(id).is_some_and(|replica| replica.bound.as_ref().is_some_and(|q| !q.is_empty())) {
                    self.fill(now, self.replicas[id].device);
                }
            }
            self.start_waiting(now, index);
        }
    }

    /// A replica is gone, and with it the states of its sequences.
    pub(super) fn lose_sequences(&mut self, id: usize) {
        let index = self.replicas[id].model;
        self.models[index].sequences.lose(id);
    }
}

/// What is said of a sequence that was not started, or is no more.
fn unknown() -> Error {
    let text = format!(
        "the sequence is not known: its first request must set sequence_start, and it is over with sequence_end, when the \
         replica that has its state is lost, or after {} s without a request",
        IDLE.as_secs()
    );
    Error::new(Code::FailedPrecondition, text)
}
