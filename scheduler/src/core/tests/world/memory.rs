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
        let (row, most) = (self.peaks.get(model).copied().unwrap_or(0), self.specs[model].max_batch_rows as u64);
        (0..=most).map(|rows| rows * row).take_while(|peak| *peak <= self.room(at, device)).last().unwrap_or(0)
    }

    /// What a device really holds and the batches of its models, as far as their growth is known, fit in its memory.
    pub(super) fn check_memory(&self) {
        for (at, node) in self.nodes.iter().enumerate() {
            let Some(worker) = self.core.worker_index(&node.name).map(|worker| &self.core.workers[worker]) else {
                continue;
            };
            for (device, id) in worker.devices.iter().enumerate() {
                let (known, held) = (&self.core.devices[*id], self.held(at, device));
                // What is not sent yet waits for its memory; what the worker brought along and is to go was not promised.
                let sent = known.residents.iter().map(|id| &self.core.replicas[*id]).filter(|replica| replica.sent);
                let peak = sent.map(|replica| replica.peak).max().unwrap_or(0);
                let strays = held > known.ledger.weights();
                assert!(
                    strays || held + peak <= node.devices[device],
                    "w{at} d{device} holds {held} beside {peak} bytes"
                );
            }
        }
    }

    /// What becomes of a batch where there may be no room for it: that, the scheduler may not have known.
    pub(super) fn in_memory(&self, at: usize, batch: &Batch, fate: Fate) -> Fate {
        let (model, device) = (self.number(&batch.model), device_number(&batch.device));
        let (peak, room) = (self.peaks[model] * self.rows_of(batch) as u64, self.room(at, device));
        if matches!(fate, Fate::All(_)) || peak <= room {
            return fate;
        }
        let Some(running) = self.core.batches.get(&batch.batch) else { return Fate::All(Code::ResourceExhausted) };
        let known = self.core.replicas.get(running.replica).map_or(0, |replica| replica.peak);
        // A copy that the worker brought along and that is to go was never promised anything.
        let strays = self.held(at, device) > self.core.devices[running.device].ledger.weights();
        assert!(known < peak || strays, "w{at} d{device} has {room} bytes for a batch that is known to take {known}");
        Fate::All(Code::ResourceExhausted)
    }
}
