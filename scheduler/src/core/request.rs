//! A request in the core, and where it is found.

use std::sync::Arc;

use orion_proto::{InferRequest, ModelSpec};

use super::{
    Core, Nanos,
    course::Course,
    generate::{Generated, Opening},
    queue::{LaneKey, Waiting},
};

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

impl<T, L: Clone> Core<T, L> {
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
}
