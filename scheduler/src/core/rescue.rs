//! Copies for the sake of one request: no holder would answer it in time, or all of them have failed it.

use super::{Core, Nanos, nanos, placement::SAFE, target::Room};

/// A model makes way for one that is nowhere only if it is asked for so many times less often.
const SELDOM: f64 = 2.0;

impl<T, L: Clone> Core<T, L> {
    /// Makes a copy of a model where it would answer a request of so many rows and bytes `within` this time; says whether
    /// it was made.
    pub(super) fn copy_for(
        &mut self,
        now: Nanos,
        index: usize,
        (rows, bytes): (usize, usize),
        within: Nanos,
        room: Room,
    ) -> bool {
        if !self.may_copy(index) {
            return false;
        }
        let Some(device) = self.target(now, index, room, &mut Vec::new()) else { return false };
        self.cost(now, index, device, rows, bytes).total() <= within && self.start_load(now, index, device)
    }

    /// What a balancer has bound is in no queue that copies are made for: where its replicas are predicted to take too
    /// long for it, another is made while memory is free, and later requests may be bound to that.
    pub(super) fn copy_for_bound(&mut self, now: Nanos, index: usize) {
        let waits = self.queue_time(now, index);
        if waits as f64 > SAFE * self.objective(index).min(self.max_queue(index)) as f64 {
            self.copy_for(now, index, (1, 0), waits, Room::Free);
        }
    }

    /// A few long requests wait for one device while another is free: where a copy would answer the last of them sooner by
    /// more than its load takes, it is made, in memory and on a copy engine that nobody else asks for.
    pub(super) fn copy_for_long(&mut self, now: Nanos, index: usize) {
        let load = self.models[index].known.iter().map(|known| known.load).min().unwrap_or(Nanos::MAX);
        let idle_engine = self.homeless.is_empty() && self.copying < self.devices.len();
        if self.models[index].work <= load || !idle_engine || self.models[index].is_inline() {
            return;
        }
        let waits = self.queue_time(now, index);
        self.copy_for(now, index, (1, 0), waits.saturating_sub(load), Room::Free);
    }

    /// A model is nowhere, and a request cannot wait for its load: that one is refused, those that come later find a copy.
    /// It is made where memory is free, or where all that would leave is asked for far less.
    pub(super) fn copy_for_later(&mut self, now: Nanos, index: usize, priority: u8) {
        if self.staying(index) > 0 || !self.may_copy(index) {
            return;
        }
        self.models[index].arrivals.arrived(now, priority);
        // A copy engine is for what waits first.
        if !self.homeless.is_empty() || self.copying >= self.devices.len() {
            return;
        }
        let free = self.target(now, index, Room::Free, &mut Vec::new());
        let Some(device) = free.or_else(|| self.target(now, index, Room::Evict, &mut Vec::new())) else { return };
        let Some(victims) = self.victims(now, index, device) else { return };
        let asked = |index: usize| {
            let model = &self.models[index];
            if model.queue.is_empty() { model.arrivals.rate_at(now) * model.arrivals.weight() } else { f64::MAX }
        };
        let own = asked(index);
        if victims.iter().all(|id| SELDOM * asked(self.replicas[*id].model) < own) {
            self.load_instead(now, index, device, victims);
        }
    }

    /// A model of which all replicas that take work are on devices that failed, or are to be emptied, is loaded on another
    /// that would answer `within` this time.
    pub(super) fn copy_elsewhere(&mut self, now: Nanos, index: usize, failed: &[usize], within: Nanos) {
        let takes_part = |id: &&usize| self.takes_part(self.replicas[**id].device) && !self.is_stalled(**id);
        let mut stay = self.models[index].replicas.iter().filter(takes_part).map(|id| self.replicas[*id].device);
        if stay.all(|device| failed.contains(&device)) {
            self.copy_for(now, index, (1, 0), within, Room::Evict);
        }
    }

    /// What may go before a request without a deadline.
    pub(super) fn max_queue(&self, index: usize) -> Nanos {
        self.models[index].spec.as_ref().map_or(Nanos::MAX, |spec| nanos(spec.policy.max_queue))
    }
}
