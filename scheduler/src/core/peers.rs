//! From whom a worker may fetch a model that is no file of its machine: those that are predicted to send it soonest first.

use orion_net::transfer::is_fetched;

use super::{Core, WorkerState};

/// Addresses that a message carries: more would not make a transfer faster.
const MOST: usize = 16;
/// Before a worker that holds the model, one that does not is asked only by chance: it may have its files all the same.
const UNKNOWN_RATE: f64 = 1.0;

impl<T, L: Clone> Core<T, L> {
    /// Where other workers can be reached that may have this model: first those that hold it, then by the predicted seconds
    /// of sending it, of equal ones those of the worker's own zone.
    pub(super) fn peers_of(&self, model: usize, worker: usize) -> Vec<String> {
        if !self.models[model].path.as_ref().is_some_and(|path| is_fetched(path)) {
            return Vec::new();
        }
        let own = &self.workers[worker];
        let bytes = self.models[model].spec.as_ref().map_or(1.0, |spec| spec.memory_bytes as f64);
        let holds = |at: usize| {
            self.models[model].replicas.iter().any(|id| {
                let replica = &self.replicas[*id];
                self.devices[replica.device].worker == at && replica.serves()
            })
        };
        // Measured on the very link if chunks ever went over it, else the peer's link to the scheduler tells something.
        let seconds = |at: usize| {
            let peer = &self.workers[at];
            let seen = peer.telemetry.peers.iter().find(|link| link.address == own.peer_address);
            let seen = seen.filter(|link| !own.peer_address.is_empty() && link.bytes_per_second > 0.0);
            let usual = peer.measurement.as_ref().map_or(UNKNOWN_RATE, |m| m.scheduler_bytes_per_second);
            let (rate, trip) = seen.map_or((usual, 0.0), |link| (link.bytes_per_second, link.round_trip_seconds));
            trip + bytes / rate.max(UNKNOWN_RATE)
        };
        let reachable = |at: &usize| {
            let other = &self.workers[*at];
            *at != worker && other.state == WorkerState::Ready && !other.peer_address.is_empty()
        };
        let mut peers: Vec<usize> = (0..self.workers.len()).filter(reachable).collect();
        peers.sort_by(|one, other| {
            let near = |at: usize| self.workers[at].capability.zone == own.capability.zone;
            holds(*other)
                .cmp(&holds(*one))
                .then_with(|| seconds(*one).total_cmp(&seconds(*other)))
                .then_with(|| near(*other).cmp(&near(*one)))
        });
        peers.into_iter().take(MOST).map(|at| self.workers[at].peer_address.clone()).collect()
    }
}
