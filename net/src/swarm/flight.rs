//! A chunk on its way.

use std::time::Duration;

use super::PeerId;

/// One chunk as one peer sends it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flight {
    pub(super) peer: PeerId,
    /// When it was wanted.
    pub(super) since: Duration,
    /// Seconds that it was predicted to take.
    pub(super) expected: f64,
    /// Bytes of it that are here.
    pub(super) here: u64,
    /// When its first bytes came, and how many.
    first: Option<(Duration, u64)>,
    /// Bytes that had come from all peers by then.
    all_before: u64,
}

impl Flight {
    pub(super) fn new(now: Duration, peer: PeerId, expected: f64) -> Self {
        Self { peer, since: now, expected, here: 0, first: None, all_before: 0 }
    }

    /// More of it came; `all` is what has come from all peers, with this.
    pub(super) fn came(&mut self, now: Duration, bytes: u64, all: u64) {
        self.here = self.here.saturating_add(bytes);
        if self.first.is_none() {
            (self.first, self.all_before) = (Some((now, bytes)), all);
        }
    }

    /// Seconds from the want to the first bytes; `None` before they came.
    pub(super) fn reach(&self) -> Option<f64> {
        self.first.map(|(first, _)| first.saturating_sub(self.since).as_secs_f64())
    }

    /// Bytes a second that it came at, and whether others sent little meanwhile. `all` is as in `came`.
    pub(super) fn rate(&self, now: Duration, wire_bytes: u64, all: u64) -> (f64, bool) {
        let since = |then: Duration| now.saturating_sub(then).as_secs_f64().max(1e-6);
        if let Some((first, bytes)) = self.first {
            let rest = wire_bytes.saturating_sub(bytes);
            if rest >= wire_bytes / 2 && now > first {
                let alone = rest as f64 >= 0.8 * all.saturating_sub(self.all_before) as f64;
                return (rest as f64 / since(first), alone);
            }
        }
        // It came at one blow: all that is known is when it was wanted.
        (wire_bytes as f64 / since(self.since), false)
    }

    /// Whether it takes twice as long as it was predicted to.
    pub(super) fn late(&self, now: Duration) -> bool {
        now.saturating_sub(self.since).as_secs_f64() > 2.0 * self.expected
    }
}
