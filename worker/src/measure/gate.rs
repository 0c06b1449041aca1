//! Letting work go first.

use std::thread::park_timeout;
use std::time::{Duration, Instant};

/// Between slices, how long to wait before asking again whether there is work.
const PAUSE: Duration = Duration::from_millis(5);

/// Opens while the worker has no work, until its deadline.
pub(super) struct Gate<'a> {
    busy: &'a (dyn Fn() -> bool + Sync),
    deadline: Instant,
}

impl<'a> Gate<'a> {
    pub(super) fn new(busy: &'a (dyn Fn() -> bool + Sync), deadline: Instant) -> Gate<'a> {
        Gate { busy, deadline }
    }

    /// Waits until there is no work; false when the deadline came first.
    pub(super) fn pass(&self) -> bool {
        while (self.busy)() {
            if !self.pause(PAUSE) {
                return false;
            }
        }
        !self.over()
    }

    /// Sleeps for `pause`, but not past the deadline; false when that has come.
    pub(super) fn pause(&self, pause: Duration) -> bool {
        park_timeout(pause.min(self.deadline.saturating_duration_since(Instant::now())));
        !self.over()
    }

    fn over(&self) -> bool {
        Instant::now() >= self.deadline
    }
}
