//! What batches and models really take on the workers' devices.

use super::*;

impl World {
    /// Bytes that a device really holds.
    pub(in crate::core::tests) fn held(&self, at: usize, device: usize) -> u64 {
        let here = self.nodes[at].residents.iter().filter(|((_, on), _)| *on == device);
        here.map(|(_, resident)| resident.bytes).sum()
    }

    fn room(&self, at: usize, device: usize) -> u64 {
        self.nodes[at].devices[device] - self.held(at, device)
    }

    pub(in crate::core::tests) fn rows_of(&self, batch: &Batch) -> usize {
        batch.attempts.iter().map(|attempt| self.sent[&ticket(attempt)].rows).sum()
    }

    /// What the largest warm-up batch takes that there is room for.
    pub(super) fn warm_up_peak(&self, at: usize, model: usize, device: usize) -> u64 {
        let (row, most) = (self.peaks[model], self.specs[model].max_batch_rows as u64);
        (0..=most).map(|rows| rows * row).take_while(|peak| *peak <= self.room(at, device)).last().unwrap_or(0)
    }

    /// What becomes of a batch where there may be no room for it: that, the scheduler may not have known.
    pub(super) fn in_memory(&self, at: usize, batch: &Batch, fate: Fate) -> Fate {
        let (model, device) = (self.number(&batch.model), device_number(&batch.device));
        let (peak, room) = (self.peaks[model] * self.rows_of(batch) as u64, self.room(at, device));
        if matches!(fate, Fate::All(_)) || peak <= room {
            return fate;
        }
        let known = self.core.batches.get(&batch.batch).and_then(|running| self.core.replicas.get(running.replica));
        let known = known.map_or(0, |replica| replica.peak);
        assert!(known < peak, "w{at} d{device} was promised {room} bytes for a batch that is known to take {known}");
        Fate::All(Code::ResourceExhausted)
    }
}
