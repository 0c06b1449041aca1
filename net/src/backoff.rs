//! How long to wait before the next try.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Exponential back-off with jitter: each wait is drawn evenly from half of the ceiling to the ceiling, so that
/// workers that lost one scheduler do not come back in step.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    ceiling: Duration,
    random: StdRng,
}

impl Backoff {
    /// Waits of about `first` at first, doubling up to `longest`; equal seeds give equal waits.
    pub fn new(first: Duration, longest: Duration, seed: u64) -> Self {
        Self { first, longest, ceiling: first, random: StdRng::seed_from_u64(seed) }
    }

    /// The next wait.
    pub fn wait(&mut self) -> Duration {
        let wait = self.ceiling.mul_f64(self.random.random_range(0.5..1.0));
        self.ceiling = (self.ceiling * 2).min(self.longest);
        wait
    }

    /// Something worked: start small again.
    pub fn reset(&mut self) {
        self.ceiling = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_longest_and_start_small_again() {
        let (first, longest) = (Duration::from_millis(50), Duration::from_secs(2));
        let mut backoff = Backoff::new(first, longest, 7);
        let waits: Vec<Duration> = (0..12).map(|_| backoff.wait()).collect();
        assert!(waits[0] >= first / 2 && waits[0] <= first);
        assert!(waits[11] >= longest / 2 && waits.iter().all(|w| *w <= longest));
        backoff.reset();
        assert!(backoff.wait() <= first);
        let again: Vec<Duration> = (0..12).scan(Backoff::new(first, longest, 7), |b, _| Some(b.wait())).collect();
        assert_eq!(waits, again);
    }
}
