//! What this machine measures of itself: matrix rates, memory bandwidth, disk reads.
//!
//! A worker serves on seeded estimates meanwhile, so measuring stays out of the way: one worker of a machine at a time,
//! threads of its own at the lowest priority, slices of at most about 5 ms between which it asks whether there is work,
//! and under 3 s of processor time in all. Figures are kept per hardware and read back at the next start.
//!
//! Rates are the machine's, not one core's: every core this process may use takes part in each slice, as it does when a
//! model runs. A slice during which other programs took the processor is no measure and is left out.

mod cache;
mod disk;
mod gate;
mod lock;
mod matrix;
mod memory;
mod pool;
mod priority;

use std::path::Path;
use std::time::{Duration, Instant};

use candle_core::DType;
use orion_proto::session::Measurement;

use cache::{Cache, Figures};
use gate::Gate;
use pool::Pool;

/// How to measure.
pub struct MeasureOptions<'a> {
    /// The worker's data folder: its disk is measured, and `measured/` below it keeps the figures.
    pub data_dir: &'a Path,
    /// The capability's fingerprint, under which the figures are kept.
    pub fingerprint: &'a str,
    /// Whether the worker has work now; asked between slices.
    pub busy: &'a (dyn Fn() -> bool + Sync),
    /// How long to wait for idle moments and for another worker's measurement, all together, before giving up.
    pub patience: Duration,
}

// Processor time of each part, all threads together; 2.6 s in all.
const MATRIX_BUDGET: Duration = Duration::from_millis(700);
const MEMORY_BUDGET: Duration = Duration::from_millis(800);
const DISK_BUDGET: Duration = Duration::from_millis(400);

/// Measures this machine, or reads what an earlier run on the same hardware measured. Blocks for seconds: call it on a
/// thread that may wait. A figure that could not be had is 0 and is tried again at the next call; the round trip and
/// bandwidth to the scheduler are left 0 for the caller.
pub fn measure(options: &MeasureOptions<'_>) -> Measurement {
    measure_under(&lock::machine_wide(), options)
}

fn measure_under(lock_file: &Path, options: &MeasureOptions<'_>) -> Measurement {
    let cache = Cache::new(options.data_dir, options.fingerprint);
    if let Some(figures) = cache.load() {
        return figures.measurement(true);
    }
    let gate = Gate::new(options.busy, Instant::now() + options.patience);
    let lock = match lock::acquire(lock_file, &gate) {
        Ok(Some(lock)) => lock,
        Ok(None) => {
            tracing::info!("another worker of this machine is still measuring; going on without measured figures");
            return Measurement::default();
        }
        Err(error) => {
            tracing::warn!(%error, file = %lock_file.display(), "measuring needs a lock file that cannot be locked");
            return Measurement::default();
        }
    };
    // Another worker with the same data folder may have measured while this one waited.
    if let Some(figures) = cache.load() {
        return figures.measurement(true);
    }
    let figures = on_idle_thread(|| with_own_pool(options.data_dir, &gate));
    drop(lock);
    if figures.complete()
        && let Err(error) = cache.store(&figures)
    {
        tracing::warn!(%error, folder = %options.data_dir.display(), "measured figures could not be kept");
    }
    figures.measurement(false)
}

/// The caller keeps its priority, which an ordinary user cannot raise again once it was lowered.
fn on_idle_thread(work: impl FnOnce() -> Figures + Send) -> Figures {
    std::thread::scope(|scope| {
        let lowered = || {
            priority::lower();
            work()
        };
        let thread = std::thread::Builder::new().name("measure".to_owned()).spawn_scoped(scope, lowered);
        match thread.map(|thread| thread.join()) {
            Ok(Ok(figures)) => figures,
            Ok(Err(_)) => {
                tracing::error!("measuring panicked; going on without measured figures");
                Figures::default()
            }
            Err(error) => {
                tracing::warn!(%error, "no thread to measure on");
                Figures::default()
            }
        }
    })
}

fn with_own_pool(data_dir: &Path, gate: &Gate<'_>) -> Figures {
    match Pool::new(priority::lower) {
        Ok(pool) => all_parts(&pool, data_dir, gate),
        Err(error) => {
            tracing::warn!(%error, "no threads to measure on");
            Figures::default()
        }
    }
}

fn all_parts(pool: &Pool, data_dir: &Path, gate: &Gate<'_>) -> Figures {
    let figures = Figures {
        f32_flops: matrix::rate(pool, gate, DType::F32, MATRIX_BUDGET).unwrap_or(0.0),
        bf16_flops: matrix::rate(pool, gate, DType::BF16, MATRIX_BUDGET).unwrap_or(0.0),
        memory_bytes_per_second: memory::bandwidth(pool, gate, MEMORY_BUDGET).unwrap_or(0.0),
        disk_read_bytes_per_second: disk_rate(pool, gate, &data_dir.join(cache::FOLDER)),
    };
    let (cpu_seconds, disturbed_slices) = (pool.cpu().as_secs_f64(), pool.disturbed_slices());
    tracing::debug!(?figures, cpu_seconds, disturbed_slices, "measured this machine");
    figures
}

fn disk_rate(pool: &Pool, gate: &Gate<'_>, folder: &Path) -> f64 {
    match disk::read_rate(pool, gate, folder, DISK_BUDGET) {
        Ok(rate) => rate.unwrap_or(0.0),
        Err(error) => {
            tracing::warn!(%error, folder = %folder.display(), "the disk's read rate could not be measured");
            0.0
        }
    }
}

#[cfg(test)]
mod tests;
