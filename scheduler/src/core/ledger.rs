//! The memory of one device, in bytes: what is promised is never more than there is.

/// A device's memory.
///
/// `free = min(capacity − weights, measured free − loads that the measurement has not seen) − activations`: what batches
/// take is measured only while they run.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ledger {
    /// 0: not known, so not kept.
    capacity: u64,
    /// Of models that are loaded, being loaded or being unloaded.
    weights: u64,
    /// Largest growth that a batch of a resident model has shown: one batch runs at a time.
    activations: u64,
    /// As the worker last reported; the system and other processes are in it.
    measured: Option<u64>,
    /// Bytes of loads that the report may not have seen yet.
    unseen: u64,
}

impl Ledger {
    pub(super) fn new(capacity: u64, measured_free: u64) -> Self {
        let measured = Some(measured_free).filter(|free| *free > 0);
        Self { capacity, measured, ..Self::default() }
    }

    /// Bytes that a new model may take.
    pub(super) fn free(&self) -> u64 {
        self.free_after(0, self.activations)
    }

    /// Bytes that a new model may take once the measurement shows what was promised and no more: during a load, and until
    /// the next figure, it may hold twice what is loaded.
    pub(super) fn unpromised(&self) -> u64 {
        if self.capacity == 0 {
            return u64::MAX;
        }
        self.capacity.saturating_sub(self.weights).saturating_sub(self.activations)
    }

    /// Bytes that a new model may take once `evicted` bytes of weights are gone and the batches of those that stay, and
    /// its own, take `activations` at most.
    pub(super) fn free_after(&self, evicted: u64, activations: u64) -> u64 {
        self.free_beside(self.unseen, evicted, activations)
    }

    /// The same where `loading` of the evicted bytes are still being loaded: the measurement may hold all of them already.
    pub(super) fn free_once_gone(&self, evicted: u64, loading: u64, activations: u64) -> u64 {
        self.free_beside(self.unseen.saturating_sub(loading), evicted, activations)
    }

    fn free_beside(&self, unseen: u64, evicted: u64, activations: u64) -> u64 {
        if self.capacity == 0 {
            return u64::MAX;
        }
        let kept = self.capacity.saturating_sub(self.weights.saturating_sub(evicted));
        let measured = self.measured.map(|free| free.saturating_sub(unseen).saturating_add(evicted));
        measured.map_or(kept, |measured| kept.min(measured)).saturating_sub(activations)
    }

    /// Whether a model that is on the device already fits beside what was promised since.
    pub(super) fn has_room_for(&self, bytes: u64, activations: u64) -> bool {
        let held = self.weights.saturating_add(bytes).saturating_add(activations.max(self.activations));
        self.capacity == 0 || held <= self.capacity
    }

    /// Whether a model of this size could be held if nothing else was.
    pub(super) fn could_hold(&self, bytes: u64) -> bool {
        self.capacity == 0 || bytes <= self.capacity
    }

    pub(super) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Bytes that are left beside the weights.
    pub(super) fn beside_weights(&self) -> u64 {
        if self.capacity == 0 { u64::MAX } else { self.capacity.saturating_sub(self.weights) }
    }

    pub(super) fn weights(&self) -> u64 {
        self.weights
    }

    pub(super) fn activations(&self) -> u64 {
        self.activations
    }

    /// A load begins.
    pub(super) fn take(&mut self, bytes: u64) {
        self.weights = self.weights.saturating_add(bytes);
        self.unseen = self.unseen.saturating_add(bytes);
    }

    /// A model is gone from the device.
    pub(super) fn give_back(&mut self, bytes: u64) {
        self.weights = self.weights.saturating_sub(bytes);
        // What the measurement has not seen coming, it will not see going.
        let unseen = bytes.min(self.unseen);
        self.unseen -= unseen;
        self.measured = self.measured.map(|free| free.saturating_add(bytes - unseen));
    }

    /// The worker's figure; `loading` are bytes of loads that are under way, which it may hold in part.
    pub(super) fn measured(&mut self, free: u64, loading: u64) {
        self.measured = Some(free);
        self.unseen = loading;
    }

    /// The largest growth of a resident model's batches.
    pub(super) fn set_activations(&mut self, bytes: u64) {
        self.activations = bytes;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_free_is_the_lesser_of_ledger_and_measurement() {
        let mut ledger = Ledger::new(1000, 900);
        ledger.take(300);
        assert_eq!(ledger.free(), 600, "the measurement has not seen the load");
        ledger.measured(650, 0);
        assert_eq!(ledger.free(), 650, "another process holds 50");
        ledger.measured(900, 0);
        assert_eq!(ledger.free(), 700, "a report that is too good changes nothing");
        ledger.set_activations(100);
        assert_eq!((ledger.free(), ledger.free_after(300, 100)), (600, 900));
        ledger.give_back(300);
        assert_eq!(ledger.free(), 900);
        ledger.measured(350, 0);
        assert_eq!((ledger.free(), ledger.free_after(0, 400)), (250, 0), "no batch ran when others held 650");
        let mut loading = Ledger::new(1000, 1000);
        loading.take(300);
        loading.measured(700, 300);
        assert_eq!((loading.free(), loading.free_once_gone(300, 300, 0)), (400, 1000), "all of the load may be seen");
        assert_eq!(loading.free_once_gone(0, 0, 0), 400, "a load that stays may be unseen");
        let mut shared = Ledger::new(1000, 500);
        shared.take(300);
        shared.give_back(300);
        assert_eq!(shared.free(), 500, "a load that failed gives back what it took, no more");
        assert_eq!(Ledger::new(0, 0).free(), u64::MAX);
    }

    proptest! {
        #[test]
        fn taking_only_what_is_free_never_exceeds_the_capacity(
            steps in prop::collection::vec((0u64..600, 0u64..300, 0u64..1200, 0u8..4), 1..60)
        ) {
            let mut ledger = Ledger::new(1000, 1000);
            // Weights and the growth of batches of each model there.
            let mut held: Vec<(u64, u64)> = Vec::new();
            let peak = |held: &[(u64, u64)]| held.iter().map(|(_, peak)| *peak).max().unwrap_or(0);
            for (bytes, growth, free, step) in steps {
                match step {
                    0 | 1 if bytes <= ledger.free_after(0, peak(&held).max(growth)) => {
                        held.push((bytes, growth));
                        ledger.set_activations(peak(&held));
                        prop_assert!(bytes <= ledger.free(), "what was found to be free is");
                        ledger.take(bytes);
                    }
                    2 => {
                        // A batch shows more than was known; it ran, so there was room for it.
                        let most = 1000 - ledger.weights();
                        if let Some((_, known)) = held.last_mut() {
                            *known = (*known).max(growth.min(most));
                        }
                        ledger.set_activations(peak(&held));
                    }
                    _ => if let Some((bytes, _)) = held.pop() {
                        ledger.set_activations(peak(&held));
                        ledger.give_back(bytes);
                    }
                }
                ledger.measured(free, held.last().map_or(0, |(bytes, _)| *bytes));
                let weights = held.iter().map(|(bytes, _)| *bytes).sum::<u64>();
                prop_assert_eq!((ledger.weights(), ledger.activations()), (weights, peak(&held)));
                prop_assert!(weights + peak(&held) <= 1000, "{:?}", held);
            }
        }
    }
}
