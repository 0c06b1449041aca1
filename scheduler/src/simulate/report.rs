//! What a simulation found.

use serde::Serialize;

use crate::core::Nanos;

/// A simulation's figures.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// `a`, `b` or `scale`.
    pub workload: &'static str,
    /// Offered load as a share of the capacity.
    pub load: f64,
    /// Of the trace.
    pub seed: u64,
    /// Answered on time over all that are counted; workload A.
    pub attainment: Option<f64>,
    /// Answered on time over what no schedule can pass; workload A.
    pub of_bound: Option<f64>,
    /// p99 over a clairvoyant oracle's; workload B.
    pub p99_of_oracle: Option<f64>,
    /// Of what was answered, milliseconds. Of workload B of all that is counted: a request that was not answered took for
    /// ever.
    pub p50_ms: f64,
    /// As above.
    pub p99_ms: f64,
    /// Requests that are counted: those before it was warm are not.
    pub counted: u64,
    /// Of them those that were answered.
    pub answered: u64,
    /// Models that were loaded.
    pub loads: u64,
    /// Inputs to the core.
    pub decisions: u64,
    /// Of one input with all that it triggers, nanoseconds.
    pub decision_ns_p50: u64,
    /// As above.
    pub decision_ns_p99: u64,
    /// Of one tick, which looks after leases, stragglers and what waits, nanoseconds.
    pub tick_ns_p50: u64,
    /// As above.
    pub tick_ns_p99: u64,
    /// Of every command, in order: equal for equal runs.
    pub digest: u64,
}

/// Latencies of requests.
#[derive(Debug, Default)]
pub(super) struct Latencies {
    answered: Vec<Nanos>,
    /// Requests whose answer never came, and is waited for.
    missing: usize,
}

/// The value below which a share of the sorted values lies.
pub fn quantile<T: Copy + Default>(sorted: &[T], share: f64) -> T {
    let at = (sorted.len() as f64 * share) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

impl Latencies {
    pub(super) fn push(&mut self, latency: Nanos) {
        self.answered.push(latency);
    }

    /// A request was not answered, and each of them should be.
    pub(super) fn miss(&mut self) {
        self.missing += 1;
    }

    /// Milliseconds, of sorted latencies.
    fn quantile(&self, share: f64) -> f64 {
        let at = ((self.answered.len() + self.missing) as f64 * share) as usize;
        match self.missing > 0 && at >= self.answered.len() {
            true => f64::INFINITY,
            false => self.answered.get(at).or(self.answered.last()).map_or(0.0, |nanos| *nanos as f64 / 1e6),
        }
    }

    pub(super) fn report(mut self, mut decisions: Vec<u32>, mut ticks: Vec<u32>) -> Report {
        self.answered.sort_unstable();
        decisions.sort_unstable();
        ticks.sort_unstable();
        Report {
            p50_ms: self.quantile(0.5),
            p99_ms: self.quantile(0.99),
            answered: self.answered.len() as u64,
            decisions: decisions.len() as u64,
            decision_ns_p50: quantile(&decisions, 0.5).into(),
            decision_ns_p99: quantile(&decisions, 0.99).into(),
            tick_ns_p50: quantile(&ticks, 0.5).into(),
            tick_ns_p99: quantile(&ticks, 0.99).into(),
            ..Report::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_answered_took_for_ever() {
        let mut latencies = Latencies::default();
        (1..=98).for_each(|ms| latencies.push(ms * 1_000_000));
        let of = |latencies: &Latencies| [0.5, 0.98, 0.99].map(|share| latencies.quantile(share));
        assert_eq!(of(&latencies), [50.0, 97.0, 98.0]);
        latencies.miss();
        latencies.miss();
        assert_eq!(of(&latencies), [51.0, f64::INFINITY, f64::INFINITY]);
        latencies.answered.clear();
        assert_eq!(latencies.quantile(0.0), f64::INFINITY);
        assert_eq!(Latencies::default().quantile(0.99), 0.0);
    }
}
