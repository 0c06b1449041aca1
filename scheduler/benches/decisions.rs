//! What one input to the core costs with all that it triggers: arrivals at load 0.8, and the results, loads and unloads
//! between them. The figure is a request's share: it comes with about one other input.
//!
//! `cargo bench --workspace --bench decisions`

use std::time::Duration;

use criterion::{BenchmarkId, Criterion};
use orion_scheduler::simulate::scale::Scale;

/// Models, workers, and devices of each.
const CLUSTERS: [(usize, usize, usize); 3] = [(200, 4, 1), (2_000, 100, 2), (10_000, 1_000, 2)];

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("decisions");
    group.sample_size(20).measurement_time(Duration::from_secs(8));
    for (models, workers, devices) in CLUSTERS {
        let scale = Scale { models, workers, devices, load: 0.8, requests: 0, seed: 1 };
        let mut started = match scale.start() {
            Ok(started) => started,
            Err(error) => return println!("cannot start: {error}"),
        };
        let name = BenchmarkId::from_parameter(format!("{models} models on {workers} x {devices} devices"));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|requests| Duration::from_nanos(started.send(usize::try_from(requests).unwrap_or(0))));
        });
    }
    group.finish();
    criterion.final_summary();
}
