//! Sentences per second of the encoder in f32 and in bf16, for 32 and 128 tokens in batches of 1, 8 and 32.
//!
//! Run on the fetched model: `scripts/fetch-models minilm --to models-data`, then `cargo bench --bench encoder`.

use std::{error::Error, path::PathBuf, time::Duration};

use criterion::{BatchSize, BenchmarkGroup, BenchmarkId, Criterion, Throughput, measurement::WallTime};
use orion_models::{Model, ModelRequest, inspect, load};
use orion_proto::{ModelName, Payload, Tensor, encode_bytes_elements};

/// The fetched model in a precision: its files, beside an `orion.toml` that names it.
fn fetched(precision: &str) -> Result<Box<dyn Model>, Box<dyn Error>> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../models-data").into();
    let path = PathBuf::from(std::env::var("ORION_MODELS").unwrap_or(default)).join("minilm");
    let folder = tempfile::tempdir()?;
    for entry in std::fs::read_dir(&path)?.flatten() {
        std::fs::copy(entry.path(), folder.path().join(entry.file_name()))?;
    }
    std::fs::write(folder.path().join("orion.toml"), format!("precision = \"{precision}\"\n"))?;
    Ok(load(&inspect(&ModelName::new("minilm")?, folder.path())?, &|_| {})?.model()?)
}

/// A request of so many rows of so many tokens: words of one token each, between the two special ones.
fn request(model: &dyn Model, rows: usize, tokens: usize) -> ModelRequest {
    let mut request = model.sample(rows);
    if let Some(Tensor { data, .. }) = request.inputs.first_mut() {
        *data = Payload::from(encode_bytes_elements(&vec!["a ".repeat(tokens - 2); rows]));
    }
    request
}

fn measure(group: &mut BenchmarkGroup<'_, WallTime>, pool: &rayon::ThreadPool, precision: &str) {
    let mut model = match fetched(precision) {
        Ok(model) => model,
        Err(error) => return println!("skipped: {error}; fetch it with: scripts/fetch-models minilm --to models-data"),
    };
    for tokens in [32, 128] {
        for rows in [1, 8, 32] {
            let one = request(&*model, rows, tokens);
            group.throughput(Throughput::Elements(rows as u64));
            group.bench_function(BenchmarkId::new(format!("{precision} {tokens} tokens"), rows), |bencher| {
                pool.install(|| {
                    bencher.iter_batched(|| vec![one.clone()], |batch| model.run(batch), BatchSize::SmallInput)
                });
            });
        }
    }
}

fn main() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let Ok(pool) = rayon::ThreadPoolBuilder::new().num_threads(threads).build() else {
        return println!("skipped: no thread pool could be started");
    };
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("encoder");
    group.measurement_time(Duration::from_secs(3)).sample_size(20);
    for precision in ["f32", "bf16"] {
        measure(&mut group, &pool, precision);
    }
    group.finish();
    criterion.final_summary();
}
