//! The memory that a model's batches take beside its weights, as workers measure it.

use super::Core;

/// Rows of the warm-up's batches, as far as is known: so many are run whatever that takes.
const WARMED_UP: usize = 8;

/// Growth of a device's memory that batches have shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Peak {
    pub bytes: u64,
    /// Rows of the batch that showed it.
    rows: usize,
}

impl Peak {
    /// A batch of so many rows took so much. One of as many rows knows better, whether it took more or less: what a worker
    /// measures may hold what others took meanwhile.
    fn saw(&mut self, rows: usize, bytes: u64) {
        match rows >= self.rows {
            true => *self = Self { bytes, rows },
            false => self.bytes = self.bytes.max(bytes),
        }
    }
}

impl<T, L: Clone> Core<T, L> {
    /// What batches of a model take on such a device, as far as is known.
    pub(super) fn known_peak(&self, model: usize, device: usize) -> Peak {
        self.models[model].known(self.devices[device].class).map_or(Peak::default(), |known| known.peak)
    }

    /// A replica was warmed up, and its largest batch took so much.
    pub(super) fn learn_first_peak(&mut self, id: usize, bytes: u64) {
        let rows = self.models[self.replicas[id].model].max_rows().min(WARMED_UP);
        self.learn_peak(id, rows, bytes);
    }

    /// A batch of a replica took so much; 0 if that was not measured.
    pub(super) fn learn_peak(&mut self, id: usize, rows: usize, bytes: u64) {
        let replica = &mut self.replicas[id];
        let (model, device) = (replica.model, replica.device);
        // The weights were there meanwhile.
        let bytes = bytes.min(self.devices[device].ledger.beside_weights());
        let before = replica.peak;
        if bytes > 0 {
            replica.peak.saw(rows, bytes);
        }
        if replica.peak == before {
            return;
        }
        let class = self.devices[device].class;
        if let Some(known) = self.models[model].known.iter_mut().find(|known| known.class == class) {
            known.peak.saw(rows, bytes);
        }
        self.reserve_activations(device);
    }

    /// The device keeps room for the hungriest of its models' batches.
    pub(super) fn reserve_activations(&mut self, device: usize) {
        let peak = self.devices[device].residents.iter().map(|id| self.replicas[*id].peak.bytes).max();
        self.devices[device].ledger.set_activations(peak.unwrap_or(0));
    }
}
