//! Rows per second of each ONNX model, Magika and Silero VAD that was fetched, alone and in batches; of Silero VAD beside that
//! of windows that are one row of a sequence each.
//!
//! `scripts/fetch-models magika silero-vad --to models-data`, then `cargo bench --bench onnx`. `ORION_MODELS` names another
//! folder, whose entries may be `.onnx` files too.

use std::{path::PathBuf, time::Duration};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use orion_models::{Model, ModelRequest, inspect, load};
use orion_proto::{ModelName, Sequence};

const FAMILIES: [&str; 3] = ["magika", "onnx", "silero-vad"];

/// The models of the folder, by name.
fn fetched() -> Vec<(String, Box<dyn Model>)> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../models-data").into();
    let folder = PathBuf::from(std::env::var("ORION_MODELS").unwrap_or(default));
    let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let name = path.file_name()?.to_str()?.to_owned();
        let manifest = inspect(&ModelName::new(name.as_str()).ok()?, &path).ok()?;
        let served = FAMILIES.contains(&manifest.spec.family.as_str());
        Some((name, load(&manifest, &|_| {}).ok().filter(|_| served)?.model().ok()?))
    };
    paths.into_iter().filter_map(read).collect()
}

/// So many requests of one row, each of a sequence of its own.
fn in_sequences(model: &dyn Model, rows: usize) -> Vec<ModelRequest> {
    let sequence = |key: usize| Some(Sequence { key: key as u64 + 1, start: true, end: false });
    (0..rows).map(|key| ModelRequest { sequence: sequence(key), ..model.sample(1) }).collect()
}

/// As of the binary: large tensors come and go, which the system's gives back each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    // SAFETY: the process has only begun, and no thread beside this one.
    unsafe { orion_models::let_tensor_threads_rest() };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let Ok(pool) = rayon::ThreadPoolBuilder::new().num_threads(threads).build() else {
        return println!("skipped: no thread pool could be started");
    };
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("onnx");
    group.measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500)).sample_size(10);
    for (name, mut model) in fetched() {
        for rows in [1, 8, 32] {
            let mut batches = vec![(name.clone(), vec![model.sample(rows)])];
            if model.spec().family == "silero-vad" {
                batches.push((format!("{name} sequences"), in_sequences(&*model, rows)));
            }
            group.throughput(Throughput::Elements(rows as u64));
            for (called, batch) in batches {
                group.bench_function(BenchmarkId::new(called, rows), |bencher| {
                    pool.install(|| {
                        bencher.iter_batched(|| batch.clone(), |batch| model.run(batch), BatchSize::SmallInput)
                    });
                });
            }
        }
    }
    group.finish();
    criterion.final_summary();
}
