//! Predicted work that waits: by model, by device, in all. Kept with every change, so that no decision has to add it up.

use super::{Core, Nanos, curve::Line};

/// Holders among which a model's waiting work is divided. Of more, each has next to nothing.
const HOLDERS: usize = 16;

impl<T, L: Clone> Core<T, L> {
    /// A model's queue has changed.
    pub(super) fn requeued(&mut self, index: usize) {
        self.unshare(index);
        let model = &mut self.models[index];
        let Line { base, per_row, .. } = model.line();
        let (rows, most) = (model.queue.rows(), model.max_rows());
        let batch = rows.min(most).max(1) as f64;
        let work = ((base + per_row * batch) / batch * rows as f64) as Nanos;
        self.queued_work = self.queued_work - model.work + work;
        model.work = work;
        self.share_work(index);
    }

    /// Takes a model's waiting work off its holders, before they change.
    pub(super) fn unshare(&mut self, index: usize) {
        let model = &mut self.models[index];
        if let Some(due) = model.homeless.take() {
            self.homeless.remove(&(due, index));
        }
        let share = std::mem::take(&mut model.share);
        if share > 0 {
            for id in &model.replicas {
                let device = &mut self.devices[self.replicas[*id].device];
                device.queued -= share;
            }
        }
    }

    /// Divides a model's waiting work among its holders; without any, the model is homeless.
    pub(super) fn share_work(&mut self, index: usize) {
        let model = &mut self.models[index];
        if model.replicas.is_empty() {
            model.homeless = model.queue.head().map(|head| head.due);
            self.homeless.extend(model.homeless.map(|due| (due, index)));
            return;
        }
        if model.replicas.len() > HOLDERS {
            return;
        }
        model.share = model.work / model.replicas.len() as Nanos;
        for id in &model.replicas {
            self.devices[self.replicas[*id].device].queued += model.share;
        }
    }
}
