//! What a replica's faults teach: how much it is trusted with, and what its failures cost.

use std::time::Duration;

use orion_net::PenaltyPolicy;

use super::{Nanos, nanos, replica::Replica};

/// How long a batch is no larger than half of one that ran out of memory; then larger ones are tried again.
const LIMITED: Duration = Duration::from_secs(30);

impl Replica {
    /// It failed a batch.
    pub(super) fn failed(&mut self, now: Nanos) {
        self.breaker.failure(now);
        self.penalty.failure(now, &PenaltyPolicy::default());
    }

    /// It ran a batch.
    pub(super) fn succeeded(&mut self, now: Nanos) {
        self.breaker.success(now);
        self.penalty.success();
    }

    /// What its failures cost on top of its predicted time: failing fast must not attract work.
    pub(super) fn penalty(&self, now: Nanos) -> Nanos {
        self.penalty.nanos(now, &PenaltyPolicy::default())
    }

    /// Most rows of a batch there, of those that the model allows.
    pub(super) fn most_rows(&self, allowed: usize) -> usize {
        self.rows_limit.map_or(allowed, |(limit, _)| limit.min(allowed))
    }

    /// A batch of so many rows ran out of memory.
    pub(super) fn ran_out(&mut self, now: Nanos, rows: usize) {
        let half = (rows / 2).max(1);
        self.rows_limit = Some((self.rows_limit.map_or(half, |(limit, _)| limit.min(half)), now));
    }

    /// A batch of so many rows fitted. What took the memory may have gone: after a while more rows are tried.
    pub(super) fn fitted(&mut self, now: Nanos, rows: usize) {
        if let Some((limit, since)) = self.rows_limit
            && rows >= limit
            && now.saturating_sub(since) >= nanos(LIMITED)
        {
            self.rows_limit = Some((limit.saturating_mul(2), now));
        }
    }
}
