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
    /// Of what was answered, milliseconds.
    pub p50_ms: f64,
    /// As above.
    pub p99_ms: f64,
    /// Requests that were answered.
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

/// Latencies of answered requests.
#[derive(Debug, Default)]
pub(super) struct Latencies(Vec<Nanos>);

/// The value below which a share of the sorted values lies.
pub fn quantile<T: Copy + Default>(sorted: &[T], share: f64) -> T {
    let at = (sorted.len() as f64 * share) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

impl Latencies {
    pub(super) fn push(&mut self, latency: Nanos) {
        self.0.push(latency);
    }

    pub(super) fn report(mut self, mut decisions: Vec<u32>, mut ticks: Vec<u32>) -> Report {
        self.0.sort_unstable();
        decisions.sort_unstable();
        ticks.sort_unstable();
        Report {
            p50_ms: quantile(&self.0, 0.5) as f64 / 1e6,
            p99_ms: quantile(&self.0, 0.99) as f64 / 1e6,
            answered: self.0.len() as u64,
            decisions: decisions.len() as u64,
            decision_ns_p50: quantile(&decisions, 0.5).into(),
            decision_ns_p99: quantile(&decisions, 0.99).into(),
            tick_ns_p50: quantile(&ticks, 0.5).into(),
            tick_ns_p99: quantile(&ticks, 0.99).into(),
            ..Report::default()
        }
    }
}
