//! The time that records bear.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::terms::Millis;

/// The machine's time as it was at the start, and what has passed since: setting the clock moves no deadline.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    started: Instant,
    unix: Millis,
}

impl Default for Clock {
    fn default() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), unix: u64::try_from(unix.as_millis()).unwrap_or(0) }
    }
}

impl Clock {
    /// Milliseconds since 1970.
    pub(super) fn now(&self) -> Millis {
        self.unix.saturating_add(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(0))
    }
}
