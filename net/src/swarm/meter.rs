//! How fast bytes pass one place.

use std::time::Duration;

/// A rate is taken over no less than this: what a socket's buffer hands over at once says nothing.
const SHORTEST: Duration = Duration::from_millis(5);
/// Part of the peak that each new measurement leaves of it.
const DECAY: f64 = 0.98;
/// Weight of the newest measurement in the mean.
const NEWEST: f64 = 0.3;

/// Bytes a second: the best lately, and the mean.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meter {
    since: Option<Duration>,
    bytes: u64,
    peak: f64,
    mean: f64,
}

impl Meter {
    /// So many bytes passed since the last call. Each measurement is over `span` bytes or more.
    pub(super) fn add(&mut self, now: Duration, bytes: u64, span: u64) {
        let Some(since) = self.since else {
            self.since = Some(now);
            return;
        };
        self.bytes = self.bytes.saturating_add(bytes);
        let took = now.saturating_sub(since);
        if self.bytes < span || took < SHORTEST {
            return;
        }
        let rate = self.bytes as f64 / took.as_secs_f64();
        self.peak = rate.max(self.peak * DECAY);
        self.mean = if self.mean == 0.0 { rate } else { self.mean + NEWEST * (rate - self.mean) };
        (self.since, self.bytes) = (Some(now), 0);
    }

    /// Bytes a second at best; `None` until the first measurement.
    pub(super) fn peak(&self) -> Option<f64> {
        (self.peak > 0.0).then_some(self.peak)
    }

    /// Bytes a second of late; `None` until the first measurement.
    pub(super) fn mean(&self) -> Option<f64> {
        (self.mean > 0.0).then_some(self.mean)
    }
}
