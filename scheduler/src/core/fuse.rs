//! Whether a step costs less where a model runs than apart from it.

use super::{Core, Nanos};

/// The kind of devices whose processor is also the step's.
const PROCESSOR: &str = "cpu";

impl<T, L: Clone> Core<T, L> {
    /// Where a model runs on processors nothing is lost, and the way to and fro is saved. An accelerator stands idle while a step
    /// runs beside it: there that pays if the step takes no longer than the way.
    pub(crate) fn fuses(&self, step: &str, model: &str) -> bool {
        let (Some(&step), Some(&model)) = (self.model_names.get(step), self.model_names.get(model)) else {
            return false;
        };
        let Some(spec) = &self.models[model].spec else { return false };
        let pays = |id: &usize| {
            let device = self.replicas[*id].device;
            let worker = &self.workers[self.devices[device].worker];
            let way = (worker.telemetry.round_trip_p50_seconds.max(0.0) * 1e9) as Nanos;
            self.devices[device].info.kind == PROCESSOR || self.step_takes(step).is_some_and(|takes| takes <= way)
        };
        !spec.inline && spec.generator.is_none() && self.models[model].replicas.iter().all(pays)
    }

    /// Predicted for one row, where it is soonest.
    fn step_takes(&self, step: usize) -> Option<Nanos> {
        let replicas = self.models[step].replicas.iter();
        replicas.map(|id| self.predicted_line(step, self.replicas[*id].device).predict(1)).min()
    }
}
