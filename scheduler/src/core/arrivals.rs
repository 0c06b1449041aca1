//! How often a model is asked, and how urgently.

use super::{Nanos, order::WEIGHTS};

/// Time constant of the arrival rate: 3 s.
const RATE: f64 = 3e9;
/// How much of its weight an arrival brings to the mean.
const WEIGHT: f64 = 0.1;
/// The weight of what says nothing of its priority.
pub(super) const NORMAL: f64 = WEIGHTS[3];

/// A model's arrivals, smoothed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrivals {
    /// Arrivals a nanosecond, as of `at`.
    rate: f64,
    at: Nanos,
    weight: f64,
}

impl Default for Arrivals {
    fn default() -> Self {
        Self { rate: 0.0, at: 0, weight: NORMAL }
    }
}

impl Arrivals {
    /// A request of this priority arrives.
    pub(super) fn arrived(&mut self, now: Nanos, priority: u8) {
        self.rate = self.rate_at(now) + 1.0 / RATE;
        self.at = now;
        self.weight += WEIGHT * (WEIGHTS[priority as usize] - self.weight);
    }

    /// Arrivals a nanosecond, smoothed over three seconds.
    pub(super) fn rate_at(&self, now: Nanos) -> f64 {
        self.rate * (-(now.saturating_sub(self.at) as f64) / RATE).exp()
    }

    /// Mean weight of the priorities of the last ten or so.
    pub(super) fn weight(&self) -> f64 {
        self.weight
    }
}
