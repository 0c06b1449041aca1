//! Workload B: one model on many unequal replicas, some slowed now and then; the tail of the latency
//! (after Prequal, NSDI 2024).

use std::time::Duration;

use orion_proto::{Error, Result};
use serde::Deserialize;

use super::{
    Report,
    oracle::Replicas,
    report::{Latencies, quantile},
    world::{MS, Settled, World, WorldModel, WorldWorker},
};
use crate::core::Nanos;

/// Work of one row, milliseconds at speed 1.
const ROW_MS: f64 = 10.0;
/// The first tenth of the requests is not counted.
const WARM_UP: usize = 10;
/// Milliseconds at which something may happen.
const TIMES: std::ops::RangeInclusive<f64> = 0.0..=1e9;
/// How long after the last arrival answers are waited for.
const AFTERWARDS: Nanos = 600_000_000_000;

/// A trace of workload B.
#[derive(Clone, Debug, Deserialize)]
pub struct UnequalReplicas {
    load: f64,
    seed: u64,
    routers: u64,
    rtt_ms: f64,
    speed: Vec<f64>,
    arrivals_ms: Vec<f64>,
    work_ms: Vec<f64>,
    slow_episodes_ms: Vec<Vec<(f64, f64)>>,
}

/// A replica's episodes follow one another.
fn check_episodes(replica: usize, episodes: &[(f64, f64)]) -> Result<()> {
    let mut last = 0.0;
    for &(begins, ends) in episodes {
        if !(last..=1e9).contains(&begins) || !(begins..=1e9).contains(&ends) {
            let text = "it must end after it begins, after the one before has ended, and by 1e9 ms";
            return Err(Error::invalid(format!("replica {replica} is slow from {begins} to {ends} ms: {text}")));
        }
        last = ends;
    }
    Ok(())
}

impl UnequalReplicas {
    /// Reads a trace.
    ///
    /// # Errors
    /// INVALID_ARGUMENT naming the figure that cannot be.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let trace: Self = serde_json::from_slice(json)
            .map_err(|error| Error::invalid(format!("the trace is not one of workload b: {error}")))?;
        trace.check().map(|()| trace)
    }

    fn check(&self) -> Result<()> {
        let no = |what: String| Err(Error::invalid(what));
        let (arrivals, work) = (self.arrivals_ms.len(), self.work_ms.len());
        if arrivals != work {
            return no(format!("the trace has {arrivals} arrivals and {work} pieces of work"));
        }
        if self.routers != 1 {
            return no(format!("routers is {} in the trace, it must be 1: there is one scheduler", self.routers));
        }
        if self.speed.is_empty() || self.speed.len() != self.slow_episodes_ms.len() {
            return no("the trace must have slow_episodes_ms for each speed, and at least one".into());
        }
        if let Some(speed) = self.speed.iter().find(|speed| !(1e-6..=1e6).contains(*speed)) {
            return no(format!("a replica of the trace has speed {speed}, it must be 1e-6 to 1e6"));
        }
        if !(0.0..=1e6).contains(&self.rtt_ms) {
            return no(format!("rtt_ms is {} in the trace, it must be 0 to 1e6", self.rtt_ms));
        }
        if let Some(at) = self.arrivals_ms.iter().find(|at| !TIMES.contains(*at)) {
            return no(format!("the trace has an arrival at {at} ms, it must be 0 to 1e9"));
        }
        if !self.arrivals_ms.is_sorted() {
            return no("the trace's arrivals are not in the order of time".into());
        }
        let rows = |work: &&f64| !(ROW_MS..=1e6).contains(*work) || *work % ROW_MS != 0.0;
        if let Some(work) = self.work_ms.iter().find(rows) {
            return no(format!("the trace has {work} ms of work, it must be a multiple of {ROW_MS}, at most 1e6"));
        }
        self.slow_episodes_ms.iter().enumerate().try_for_each(|(replica, episodes)| check_episodes(replica, episodes))
    }

    /// Replays the trace, with the oracle beside it.
    ///
    /// # Errors
    /// When the core refuses a simulated worker.
    pub fn run(&self) -> Result<Report> {
        let replicas = Replicas { speed: self.speed.clone(), episodes: self.slow_episodes_ms.clone() };
        let real = replicas.clone();
        let service = move |worker: usize, _: usize, rows: usize, start: Nanos| {
            (real.finish(worker, start as f64 / MS, rows as f64 * ROW_MS) * MS) as Nanos
        };
        let mut world = World::new(vec![self.world_model()], self.world_workers(), Box::new(service))?;
        for (at, work) in self.arrivals_ms.iter().zip(&self.work_ms) {
            world.run_until((at * MS) as Nanos);
            world.arrive(0, (work / ROW_MS).round().max(1.0) as usize, None);
        }
        let last = self.arrivals_ms.last().map_or(0, |at| (at * MS) as Nanos);
        world.run_until(last + AFTERWARDS);
        let mut oracle = replicas.oracle(&self.arrivals_ms, &self.work_ms, self.rtt_ms / 2.0);
        oracle.drain(..oracle.len() / WARM_UP);
        oracle.sort_unstable();
        Ok(self.report(world, quantile(&oracle, 0.99) as f64 / MS))
    }

    fn world_model(&self) -> WorldModel {
        WorldModel {
            base_ms: 0.0,
            per_row_ms: ROW_MS,
            bytes: 1,
            load: 0,
            // Each request runs alone, whatever its rows.
            max_rows: 1,
            slo: Duration::from_millis(100),
            min_replicas: u32::try_from(self.speed.len()).unwrap_or(u32::MAX),
        }
    }

    fn world_workers(&self) -> Vec<WorldWorker> {
        let round_trip = (self.rtt_ms * MS) as Nanos;
        let worker = |speed: &f64| WorldWorker { devices: 1, memory_bytes: 1 << 30, speed: *speed, round_trip };
        self.speed.iter().map(worker).collect()
    }

    fn report(&self, world: World<'_>, oracle_p99: f64) -> Report {
        let mut latencies = Latencies::default();
        let counted = self.arrivals_ms.iter().zip(&world.settled).skip(self.arrivals_ms.len() / WARM_UP);
        for (at, settled) in counted {
            match settled {
                Settled::Answered(end) => latencies.push(end - (at * MS) as Nanos),
                Settled::Waiting | Settled::Refused(_) => latencies.miss(),
            }
        }
        let (digest, loads) = (world.digest, world.loads);
        let counted = (self.arrivals_ms.len() - self.arrivals_ms.len() / WARM_UP) as u64;
        let report = latencies.report(world.decisions, world.ticks);
        Report {
            workload: "b",
            load: self.load,
            seed: self.seed,
            counted,
            loads,
            digest,
            p99_of_oracle: Some(report.p99_ms / oracle_p99),
            ..report
        }
    }
}
