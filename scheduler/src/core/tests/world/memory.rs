//! What models and batches really take on the workers' devices, and loads and unloads that end.

use super::*;

impl World {
    /// Bytes that a device really holds.
    pub(in crate::core::tests) fn held(&self, at: usize, device: usize) -> u64 {
        let here = self.nodes[at].residents.iter().filter(|((_, on), _)| *on == device);
        here.map(|(_, resident)| resident.bytes).sum()
    }

    /// What a row of a model takes.
    fn row_peak(&self, model: usize) -> u64 {
        self.peaks.get(model).copied().unwrap_or(0)
    }

    /// What a worker tells of a batch.
    pub(super) fn batch_peak(&self, model: usize, rows: usize, fate: Fate) -> u64 {
        let real = if matches!(fate, Fate::All(_)) { 0 } else { self.row_peak(model) * rows as u64 };
        real.max(self.peak_bytes)
    }

    fn room(&self, at: usize, device: usize) -> u64 {
        self.nodes[at].devices[device] - self.held(at, device)
    }

    pub(in crate::core::tests) fn rows_of(&self, batch: &Batch) -> usize {
        batch.attempts.iter().map(|attempt| self.sent[&ticket(attempt)].rows).sum()
    }

    /// What the largest warm-up batch takes that there is room for.
    pub(super) fn warm_up_peak(&self, at: usize, model: usize, device: usize) -> u64 {
        let (row, most) = (self.row_peak(model), self.specs[model].max_batch_rows as u64);
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
                let peak = sent.map(|replica| replica.peak.bytes).max().unwrap_or(0);
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
        let (peak, room) = (self.row_peak(model) * self.rows_of(batch) as u64, self.room(at, device));
        if matches!(fate, Fate::All(_)) || peak <= room {
            return fate;
        }
        let Some(running) = self.core.batches.get(&batch.batch) else { return Fate::All(Code::ResourceExhausted) };
        let known = self.core.replicas.get(running.replica).map_or(0, |replica| replica.peak.bytes);
        // A copy that the worker brought along and that is to go was never promised anything.
        let strays = self.held(at, device) > self.core.devices[running.device].ledger.weights();
        assert!(known < peak || strays, "w{at} d{device} has {room} bytes for a batch that is known to take {known}");
        Fate::All(Code::ResourceExhausted)
    }

    /// A worker answers its oldest load that is under way.
    pub(in crate::core::tests) fn loaded(&mut self, at: usize, ok: bool) -> bool {
        let under_way = self.nodes[at].residents.iter().filter(|(_, resident)| resident.state == ModelState::Loading);
        let Some((&(model, device), resident)) = under_way.min_by_key(|(_, resident)| resident.order) else {
            return false;
        };
        let order = resident.order;
        if ok {
            self.nodes[at].residents.get_mut(&(model, device)).unwrap().state = ModelState::Ready;
        } else {
            self.nodes[at].residents.remove(&(model, device));
        }
        let report = self.report(at, model, device, if ok { ModelState::Ready } else { ModelState::Failed }, order);
        self.tell(at, report);
        true
    }

    /// A worker has given back the memory of its oldest unload that is under way.
    pub(in crate::core::tests) fn unloaded(&mut self, at: usize) -> bool {
        let leaving = self.nodes[at].residents.iter().filter(|(_, resident)| resident.state == ModelState::Unloading);
        let Some((&(model, device), resident)) = leaving.min_by_key(|(_, resident)| resident.order) else {
            return false;
        };
        let order = resident.order;
        self.nodes[at].residents.remove(&(model, device));
        let report = self.report(at, model, device, ModelState::Unloaded, order);
        self.tell(at, report);
        true
    }

    /// All loads and unloads that are under way are answered.
    pub(in crate::core::tests) fn settle_loads(&mut self) {
        while (0..self.nodes.len()).any(|at| self.unloaded(at) || self.loaded(at, true)) {}
    }
}
