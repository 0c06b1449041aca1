//! How many retries a cluster may bear: a share of its first attempts.

use std::time::Duration;

use orion_proto::{Code, Error};

/// Parts of the window that first attempts are counted in.
const BUCKETS: usize = 10;
/// One more: a retry counts until all of the oldest part has left the window.
const KEPT: usize = BUCKETS + 1;

/// A budget of retries, as Finagle's: in the window that ends with any retry, retries never exceed the share of the
/// first attempts plus the reserve. So a cluster that fails is not drowned in retries, and a quiet one can still retry.
/// Times are nanoseconds of any one clock.
#[derive(Debug)]
pub struct RetryBudget {
    share: f64,
    /// Retries that a whole window may have without any first attempt.
    reserve: f64,
    bucket_nanos: u64,
    /// Number of the newest bucket since time 0.
    newest: u64,
    buckets: [Bucket; KEPT],
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    attempts: u32,
    retries: u32,
}

impl Default for RetryBudget {
    /// A fifth of the first attempts and 10 retries a second, over 10 s.
    fn default() -> Self {
        Self::over(0.2, 10.0, 10_000_000_000)
    }
}

impl RetryBudget {
    /// For finding out which request of a failed batch is to blame: three times the first attempts, and 10 a second. So
    /// much does halving take where one in ten is bad, in batches of 32. It is apart from the retries, so that bad requests
    /// cannot use those up.
    pub fn for_blame() -> Self {
        Self::over(3.0, 10.0, 10_000_000_000)
    }
}

impl RetryBudget {
    /// Allows retries of `share` of the first attempts (0.2: one to five), plus `reserve_per_second`, over a window of
    /// `ttl`.
    ///
    /// # Errors
    /// INVALID_ARGUMENT if a number is negative or not finite, or `ttl` is not between 1 ms and an hour.
    pub fn new(share: f64, reserve_per_second: f64, ttl: Duration) -> Result<Self, Error> {
        for (name, value) in [("share", share), ("reserve", reserve_per_second)] {
            if !value.is_finite() || value < 0.0 {
                let message = format!("the retry budget's {name} is {value}: it must be a number of 0 or more");
                return Err(Error::new(Code::InvalidArgument, message));
            }
        }
        if !(Duration::from_millis(1)..=Duration::from_secs(3600)).contains(&ttl) {
            let message = format!("the retry budget's window is {ttl:?}: it must be from 1ms to 3600s");
            return Err(Error::new(Code::InvalidArgument, message));
        }
        Ok(Self::over(share, reserve_per_second, ttl.as_nanos() as u64))
    }

    fn over(share: f64, reserve_per_second: f64, ttl: u64) -> Self {
        let reserve = reserve_per_second * (ttl as f64 / 1e9);
        let buckets = [Bucket::default(); KEPT];
        Self { share, reserve, bucket_nanos: ttl.div_ceil(BUCKETS as u64), newest: 0, buckets }
    }

    /// A request is tried for the first time.
    pub fn deposit(&mut self, now: u64) {
        let bucket = self.bucket(now);
        bucket.attempts = bucket.attempts.saturating_add(1);
    }

    /// Whether a request may be tried again now; if so, the retry is counted.
    pub fn withdraw(&mut self, now: u64) -> bool {
        self.withdraw_all(now, 1)
    }

    /// Whether so many requests may be tried again now, all of them or none.
    pub fn withdraw_all(&mut self, now: u64, requests: usize) -> bool {
        let wanted = u32::try_from(requests).unwrap_or(u32::MAX);
        self.bucket(now);
        let oldest = ((self.newest + 1) % KEPT as u64) as usize;
        let retries: u64 = self.buckets.iter().map(|bucket| u64::from(bucket.retries)).sum();
        let attempts: u64 = self.buckets.iter().map(|bucket| u64::from(bucket.attempts)).sum();
        // The oldest bucket may lie outside the window in part: its retries count, its attempts do not.
        let attempts = attempts - u64::from(self.buckets[oldest].attempts);
        let allowed = (retries + u64::from(wanted)) as f64 <= self.share * attempts as f64 + self.reserve;
        if allowed {
            let bucket = self.bucket(now);
            bucket.retries = bucket.retries.saturating_add(wanted);
        }
        allowed
    }

    /// The newest bucket, after those that left the window were emptied; a time that went back counts as the newest.
    fn bucket(&mut self, now: u64) -> &mut Bucket {
        let number = (now / self.bucket_nanos).max(self.newest);
        for passed in 0..(number - self.newest).min(KEPT as u64) {
            self.buckets[((number - passed) % KEPT as u64) as usize] = Bucket::default();
        }
        self.newest = number;
        &mut self.buckets[(number % KEPT as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TTL: u64 = 10_000_000_000;

    proptest! {
        #[test]
        fn retries_never_exceed_the_share_and_the_reserve_in_the_window_before_them(
            share in 0.0f64..1.5, reserve in 0.0f64..3.0,
            steps in prop::collection::vec((0u64..3_000_000_000, 0u32..30, 0u32..30), 1..80),
        ) {
            let mut budget = RetryBudget::new(share, reserve, Duration::from_nanos(TTL)).unwrap();
            let (mut now, mut attempts, mut retries) = (0, Vec::new(), Vec::new());
            for (step, first, again) in steps {
                now += step;
                (0..first).for_each(|_| { budget.deposit(now); attempts.push(now); });
                (0..again).for_each(|_| if budget.withdraw(now) { retries.push(now); });
                let within = |times: &[u64]| times.iter().filter(|at| **at + TTL > now).count() as f64;
                let most = share * within(&attempts) + reserve * 10.0;
                let retried = retries.last() == Some(&now);
                prop_assert!(!retried || within(&retries) <= most, "{} of {most}", within(&retries));
            }
        }
    }

    #[test]
    fn the_whole_budget_can_be_spent_and_comes_back_when_the_window_has_passed() {
        let spend = |budget: &mut RetryBudget, now| (0..1000).filter(|_| budget.withdraw(now)).count();
        let mut quiet = RetryBudget::default();
        assert_eq!([0, 9, 11].map(|second| spend(&mut quiet, second * TTL / 10)), [100, 0, 100]);
        let mut busy = RetryBudget::new(0.2, 0.0, Duration::from_secs(10)).unwrap();
        (0..1000).for_each(|_| busy.deposit(TTL));
        assert_eq!([10, 19, 21].map(|second| spend(&mut busy, second * TTL / 10)), [200, 0, 0]);
        let mut stale = RetryBudget::new(0.2, 0.0, Duration::from_secs(10)).unwrap();
        (0..1000).for_each(|_| stale.deposit(0));
        assert_eq!([20, 0].map(|second| spend(&mut stale, second * TTL / 10)), [0, 0]);
    }

    #[test]
    fn a_wrong_number_is_named() {
        let ttl = Duration::from_secs(10);
        for (share, reserve, ttl, wrong) in [
            (f64::NAN, 10.0, ttl, "share is NaN"),
            (-0.1, 10.0, ttl, "share is -0.1"),
            (0.2, f64::INFINITY, ttl, "reserve is inf"),
            (0.2, 10.0, Duration::ZERO, "window is 0ns"),
            (0.2, 10.0, Duration::from_secs(3601), "window is 3601s"),
        ] {
            let message = RetryBudget::new(share, reserve, ttl).unwrap_err().to_string();
            assert!(message.contains(wrong), "{message}");
        }
    }
}
