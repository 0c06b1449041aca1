//! Whether a model answers, now or after a load, and if not, why no device takes it.

use super::{Core, ModelState, Nanos, filter};

impl<T, L: Clone> Core<T, L> {
    /// Whether a model can answer, now or after a load.
    pub(super) fn has_hope(&mut self, now: Nanos, index: usize) -> bool {
        let alive = |id: &usize| {
            let worker = &self.workers[self.devices[self.replicas[*id].device].worker];
            use super::WorkerState::{Joining, Ready, Suspect};
            matches!(worker.state, Ready | Suspect | Joining) && worker.cordon != super::Cordon::Draining
        };
        // One that is emptied serves it until it is elsewhere.
        let serves = |id: &usize| self.replicas[*id].serves() && self.runs_last(*id) && self.moves(index);
        if self.models[index].replicas.iter().any(|id| alive(id) || serves(id)) {
            return true;
        }
        self.loadable(now, index)
    }

    /// Whether some device could load it now.
    pub(super) fn loadable(&mut self, now: Nanos, index: usize) -> bool {
        let suitable = self.suitable(index);
        let failed = |device: usize| {
            self.models[index].failures.iter().any(|failure| failure.device == device && failure.retry_at > now)
        };
        self.models[index].path.is_some()
            && suitable.iter().any(|&device| self.has_room(index, device) && !failed(device))
    }

    /// Why a device takes no new copy of a model, if it does not.
    pub(super) fn refusal(&self, index: usize, id: usize) -> Option<String> {
        let (model, device) = (&self.models[index], &self.devices[id]);
        let spec = model.spec.as_ref()?;
        if let Err(unfit) = filter::check(spec, &self.workers[device.worker], device) {
            return Some(unfit.to_string());
        }
        if let Some(failure) = model.failures.iter().find(|failure| failure.device == id) {
            return Some(failure.reason.clone());
        }
        (!self.has_room(index, id)).then(|| {
            let ((weights, peak), room) = (self.needs(index, id), self.most_room(index, id));
            let needed = weights.saturating_add(peak);
            let room = room.saturating_add(peak);
            format!("the model needs {needed} bytes, {room} can be had beside what is pinned or kept (min_replicas)")
        })
    }

    /// A model's state, as its replicas and the cluster have it.
    pub(super) fn model_state(&self, index: usize) -> ModelState {
        let model = &self.models[index];
        let any = |state| model.replicas.iter().any(|id| self.replicas[*id].state == state);
        let goes_on = |id: usize| self.stays(id) || (self.runs_last(id) && self.moves(index));
        let serves = |id: &usize| self.replicas[*id].serves() && goes_on(*id);
        if model.replicas.iter().any(serves) {
            return ModelState::Ready;
        }
        if !model.wanted {
            return ModelState::Unloaded;
        }
        let again = || self.unplaced.contains(&index) && self.models[index].leaving > 0;
        if any(ModelState::Loading)
            || (model.spec.is_none() && (!model.asked.is_empty() || self.unasked.contains(&index)))
            || again()
        {
            return ModelState::Loading;
        }
        if model.spec.is_none() {
            return if model.unreadable.is_empty() { ModelState::Unloaded } else { ModelState::Failed };
        };
        match self.devices.iter().any(|(id, _)| self.refusal(index, id).is_none()) {
            true => ModelState::Cold,
            false if self.workers.iter().any(super::cluster::Worker::is_connected) => ModelState::Failed,
            false => ModelState::Unloaded,
        }
    }
}
