//! When what waits will be done: what a queue's limit is held against, and when a refused client is to come again.

use std::time::Duration;

use super::{Core, Nanos, cost::SAMPLE};

/// Shortest and longest time after which a refused client is told to come again.
const RETRY_AFTER: (f64, f64) = (0.001, 60.0);

impl<T, L: Clone> Core<T, L> {
    /// Predicted time until the first holder of a model is done with all that waits for it, whatever model it is for.
    pub(super) fn queue_time(&self, now: Nanos, index: usize) -> Nanos {
        let holders = self.takers(index).map(|id| self.drained_in(now, id));
        holders.min().unwrap_or(self.models[index].work)
    }

    pub(super) fn drain_after(&self, now: Nanos, index: usize) -> Duration {
        let seconds = self.queue_time(now, index) as f64 / 1e9;
        Duration::from_secs_f64(seconds.clamp(RETRY_AFTER.0, RETRY_AFTER.1))
    }

    /// Replicas whose devices take work.
    fn takers(&self, index: usize) -> impl Iterator<Item = usize> {
        let replicas = self.models[index].replicas.iter().take(SAMPLE).copied();
        replicas.filter(|id| self.takes_part(self.replicas[*id].device))
    }

    /// Predicted time until a replica's device is done with what it runs and all that waits for it.
    fn drained_in(&self, now: Nanos, id: usize) -> Nanos {
        let device = &self.devices[self.replicas[id].device];
        let model = &self.models[self.replicas[id].model];
        // Of a model with many holders nothing is counted on each.
        let own = if model.share == 0 { model.work / model.replicas.len().max(1) as Nanos } else { 0 };
        let bound = device.residents.iter().map(|id| self.bound_work(*id));
        bound.fold(device.load(now).saturating_add(own), Nanos::saturating_add)
    }

    /// Predicted time of what a balancer has bound to a replica.
    fn bound_work(&self, id: usize) -> Nanos {
        let replica = &self.replicas[id];
        let rows = replica.bound.as_ref().map_or(0, |queue| queue.rows());
        if rows == 0 { 0 } else { replica.line(0).drain(rows, self.models[replica.model].max_rows()) }
    }
}
