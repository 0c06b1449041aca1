//! Workload A: many models on few devices with memory for a part of them, answered within an objective
//! (after Clockwork, OSDI 2020; AlpaServe, OSDI 2023; Shepherd, NSDI 2023).

use std::time::Duration;

use orion_proto::{Error, Result};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::Deserialize;

use super::{
    Report,
    report::Latencies,
    world::{MS, Settled, World, WorldModel, WorldWorker},
};
use crate::core::Nanos;

/// How long after the last arrival answers are waited for.
const AFTERWARDS: Nanos = 2_000_000_000;
/// A device or model count beyond this is a mistake in the trace.
const MOST: usize = 1 << 20;

#[derive(Clone, Debug, Deserialize)]
struct TraceModel {
    alpha_ms: f64,
    beta_ms: f64,
    mb: f64,
}

/// A trace of workload A.
#[derive(Clone, Debug, Deserialize)]
pub struct ManyModels {
    gpus: usize,
    gpu_mb: f64,
    copy_mb_per_ms: f64,
    max_batch: usize,
    slo_ms: f64,
    warm_ms: f64,
    load: f64,
    seed: u64,
    lp_bound_requests: f64,
    models: Vec<TraceModel>,
    arrivals: Vec<(f64, usize)>,
}

impl ManyModels {
    /// Reads a trace.
    ///
    /// # Errors
    /// INVALID_ARGUMENT naming the figure that cannot be.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let trace: Self = serde_json::from_slice(json)
            .map_err(|error| Error::invalid(format!("the trace is not one of workload a: {error}")))?;
        let positive = [
            ("gpu_mb", trace.gpu_mb),
            ("copy_mb_per_ms", trace.copy_mb_per_ms),
            ("slo_ms", trace.slo_ms),
            ("lp_bound_requests", trace.lp_bound_requests),
        ];
        if let Some((name, value)) = positive.iter().find(|(_, value)| !(*value > 0.0 && *value <= 1e12)) {
            return Err(Error::invalid(format!(
                "{name} is {value} in the trace, it must be more than 0, at most 1e12"
            )));
        }
        let sizes = [("gpus", trace.gpus), ("models", trace.models.len()), ("max_batch", trace.max_batch)];
        if let Some((name, value)) = sizes.iter().find(|(_, value)| !(1..=MOST).contains(value)) {
            return Err(Error::invalid(format!("{name} is {value} in the trace, it must be 1 to {MOST}")));
        }
        for (number, model) in trace.models.iter().enumerate() {
            for (name, value) in [("alpha_ms", model.alpha_ms), ("beta_ms", model.beta_ms), ("mb", model.mb)] {
                if !(0.0..=1e9).contains(&value) {
                    return Err(Error::invalid(format!("{name} of model {number} is {value}, it must be 0 to 1e9")));
                }
            }
        }
        let bad = |(at, model): &&(f64, usize)| !(0.0..=1e9).contains(at) || *model >= trace.models.len();
        if let Some((at, model)) = trace.arrivals.iter().find(bad) {
            return Err(Error::invalid(format!("the trace has an arrival at {at} ms of model {model}")));
        }
        if !trace.arrivals.is_sorted_by(|a, b| a.0 <= b.0) {
            return Err(Error::invalid("the trace's arrivals are not in the order of time"));
        }
        Ok(trace)
    }

    /// Replays the trace; every service time is multiplied by a lognormal factor of sigma `noise` that no policy sees.
    ///
    /// # Errors
    /// When the core refuses a simulated worker.
    pub fn run(&self, noise: f64) -> Result<Report> {
        let mut random = StdRng::seed_from_u64(self.seed + 99);
        let lines: Vec<(f64, f64)> = self.models.iter().map(|model| (model.beta_ms, model.alpha_ms)).collect();
        let service = move |_: usize, model: usize, rows: usize, start: Nanos| {
            let (base, per_row) = lines[model];
            let factor = if noise > 0.0 { (noise * normal(&mut random)).exp() } else { 1.0 };
            start + ((base + per_row * rows as f64) * factor * MS) as Nanos
        };
        let mut world = World::new(self.world_models(), self.world_workers(), Box::new(service))?;
        let window = (self.slo_ms * MS) as Nanos;
        for &(at, model) in &self.arrivals {
            let at = (at * MS) as Nanos;
            world.run_until(at);
            world.arrive(model, 1, Some(at + window));
        }
        let last = self.arrivals.last().map_or(0, |(at, _)| (at * MS) as Nanos);
        world.run_until(last + AFTERWARDS);
        Ok(self.report(world, window))
    }

    fn world_models(&self) -> Vec<WorldModel> {
        let models = self.models.iter().map(|model| WorldModel {
            base_ms: model.beta_ms,
            per_row_ms: model.alpha_ms,
            bytes: (model.mb * 1e6) as u64,
            load: (model.mb / self.copy_mb_per_ms * MS) as Nanos,
            max_rows: self.max_batch,
            slo: Duration::from_secs_f64(self.slo_ms / 1e3),
            min_replicas: 0,
        });
        models.collect()
    }

    fn world_workers(&self) -> Vec<WorldWorker> {
        let memory_bytes = (self.gpu_mb * 1e6) as u64;
        vec![WorldWorker { devices: 1, memory_bytes, speed: 1.0, round_trip: 0 }; self.gpus]
    }

    fn report(&self, world: World<'_>, window: Nanos) -> Report {
        let counted = self.arrivals.iter().zip(&world.settled).filter(|((at, _), _)| *at >= self.warm_ms);
        let mut latencies = Latencies::default();
        let (mut total, mut on_time) = (0usize, 0usize);
        for ((at, _), settled) in counted {
            total += 1;
            if let Settled::Answered(end) = settled {
                let latency = end - (at * MS) as Nanos;
                on_time += usize::from(latency <= window);
                latencies.push(latency);
            }
        }
        Report {
            workload: "a",
            load: self.load,
            seed: self.seed,
            attainment: Some(on_time as f64 / total.max(1) as f64),
            of_bound: Some(on_time as f64 / self.lp_bound_requests),
            counted: total as u64,
            loads: world.loads,
            digest: world.digest,
            ..latencies.report(world.decisions, world.ticks)
        }
    }
}

/// A standard normal draw, by Box and Muller.
pub(super) fn normal(random: &mut StdRng) -> f64 {
    // 1 − u keeps the logarithm away from 0.
    let (u, v): (f64, f64) = (random.random(), random.random());
    (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}
