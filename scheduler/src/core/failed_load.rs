//! Loads that failed: why, how often, and when the device is tried again.

use std::time::Duration;

use super::{Core, Nanos, nanos};

/// Wait before a load that failed is tried again on the same device; doubles up to the longest.
const RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// A load that failed.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub device: usize,
    pub worker: usize,
    pub reason: String,
    pub times: u32,
    pub retry_at: Nanos,
}

impl<T, L: Clone> Core<T, L> {
    pub(super) fn load_failed(&mut self, now: Nanos, id: usize, reason: String) {
        let (index, device) = (self.replicas[id].model, self.replicas[id].device);
        self.forget_replica(now, id);
        self.note_failure(now, index, device, reason);
    }

    /// The device is not tried again for this model before some time has passed.
    pub(super) fn note_failure(&mut self, now: Nanos, index: usize, device: usize, reason: String) {
        let worker = self.devices[device].worker;
        let failures = &mut self.models[index].failures;
        let times = failures.iter().find(|failure| failure.device == device).map_or(0, |failure| failure.times) + 1;
        failures.retain(|failure| failure.device != device);
        let wait = RETRY.saturating_mul(1 << (times - 1).min(16)).min(LONGEST_RETRY);
        failures.push(Failure { device, worker, reason, times, retry_at: now.saturating_add(nanos(wait)) });
        self.unplaced.insert(index);
    }
}
