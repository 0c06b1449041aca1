//! A cluster in which nearly everything goes wrong: workers crash, fall silent, come back, are slow, and promise curves
//! that are far from what they take.

use std::time::Duration;

use orion_proto::Result;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::world::{MS, Settled, World, WorldModel, WorldWorker};
use crate::core::Nanos;

const WORKERS: usize = 6;
const MODELS: usize = 8;
const LEASE: Nanos = 750_000_000;
/// How far off a curve may be, either way.
const LIE: f64 = 10.0;
/// How long the rest is waited for once all workers are back.
const AFTERWARDS: Nanos = 600_000_000_000;

/// A seed's troubles.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// Of everything.
    pub seed: u64,
    /// Requests to send, about one a millisecond.
    pub requests: usize,
}

/// What became of the requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub struct Settlement {
    pub refused_at_once: usize,
    pub answered: usize,
    pub failed: usize,
    pub open: usize,
    pub crashes: usize,
    pub silences: usize,
    /// Of every command, in order.
    pub digest: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Away {
    No,
    Crashed(Nanos),
    Silent(Nanos),
}

impl Faults {
    /// Sends requests while workers come and go, then lets all come back and waits for what is left. A request that is
    /// settled twice panics.
    ///
    /// # Errors
    /// When the core refuses a worker that comes back.
    pub fn run(&self) -> Result<Settlement> {
        let mut random = StdRng::seed_from_u64(self.seed);
        let workers: Vec<WorldWorker> = (0..WORKERS)
            .map(|index| WorldWorker {
                devices: 1 + index % 2,
                memory_bytes: 300,
                // The promise: what it really takes is the formula below.
                speed: [1.0, LIE, 1.0 / LIE][index % 3],
                round_trip: if index % 2 == 0 { 0 } else { 4_000_000 },
            })
            .collect();
        let mut slow = StdRng::seed_from_u64(self.seed + 1);
        let service = move |_: usize, _: usize, rows: usize, start: Nanos| {
            let factor = if slow.random_bool(0.01) { 100.0 } else { 1.0 };
            start + ((1.0 + 0.3 * rows as f64) * factor * MS) as Nanos
        };
        let mut world = World::new(models(), workers, Box::new(service))?;
        let mut away = [Away::No; WORKERS];
        let mut settlement = Settlement::default();
        let mut now = 0;
        for _ in 0..self.requests {
            now += random.random_range(0..2_000_000);
            world.run_until(now);
            self.trouble(&mut world, &mut away, now, &mut random, &mut settlement)?;
            let deadline = random.random_bool(0.3).then(|| now + random.random_range(5_000_000..400_000_000));
            let (model, rows) = (random.random_range(0..MODELS), random.random_range(1..4));
            world.arrive(model, rows, deadline);
            settlement.refused_at_once += usize::from(matches!(world.settled.last(), Some(Settled::Refused(_))));
        }
        for (worker, away) in away.into_iter().enumerate() {
            come_back(&mut world, worker, away)?;
        }
        world.run_until(now + AFTERWARDS);
        for settled in &world.settled {
            match settled {
                Settled::Answered(_) => settlement.answered += 1,
                Settled::Refused(_) => settlement.failed += 1,
                Settled::Waiting => settlement.open += 1,
            }
        }
        settlement.failed -= settlement.refused_at_once;
        Ok(Settlement { digest: world.digest, ..settlement })
    }

    fn trouble(
        &self,
        world: &mut World<'_>,
        away: &mut [Away; WORKERS],
        now: Nanos,
        random: &mut StdRng,
        settlement: &mut Settlement,
    ) -> Result<()> {
        for (worker, away) in away.iter_mut().enumerate() {
            match *away {
                Away::Crashed(until) | Away::Silent(until) if until <= now => {
                    come_back(world, worker, *away)?;
                    *away = Away::No;
                }
                Away::No if random.random_bool(0.0005) => {
                    world.crash(worker, LEASE);
                    settlement.crashes += 1;
                    *away = Away::Crashed(now + random.random_range(0..3_000_000_000));
                }
                Away::No if random.random_bool(0.0005) => {
                    let until = now + random.random_range(100_000_000..2_000_000_000);
                    world.silence(worker, until, LEASE);
                    settlement.silences += 1;
                    *away = Away::Silent(until);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn come_back(world: &mut World<'_>, worker: usize, away: Away) -> Result<()> {
    match away {
        Away::No => Ok(()),
        Away::Crashed(_) => world.join(worker),
        Away::Silent(_) => world.heard(worker),
    }
}

fn models() -> Vec<WorldModel> {
    let model = |index: usize| WorldModel {
        base_ms: 1.0,
        per_row_ms: 0.3,
        bytes: 60 + 20 * index as u64 % 100,
        load: 20_000_000,
        max_rows: 8,
        slo: Duration::from_millis(100),
        min_replicas: (index % 3) as u32,
    };
    (0..MODELS).map(model).collect()
}
