//! What a failure costs: seconds added to a replica's predicted ones, so that failing fast does not attract work.

use std::collections::HashMap;

/// Decay times after the last failure at which a run of failures is forgotten.
const FORGOTTEN: u64 = 12;

/// How large a penalty is and how long it lasts, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PenaltyPolicy {
    /// Penalty of a first failure; it doubles with each one that follows without a success between. 0: no penalties.
    pub first: u64,
    /// The largest penalty.
    pub most: u64,
    /// Time in which a penalty falls to 1/e.
    pub decay: u64,
}

impl Default for PenaltyPolicy {
    /// 250 ms, doubling to 60 s, decaying with 5 s.
    fn default() -> Self {
        Self { first: 250_000_000, most: 60_000_000_000, decay: 5_000_000_000 }
    }
}

/// The penalty of one replica; none at first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Penalty {
    nanos: u64,
    at: u64,
    failures: u8,
}

impl Penalty {
    /// A request failed: the penalty rises to what this length of run costs, if it is not above that already.
    pub fn failure(&mut self, now: u64, policy: &PenaltyPolicy) {
        if now.saturating_sub(self.at) > policy.decay.saturating_mul(FORGOTTEN) {
            self.failures = 0;
        }
        let doubled = 1u64.checked_shl(u32::from(self.failures)).unwrap_or(u64::MAX);
        let step = policy.first.saturating_mul(doubled).min(policy.most);
        self.nanos = self.nanos(now, policy).max(step);
        self.at = self.at.max(now);
        self.failures = self.failures.saturating_add(1);
    }

    /// A request succeeded: the run of failures is over. What is left of the penalty goes on decaying.
    pub fn success(&mut self) {
        self.failures = 0;
    }

    /// Nanoseconds to add to the replica's predicted ones.
    pub fn nanos(&self, now: u64, policy: &PenaltyPolicy) -> u64 {
        if self.nanos == 0 {
            return 0;
        }
        let age = now.saturating_sub(self.at) as f64 / policy.decay.max(1) as f64;
        (self.nanos as f64 * (-age).exp()) as u64
    }
}

/// The penalties of the replicas that have one, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Penalties {
    policy: PenaltyPolicy,
    by_id: HashMap<u64, Penalty>,
}

impl Penalties {
    pub(super) fn new(policy: PenaltyPolicy) -> Self {
        Self { policy, by_id: HashMap::new() }
    }

    pub(super) fn settle(&mut self, now: u64, id: u64, ok: bool) {
        if !ok {
            self.by_id.entry(id).or_default().failure(now, &self.policy);
        } else if let Some(penalty) = self.by_id.get_mut(&id) {
            penalty.success();
            if penalty.nanos(now, &self.policy) == 0 {
                self.by_id.remove(&id);
            }
        }
    }

    pub(super) fn nanos(&self, now: u64, id: u64) -> u64 {
        self.by_id.get(&id).map_or(0, |penalty| penalty.nanos(now, &self.policy))
    }

    pub(super) fn forget(&mut self, id: u64) {
        self.by_id.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: PenaltyPolicy = PenaltyPolicy { first: 1_000_000, most: 5_000_000, decay: 1_000_000_000 };

    #[test]
    fn failures_in_a_row_double_to_the_cap_and_a_success_ends_the_run() {
        let mut penalty = Penalty::default();
        assert_eq!(penalty.nanos(0, &POLICY), 0);
        let steps = [1_000_000, 2_000_000, 4_000_000, 5_000_000, 5_000_000].map(|expected| {
            penalty.failure(7, &POLICY);
            (penalty.nanos(7, &POLICY), expected)
        });
        assert!(steps.iter().all(|(got, expected)| got == expected), "{steps:?}");
        (0..300).for_each(|_| penalty.failure(7, &POLICY));
        assert_eq!(penalty.nanos(7, &POLICY), 5_000_000);
        penalty.success();
        assert_eq!(penalty.nanos(7, &POLICY), 5_000_000, "a success does not undo what failed");
        penalty.failure(10 * POLICY.decay, &POLICY);
        assert_eq!(penalty.nanos(10 * POLICY.decay, &POLICY), 1_000_000, "a new run starts small");
    }

    #[test]
    fn a_penalty_decays_and_a_run_long_ago_is_forgotten() {
        let mut penalty = Penalty::default();
        (0..3).for_each(|_| penalty.failure(0, &POLICY));
        let after = penalty.nanos(POLICY.decay, &POLICY) as f64;
        assert!((after - 4_000_000.0 / std::f64::consts::E).abs() < 2.0, "{after}");
        let (mut soon, mut late) = (penalty, penalty);
        soon.failure(12 * POLICY.decay, &POLICY);
        assert_eq!(soon.nanos(12 * POLICY.decay, &POLICY), 5_000_000);
        late.failure(12 * POLICY.decay + 1, &POLICY);
        assert_eq!(late.nanos(12 * POLICY.decay + 1, &POLICY), 1_000_000);
    }

    #[test]
    fn a_replica_that_succeeds_between_failures_pays_for_single_ones() {
        let mut penalties = Penalties::new(POLICY);
        (0..9).for_each(|now| penalties.settle(now, 1, now % 2 == 1));
        assert_eq!(penalties.nanos(8, 1), POLICY.first);
        penalties.settle(100 * POLICY.decay, 1, true);
        assert!(penalties.by_id.is_empty(), "nothing is kept of one that has recovered");
    }
}
