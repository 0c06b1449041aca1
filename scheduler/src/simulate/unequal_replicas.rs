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
/// How long after the last arrival answers are waited for.
const AFTERWARDS: Nanos = 600_000_000_000;

/// A trace of workload B.
#[derive(Clone, Debug, Deserialize)]
pub struct UnequalReplicas {
    load: f64,
    seed: u64,
    rtt_ms: f64,
    speed: Vec<f64>,
    arrivals_ms: Vec<f64>,
    work_ms: Vec<f64>,
    slow_episodes_ms: Vec<Vec<(f64, f64)>>,
}

impl UnequalReplicas {
    /// Reads a trace.
    ///
    /// # Errors
    /// INVALID_ARGUMENT naming the figure that cannot be.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let trace: Self = serde_json::from_slice(json)
            .map_err(|error| Error::invalid(format!("the trace is not one of workload b: {error}")))?;
        let (arrivals, work) = (trace.arrivals_ms.len(), trace.work_ms.len());
        if arrivals != work {
            return Err(Error::invalid(format!("the trace has {arrivals} arrivals and {work} pieces of work")));
        }
        if trace.speed.is_empty() || trace.speed.len() != trace.slow_episodes_ms.len() {
            return Err(Error::invalid("the trace must have slow_episodes_ms for each speed, and at least one"));
        }
        let figures = trace.speed.iter().chain(&trace.work_ms).chain(&trace.arrivals_ms);
        match figures.clone().find(|figure| !(0.0..=1e9).contains(*figure)) {
            Some(figure) => Err(Error::invalid(format!("the trace holds {figure}, it must be 0 to 1e9"))),
            None if trace.speed.contains(&0.0) => Err(Error::invalid("a replica of the trace has speed 0")),
            None => Ok(trace),
        }
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
