//! Images per second of the image classifiers and of nano-ocr, in batches of 1 and 8, from encoded files to answers.
//!
//! Run on the fetched models: `scripts/fetch-models all --to models-data`, then `cargo bench --bench vision`. An image of
//! the network's own size costs little more than the network; a photograph is decoded and resized beside it.

use std::{path::PathBuf, time::Duration};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use orion_models::{Model, ModelRequest, inspect, load};
use orion_proto::{ModelName, Payload, Tensor, bytes_elements, encode_bytes_elements};

/// A PNG of 224 by 224 black pixels: about 0.1 ms to decode.
const SMALL: &[u8] = include_bytes!("../../tests/data/images/black-224.png");

fn fetched(name: &str) -> orion_proto::Result<Box<dyn Model>> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../models-data").into();
    let path = PathBuf::from(std::env::var("ORION_MODELS").unwrap_or(default)).join(name);
    load(&inspect(&ModelName::new(name)?, &path)?, &|_| {})?.model()
}

/// A request of so many rows of one file.
fn request(model: &dyn Model, rows: usize, file: &[u8]) -> ModelRequest {
    let mut request = model.sample(1);
    if let Some(Tensor { data, shape, .. }) = request.inputs.first_mut() {
        *data = Payload::from(encode_bytes_elements(&vec![file; rows]));
        *shape = vec![rows as i64];
    }
    request
}

/// What the model brings for its warm-up.
fn photo(model: &dyn Model) -> Vec<u8> {
    let sample = model.sample(1);
    let image = sample.inputs.first().map(|image| bytes_elements(&image.name, &image.data.contiguous(), 1));
    image.and_then(Result::ok).and_then(|files| files.first().map(|file| file.to_vec())).unwrap_or_default()
}

fn main() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let Ok(pool) = rayon::ThreadPoolBuilder::new().num_threads(threads).build() else {
        return println!("skipped: no thread pool could be started");
    };
    let mut criterion = Criterion::default().configure_from_args();
    for name in ["efficientnet-lite0", "resnet18", "resnet50", "nano-ocr"] {
        let mut model = match fetched(name) {
            Ok(model) => model,
            Err(error) => {
                println!("skipped: {error}");
                continue;
            }
        };
        let photo = photo(&*model);
        let mut group = criterion.benchmark_group(name);
        group.measurement_time(Duration::from_secs(3)).sample_size(20);
        for (kind, file) in [("small", SMALL), ("photo", &photo)] {
            for rows in [1, 8] {
                let one = request(&*model, rows, file);
                group.throughput(Throughput::Elements(rows as u64));
                group.bench_function(BenchmarkId::new(kind, rows), |bencher| {
                    pool.install(|| {
                        bencher.iter_batched(|| vec![one.clone()], |batch| model.run(batch), BatchSize::SmallInput)
                    });
                });
            }
        }
        group.finish();
    }
    criterion.final_summary();
}
