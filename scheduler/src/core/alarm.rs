//! Alarms: when busy devices take their next batch. A device that was given one only when its last had been answered, or
//! when something else happened to come in, would idle for up to a round trip after each.

use std::collections::BTreeSet;

use super::{Core, Nanos};

/// Busy devices, by the time from which on they take a batch more.
pub(super) type Alarms = BTreeSet<(Nanos, usize)>;

impl<T, L: Clone> Core<T, L> {
    /// When [`Core::wake`] is to be called next; never, as long as nothing waits.
    pub fn next_alarm(&self) -> Option<Nanos> {
        // What is bound to replicas is not counted.
        if self.queued_work == 0 && !self.binds {
            return None;
        }
        self.alarms.first().map(|(at, _)| *at)
    }

    /// Devices that will soon be idle take batches: they will be there by then.
    pub fn wake(&mut self, now: Nanos) {
        while let Some((at, device)) = self.alarms.first().copied()
            && at <= now
        {
            self.clear_alarm(device);
            self.fill(now, device);
        }
        self.take_turns(now);
    }

    /// A device's bookings have changed.
    pub(super) fn set_alarm(&mut self, now: Nanos, device: usize) {
        self.clear_alarm(device);
        let known = &mut self.devices[device];
        let lead = self.workers[known.worker].lead;
        let at = known.booked_until.saturating_sub(lead);
        // An answer without a delay is there as soon as the device is idle.
        if lead > 0 && at > now && !known.batches.is_empty() {
            known.alarm = Some(at);
            self.alarms.insert((at, device));
        }
    }

    pub(super) fn clear_alarm(&mut self, device: usize) {
        if let Some(at) = self.devices[device].alarm.take() {
            self.alarms.remove(&(at, device));
        }
    }
}
