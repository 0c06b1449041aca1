//! How the core's decisions grow with the cluster: made-up models and workers, in virtual time.

use std::time::Duration;

use orion_proto::{Error, Result};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    Report,
    report::Latencies,
    world::{MS, Settled, World, WorldModel, WorldWorker},
};
use crate::core::Nanos;

/// Classes of models: base and per-row milliseconds, megabytes, share.
const CLASSES: [(f64, f64, f64, f64); 3] = [(1.0, 0.3, 45.0, 0.5), (1.86, 0.75, 102.0, 0.4), (4.5, 2.5, 340.0, 0.1)];
const MAX_ROWS: usize = 16;
const SLO: Nanos = 100_000_000;
/// Megabytes copied in a millisecond.
const COPY: f64 = 12.3;
/// Share of the models that the devices' memory holds.
const HELD: f64 = 0.45;
/// Skew of the models' popularity.
const ZIPF: f64 = 0.9;

/// Loads of the start are over by then.
const FIRST_LOADS_MS: f64 = 60e3;

/// A made-up cluster.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Models.
    pub models: usize,
    /// Workers.
    pub workers: usize,
    /// Devices of each.
    pub devices: usize,
    /// Offered load as a share of the capacity.
    pub load: f64,
    /// Requests to send.
    pub requests: usize,
    /// Of arrivals and models.
    pub seed: u64,
}

impl Scale {
    /// A cluster whose first loads are over, before its first request.
    ///
    /// # Errors
    /// INVALID_ARGUMENT when there is no model, worker or device.
    pub fn start(self) -> Result<Started> {
        if self.models == 0 || self.workers == 0 || self.devices == 0 || self.load.is_nan() || self.load <= 0.0 {
            return Err(Error::invalid("models, workers, devices and load must be more than 0"));
        }
        let mut random = StdRng::seed_from_u64(self.seed);
        let models: Vec<(f64, f64, f64)> = (0..self.models).map(|_| class(random.random())).collect();
        let weights: Vec<f64> = (0..self.models).map(|rank| 1.0 / (rank as f64 + 1.0).powf(ZIPF)).collect();
        let sum: f64 = weights.iter().sum();
        let cost = |(base, per_row, _): &(f64, f64, f64)| (base + per_row * MAX_ROWS as f64) / MAX_ROWS as f64;
        let mean: f64 = models.iter().zip(&weights).map(|(model, weight)| cost(model) * weight / sum).sum();
        let lines = models.clone();
        let service = move |_: usize, model: usize, rows: usize, start: Nanos| {
            start + ((lines[model].0 + lines[model].1 * rows as f64) * MS) as Nanos
        };
        let mut world = World::new(world_models(&models), self.world_workers(&models), Box::new(service))?;
        world.run_until((FIRST_LOADS_MS * MS) as Nanos);
        world.decisions.clear();
        world.ticks.clear();
        let share = |total: &mut f64, weight: &f64| {
            *total += weight / sum;
            Some(*total)
        };
        Ok(Started {
            gap: mean / (self.load * (self.workers * self.devices) as f64),
            popularity: weights.iter().scan(0.0, share).collect(),
            now: FIRST_LOADS_MS,
            arrivals: Vec::new(),
            scale: self,
            world,
            random,
        })
    }

    /// Sends all requests.
    ///
    /// # Errors
    /// INVALID_ARGUMENT when there is no model, worker or device.
    pub fn run(self) -> Result<Report> {
        let mut started = self.start()?;
        started.send(self.requests);
        Ok(started.report())
    }

    fn world_workers(&self, models: &[(f64, f64, f64)]) -> Vec<WorldWorker> {
        let total: f64 = models.iter().map(|model| model.2).sum();
        let memory = (total * HELD / (self.workers * self.devices) as f64).max(400.0);
        let worker =
            WorldWorker { devices: self.devices, memory_bytes: (memory * 1e6) as u64, speed: 1.0, round_trip: 0 };
        vec![worker; self.workers]
    }
}

/// A made-up cluster under way.
pub struct Started {
    scale: Scale,
    world: World<'static>,
    random: StdRng,
    /// Mean time between arrivals, milliseconds.
    gap: f64,
    /// Cumulative share of each model's requests.
    popularity: Vec<f64>,
    now: f64,
    arrivals: Vec<Nanos>,
}

impl Started {
    /// Poisson arrivals over models of Zipf popularity; says how many nanoseconds the core has spent on them and on what
    /// happened between them, ticks included.
    pub fn send(&mut self, requests: usize) -> u64 {
        let before = [self.world.decisions.len(), self.world.ticks.len()];
        for _ in 0..requests {
            self.now += -self.gap * (1.0 - self.random.random::<f64>()).ln();
            let draw: f64 = self.random.random();
            let model = self.popularity.partition_point(|share| *share < draw).min(self.scale.models - 1);
            let at = (self.now * MS) as Nanos;
            self.world.run_until(at);
            self.world.arrive(model, 1, Some(at + SLO));
            self.arrivals.push(at);
        }
        let after = self.world.decisions[before[0]..].iter().chain(&self.world.ticks[before[1]..]);
        after.map(|nanos| u64::from(*nanos)).sum()
    }

    /// Lets what was sent end, and says how it went.
    pub fn report(mut self) -> Report {
        self.world.run_until((self.now * MS) as Nanos + SLO);
        let mut latencies = Latencies::default();
        for (at, settled) in self.arrivals.iter().zip(&self.world.settled) {
            if let Settled::Answered(end) = settled {
                latencies.push(end - at);
            }
        }
        let counted = self.arrivals.len() as u64;
        let report = latencies.report(self.world.decisions, self.world.ticks);
        Report {
            workload: "scale",
            load: self.scale.load,
            seed: self.scale.seed,
            attainment: Some(report.answered as f64 / counted.max(1) as f64),
            counted,
            loads: self.world.loads,
            digest: self.world.digest,
            ..report
        }
    }
}

fn class(draw: f64) -> (f64, f64, f64) {
    let mut share = 0.0;
    for (base, per_row, mb, of) in CLASSES {
        share += of;
        if draw < share {
            return (base, per_row, mb);
        }
    }
    (CLASSES[0].0, CLASSES[0].1, CLASSES[0].2)
}

fn world_models(models: &[(f64, f64, f64)]) -> Vec<WorldModel> {
    let model = |(base_ms, per_row_ms, mb): &(f64, f64, f64)| WorldModel {
        base_ms: *base_ms,
        per_row_ms: *per_row_ms,
        bytes: (mb * 1e6) as u64,
        load: (mb / COPY * MS) as Nanos,
        max_rows: MAX_ROWS,
        slo: Duration::from_nanos(SLO),
        min_replicas: 0,
    };
    models.iter().map(model).collect()
}
