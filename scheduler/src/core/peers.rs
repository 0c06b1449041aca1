//! From whom a worker may fetch a model that is no file of its machine: those that are predicted to send it soonest first.

use std::{cmp::Ordering, collections::BTreeSet};

use orion_net::{
    store::Reference,
    transfer::{is_fetched, relayed, relayed_worker},
};
use orion_proto::{Code, Error, Result};

use super::{Core, WorkerState, cluster::Worker};

/// Addresses that a message carries: more would not make a transfer faster.
const MOST: usize = 16;
/// Of these, workers that are reached through the scheduler alone: what they send goes over its link twice.
const MOST_RELAYED: usize = 4;
/// Holders that are looked at to price a fetch, or named to ask them.
const LOOKED_AT: usize = 12;
/// Before a worker that holds the model, one that does not is asked only by chance: it may have its files all the same.
const UNKNOWN_RATE: f64 = 1.0;

/// Another worker as somebody to fetch from.
struct Other {
    at: usize,
    holds: bool,
    seconds: f64,
    near: bool,
}

impl Other {
    fn order(&self, other: &Self) -> Ordering {
        let (holds, near) = (other.holds.cmp(&self.holds), other.near.cmp(&self.near));
        holds.then(self.seconds.total_cmp(&other.seconds)).then(near)
    }
}

impl<L> Worker<L> {
    /// Whether this is where a node with that address is reached.
    pub(super) fn is_at(&self, address: &str) -> bool {
        match relayed_worker(address) {
            Some(name) => *self.name == *name,
            None => !self.peer_address.is_empty() && self.peer_address == address,
        }
    }
}

impl<T, L: Clone> Core<T, L> {
    /// Where other workers can be reached that may have this model: first those that hold it, then by the predicted seconds
    /// of sending it, of equal ones those of the worker's own zone; at last the holders through the scheduler's relay, which
    /// is for when none of the others can be reached.
    pub(super) fn peers_of(&self, model: usize, worker: usize) -> Vec<String> {
        if !self.models[model].path.as_ref().is_some_and(|path| is_fetched(path)) {
            return Vec::new();
        }
        let own = &self.workers[worker];
        let bytes = self.models[model].spec.as_ref().map_or(1.0, |spec| spec.memory_bytes as f64);
        // Measured on the very link if chunks ever went over it, else the peer's link to the scheduler tells something.
        let seconds = |at: usize| {
            let peer = &self.workers[at];
            let seen = peer.telemetry.peers.iter().find(|link| own.is_at(&link.address) && link.bytes_per_second > 0.0);
            let (rate, trip) =
                seen.map_or((peer.up_rate(), 0.0), |link| (link.bytes_per_second, link.round_trip_seconds));
            trip + bytes / rate.max(UNKNOWN_RATE)
        };
        let holders: BTreeSet<usize> = self.having(model).collect();
        let others = self.others(worker).map(|at| Other {
            at,
            holds: holders.contains(&at),
            seconds: seconds(at),
            near: self.workers[at].capability.zone == own.capability.zone,
        });
        let mut others: Vec<Other> = others.collect();
        others.sort_by(Other::order);
        let reachable = |other: &&Other| !self.workers[other.at].peer_address.is_empty();
        let direct = others.iter().filter(reachable).take(MOST - MOST_RELAYED);
        let direct = direct.map(|other| self.workers[other.at].peer_address.clone());
        let relays = others.iter().filter(|other| other.holds && self.is_relayed(model, other.at)).take(MOST_RELAYED);
        direct.chain(relays.map(|other| relayed(&self.workers[other.at].name))).collect()
    }

    /// Where some of those that have a model are reached, in no order: to ask how large it is.
    pub(super) fn holder_addresses(&self, model: usize) -> Vec<String> {
        let here = || self.having(model).filter(|at| self.workers[*at].state == WorkerState::Ready);
        let direct = here().map(|at| self.workers[at].peer_address.clone()).filter(|address| !address.is_empty());
        let relays = here().filter(|at| self.is_relayed(model, *at)).map(|at| relayed(&self.workers[at].name));
        direct.take(LOOKED_AT).chain(relays.take(MOST_RELAYED)).collect()
    }

    /// Bytes a second at which a model's files come to a worker from the best of those that have them: as their link was seen, else
    /// no more than the links of both to the scheduler, and where that must relay them no more than it does. 0: not measured.
    pub(super) fn fetch_rate(&self, model: usize, worker: usize) -> f64 {
        let own = &self.workers[worker];
        let (down, stored) = (own.down_rate(), self.models[model].path.as_deref().is_some_and(Reference::is_path));
        if !stored || down <= 0.0 {
            return down;
        }
        let (mut direct, mut through) = (0.0f64, 0.0f64);
        for at in self.having(model).filter(|at| self.may_ask(worker, *at)).take(LOOKED_AT) {
            let holder = &self.workers[at];
            if holder.peer_address.is_empty() {
                let may = self.is_relayed(model, at);
                through = through.max(if may { holder.up_rate() } else { 0.0 });
            } else {
                let seen = holder.telemetry.peers.iter().find(|link| own.is_at(&link.address));
                let seen = seen.map_or(0.0, |link| link.bytes_per_second);
                let up = holder.up_rate();
                let usual = if up > 0.0 { down.min(up) } else { down };
                direct = direct.max(if seen > 0.0 { seen } else { usual });
            }
        }
        match (direct > 0.0, through > 0.0) {
            (true, _) => direct,
            (_, true) => down.min(through).min(self.limits.relay_bytes_per_second as f64),
            _ => down,
        }
    }

    /// The link of a worker whose store others may reach through the scheduler.
    ///
    /// # Errors
    /// NOT_FOUND for an unknown one, UNAVAILABLE where it is not here, FAILED_PRECONDITION where it has no such store.
    pub(crate) fn relayed_link(&self, name: &str) -> Result<L> {
        let worker = self.worker_index(name).map(|index| &self.workers[index]);
        let worker = worker.ok_or_else(|| Error::new(Code::NotFound, format!("no worker is named '{name}'")))?;
        if !worker.is_relayed {
            let text = format!("worker '{name}' is not reached through a scheduler");
            return Err(Error::new(Code::FailedPrecondition, text));
        }
        let link = worker.link.clone().filter(|_| worker.is_connected());
        link.ok_or_else(|| Error::new(Code::Unavailable, format!("worker '{name}' is not connected")))
    }

    /// The other workers that can be asked for something.
    fn others(&self, worker: usize) -> impl Iterator<Item = usize> {
        (0..self.workers.len()).filter(move |at| self.may_ask(worker, *at))
    }

    fn may_ask(&self, worker: usize, other: usize) -> bool {
        other != worker && self.workers[other].state == WorkerState::Ready
    }

    /// The workers that have a model's files: they serve it, or said so.
    fn having(&self, model: usize) -> impl Iterator<Item = usize> {
        let replicas = self.models[model].replicas.iter().map(|id| &self.replicas[*id]);
        let serve = replicas.filter(|replica| replica.serves()).map(|replica| self.devices[replica.device].worker);
        serve.chain(self.keepers(model))
    }

    /// Whether the scheduler would relay a model's files from a worker that has them. What has an origin is fetched there instead.
    fn is_relayed(&self, model: usize, worker: usize) -> bool {
        let stored = self.models[model].path.as_deref().is_some_and(Reference::is_path);
        stored && self.limits.relay_bytes_per_second > 0 && self.workers[worker].is_relayed
    }
}
