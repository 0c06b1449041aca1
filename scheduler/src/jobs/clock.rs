//! The time that records bear.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::terms::Millis;

/// The machine's time as it was at the start, and what has passed since: setting the clock moves no deadline. It is never before
/// the last record, or jobs would wait until a clock that was set back is there again.
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
    /// The same, but not before this time.
    pub(super) fn not_before(self, time: Millis) -> Self {
        Self { unix: self.unix.max(time), ..self }
    }

    /// Milliseconds since 1970.
    pub(super) fn now(&self) -> Millis {
        self.unix.saturating_add(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(0))
    }
}
