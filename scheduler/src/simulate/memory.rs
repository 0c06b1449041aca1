//! What the simulated devices really hold, in bytes: a core that promises more than there is makes a mistake.

use std::collections::BTreeMap;

use crate::core::ModelState;

/// Worker, device and model.
type Place = (usize, usize, usize);

/// A model on a device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resident {
    bytes: u64,
    /// Of the newest load or unload.
    pub order: u64,
    pub state: ModelState,
}

#[derive(Debug, Default)]
pub(super) struct Memory(BTreeMap<Place, Resident>);

impl Memory {
    pub(super) fn held(&self, worker: usize, device: usize) -> u64 {
        let here = self.0.range((worker, device, 0)..=(worker, device, usize::MAX));
        here.map(|(_, resident)| resident.bytes).sum()
    }

    /// What a worker holds: device, model, and how far it is.
    pub(super) fn residents(&self, worker: usize) -> Vec<(usize, usize, Resident)> {
        let here = self.0.range((worker, 0, 0)..=(worker, usize::MAX, usize::MAX));
        here.map(|(&(_, device, model), &resident)| (device, model, resident)).collect()
    }

    /// A load is to begin. Says whether the model is there already.
    pub(super) fn load(&mut self, place: Place, bytes: u64, most: u64, order: u64) -> bool {
        let before = self.0.get(&place).map(|resident| resident.state);
        let state = if before == Some(ModelState::Ready) { ModelState::Ready } else { ModelState::Loading };
        self.0.insert(place, Resident { bytes, order, state });
        let held = self.held(place.0, place.1);
        assert!(held <= most, "device {} of worker {} is to hold {held} of {most} bytes", place.1, place.0);
        state == ModelState::Ready
    }

    /// A load has ended. Says whether it was the newest order.
    pub(super) fn loaded(&mut self, place: Place, order: u64) -> bool {
        let resident = self.0.get_mut(&place).filter(|resident| resident.order == order);
        resident.map(|resident| resident.state = ModelState::Ready).is_some()
    }

    /// A model is to go.
    pub(super) fn unload(&mut self, place: Place, order: u64) {
        if let Some(resident) = self.0.get_mut(&place) {
            (resident.order, resident.state) = (order, ModelState::Unloading);
        }
    }

    /// A model's memory is free, unless it was asked for again. Says whether it is not there.
    pub(super) fn unloaded(&mut self, place: Place, order: u64) -> bool {
        if self.0.get(&place).is_some_and(|resident| resident.order == order) {
            self.0.remove(&place);
        }
        !self.0.contains_key(&place)
    }

    /// A worker's process has ended.
    pub(super) fn lost(&mut self, worker: usize) {
        self.0.retain(|(of, ..), _| *of != worker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "is to hold 101 of 100 bytes")]
    fn a_promise_of_more_than_there_is_is_noticed() {
        let mut memory = Memory::default();
        memory.load((0, 0, 1), 60, 100, 1);
        memory.load((0, 1, 2), 60, 100, 2);
        memory.unload((0, 0, 1), 3);
        assert!(memory.unloaded((0, 0, 1), 3));
        memory.load((0, 0, 2), 60, 100, 4);
        assert!(memory.loaded((0, 0, 2), 4) && memory.load((0, 0, 2), 60, 100, 5), "it is there already");
        assert!(!memory.unloaded((0, 0, 2), 3) && !memory.loaded((0, 0, 2), 4), "of an older order");
        assert_eq!((memory.held(0, 0), memory.residents(0).len()), (60, 2));
        memory.load((0, 0, 3), 41, 100, 6);
    }
}
