//! Where a copy of a model goes: the device that passes the filters, has room, and would answer first.

use std::sync::Arc;

use super::{Core, Nanos, filter};

/// Devices on which room is looked for, the best first.
const TRIES: usize = 4;
/// Devices that are looked at for one copy.
pub(super) const TARGETS: usize = 32;

/// Whether a copy may push others out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Free,
    Evict,
}

/// A device on which a copy found no room: what takes as much finds none there either, for the same input.
#[derive(Clone, Copy, Debug)]
pub(super) struct Full {
    device: usize,
    /// Bytes of weights and of batches.
    needs: (u64, u64),
    /// There will be room when what runs there has ended.
    once_idle: bool,
}

impl Full {
    /// Until what runs there has ended.
    pub(super) fn until_idle(device: usize, needs: (u64, u64)) -> Self {
        Self { device, needs, once_idle: true }
    }

    fn holds_for(&self, device: usize, (weights, batches): (u64, u64)) -> bool {
        self.device == device && weights >= self.needs.0 && batches >= self.needs.1
    }
}

impl<T, L: Clone> Core<T, L> {
    /// The device with a free copy engine that would answer first with a new copy.
    pub(super) fn target(&mut self, now: Nanos, index: usize, room: Room, full: &mut Vec<Full>) -> Option<usize> {
        let suitable = self.suitable(index);
        let bytes = self.models[index].spec.as_ref()?.memory_bytes;
        let from = if suitable.len() > TARGETS { self.turn(suitable.len()) } else { 0 };
        let looked_at = suitable[from..].iter().chain(&suitable[..from]).take(TARGETS).copied();
        let holders = self.holders(index);
        let is_on = |device| match &holders {
            Some(devices) => devices.contains(&device),
            None => self.is_on(index, device),
        };
        let fits = looked_at.filter(|&device| {
            let at = &self.devices[device];
            at.loading.is_none()
                && !at.stalled
                && (if room == Room::Free { self.fits_now(index, device) } else { at.ledger.could_hold(bytes) })
                && !is_on(device)
                && !self.is_claimed(now, device, index)
                && self.models[index].failures.iter().all(|f| f.device != device || f.retry_at <= now)
        });
        let ranked = fits.map(|device| {
            let work = self.devices[device].load(now);
            let service = self.predicted_line(index, device).predict(1);
            ((work.max(self.load_time(index, device)).saturating_add(service), work), device)
        });
        let mut ranked: Vec<_> = ranked.collect();
        ranked.sort_unstable();
        // What would have to leave is added up for the best alone, not for all that were looked at.
        for (_, device) in ranked.into_iter().take(TRIES) {
            let needs = self.needs(index, device);
            let found = full.iter().find(|full| full.holds_for(device, needs)).map(|full| full.once_idle);
            match found {
                Some(false) => {}
                _ if room == Room::Evict && !self.has_room(index, device) => {
                    full.push(Full { device, needs, once_idle: false });
                }
                Some(true) => return None,
                None => return Some(device),
            }
        }
        None
    }

    /// Whether a device holds a model, or still unloads it.
    pub(super) fn is_on(&self, index: usize, device: usize) -> bool {
        self.devices[device].residents.iter().any(|id| self.replicas[*id].model == index)
    }

    /// The devices for which [`Core::is_on`] says so, where they are few: else each device is asked.
    fn holders(&self, index: usize) -> Option<Vec<usize>> {
        let model = &self.models[index];
        let few = model.leaving == 0 && model.replicas.len() <= TARGETS;
        few.then(|| model.replicas.iter().map(|id| self.replicas[*id].device).collect())
    }

    /// A place in a list that moves on with every call.
    pub(super) fn turn(&mut self, len: usize) -> usize {
        self.cursor = self.cursor.wrapping_add(TARGETS);
        self.cursor % len
    }

    /// Devices that pass a model's hard filters, computed once for all models with the same needs.
    pub(super) fn suitable(&mut self, index: usize) -> Arc<[usize]> {
        let model = &self.models[index];
        let Some(spec) = model.spec.clone() else { return Arc::new([]) };
        let simulated = spec.family == filter::SIMULATED;
        let same = |(needs, of, _): &&(_, bool, Arc<[usize]>)| *needs == spec.policy.requirements && *of == simulated;
        if let Some((_, _, devices)) = self.suitable.iter().find(same) {
            return devices.clone();
        }
        let devices: Arc<[usize]> = self
            .devices
            .iter()
            .filter(|(_, device)| {
                // Whether it is large enough is another question for each model.
                let unfit = filter::check(&spec, &self.workers[device.worker], device).err();
                unfit.is_none_or(|unfit| matches!(unfit, filter::Unfit::Memory { .. }))
            })
            .map(|(id, _)| id)
            .collect();
        self.suitable.push((spec.policy.requirements.clone(), simulated, devices.clone()));
        devices
    }

    /// A worker came, went or changed: what suits whom is to be seen again.
    pub(super) fn cluster_changed(&mut self) {
        self.suitable.clear();
        self.forget_moves();
        self.changed = true;
    }
}
