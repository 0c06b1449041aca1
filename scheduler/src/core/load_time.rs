//! Predicted time of bringing a model to a device.

use super::{Nanos, fade};

/// Time without a load in which half of what the last took beyond the promise is forgotten.
const HALF_LIFE: Nanos = 30_000_000_000;

/// What was promised, and what the last load took.
#[derive(Clone, Copy, Debug)]
pub(super) struct LoadTime {
    promised: Nanos,
    took: Nanos,
    seen: Nanos,
}

impl LoadTime {
    /// By the model's bytes and the disk's speed; 0 where that is not known.
    pub(super) fn new(promised: Nanos) -> Self {
        Self { promised, took: promised, seen: 0 }
    }

    /// What was expected before the first.
    pub(super) fn promised(&self) -> Nanos {
        self.promised
    }

    /// A load took so long.
    pub(super) fn observe(&mut self, now: Nanos, took: Nanos) {
        (self.took, self.seen) = (took, now);
    }

    /// What the next is expected to take.
    pub(super) fn predict(&self, now: Nanos) -> Nanos {
        let beyond = self.took.saturating_sub(self.promised);
        if beyond == 0 {
            return self.took;
        }
        let left = fade::left(now.saturating_sub(self.seen), HALF_LIFE);
        self.promised.saturating_add((beyond as f64 * left) as Nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    #[test]
    fn one_slow_load_is_forgotten_and_a_fast_one_is_not() {
        let mut load = LoadTime::new(3 * SECOND);
        load.observe(100 * SECOND, 63 * SECOND);
        assert_eq!([100, 110, 140, 170].map(|at| load.predict(at * SECOND) / SECOND), [63, 63, 33, 18]);
        load.observe(200 * SECOND, SECOND);
        assert_eq!(load.predict(2000 * SECOND), SECOND);
        assert_eq!(LoadTime::new(7).predict(9), 7);
    }
}
