//! A model on its device, whichever way it runs.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use orion_models::{Model, ModelRequest, run_with_steps};
use orion_net::store::Pin;
use orion_proto::{InferAnswer, Result};

use super::WarmedUp;
use crate::{
    outcome::{batch_failed, judged},
    peak::{Moves, PeakMeter},
    sequences::Sequences,
    simulate::Reservation,
    warm_up,
};

pub(super) struct Held {
    pub(super) load: u64,
    pub(super) kept: Kept,
    /// After the model: its memory is free when it is gone.
    pub(super) _memory: Option<Reservation>,
    pub(super) _pin: Option<Pin>,
}

pub(super) enum Kept {
    Model(Box<dyn Model>, PeakMeter),
    Generator(Sequences),
}

impl Held {
    /// Bytes that a batch takes beside what is held between batches.
    pub(super) fn room(&self) -> u64 {
        match &self.kept {
            Kept::Model(model, meter) => model.known_peak_bytes().unwrap_or(meter.room()),
            Kept::Generator(_) => 0,
        }
    }

    /// Whether it needs the device's threads.
    pub(super) fn computes(&self) -> bool {
        match &self.kept {
            Kept::Model(model, _) => model.known_curve().is_none(),
            Kept::Generator(_) => true,
        }
    }

    /// One answer a request, and the memory that they took together.
    pub(super) fn run(
        &mut self,
        rows: usize,
        requests: Vec<ModelRequest>,
        pool: Option<&rayon::ThreadPool>,
        moves: &Moves,
    ) -> (Vec<Result<InferAnswer>>, u64) {
        let count = requests.len();
        let Kept::Model(model, meter) = &mut self.kept else { return (vec![Err(batch_failed()); count], 0) };
        let known = model.known_peak_bytes();
        let work = || guarded(pool, || run_with_steps(&mut **model, requests));
        let (answers, peak_bytes) = match known {
            Some(bytes) => (work(), bytes),
            None => meter.measure(moves, rows, work),
        };
        (answers.map_or_else(|error| vec![Err(error); count], |answers| judged(answers, count)), peak_bytes)
    }

    /// Runs typical batches and draws the line through what they took.
    pub(super) fn warm_up(&mut self, pool: Option<&rayon::ThreadPool>, moves: &Moves) -> Result<WarmedUp> {
        let (most_rows, known) = match &mut self.kept {
            Kept::Generator(sequences) => {
                let curve = guarded(pool, || warm_up::generation(sequences.generator()))??;
                return Ok(WarmedUp { curve, peak_bytes: 0 });
            }
            Kept::Model(model, _) => (model.spec().max_batch_rows, known_figures(&**model)),
        };
        if let Some(known) = known {
            return Ok(known);
        }
        let curve = warm_up::curve(most_rows, |rows| {
            let Kept::Model(model, _) = &self.kept else { return Err(batch_failed()) };
            let sample = vec![model.sample(rows)];
            let started = Instant::now();
            let (answers, _) = self.run(rows, sample, pool, moves);
            let taken: Duration = started.elapsed();
            answers.into_iter().collect::<Result<Vec<_>>>().map(|_| taken)
        })?;
        let peak_bytes = if let Kept::Model(_, meter) = &self.kept { meter.bytes() } else { 0 };
        Ok(WarmedUp { curve, peak_bytes })
    }
}

/// What a model takes, where that is known without running it.
pub(crate) fn known_figures(model: &dyn Model) -> Option<WarmedUp> {
    model.known_curve().map(|curve| WarmedUp { curve, peak_bytes: model.known_peak_bytes().unwrap_or(0) })
}

pub(super) fn on_pool<R: Send>(pool: Option<&rayon::ThreadPool>, work: impl FnOnce() -> R + Send) -> R {
    match pool {
        Some(pool) => pool.install(work),
        None => work(),
    }
}

fn guarded<R: Send>(pool: Option<&rayon::ThreadPool>, work: impl FnOnce() -> R + Send) -> Result<R> {
    // A model that panics fails its batch, not its worker.
    catch_unwind(AssertUnwindSafe(|| on_pool(pool, work))).map_err(|_| batch_failed())
}
