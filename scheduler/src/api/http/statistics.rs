//! Triton's statistics extension.

use axum::{extract::State, response::Response};
use orion_proto::inference::{InferBatchStatistics, InferStatistics, MemoryUsage, ModelStatistics, StatisticDuration};
use serde::Serialize;

use super::{
    Api, ModelPath,
    reply::{Failure, json},
};

pub(super) async fn all(State(api): State<Api>) -> Result<Response, Failure> {
    Ok(answer(&api.0.front.statistics("", "")?))
}

pub(super) async fn one(State(api): State<Api>, path: ModelPath) -> Result<Response, Failure> {
    Ok(answer(&api.0.front.statistics(&path.name, &path.version)?))
}

fn answer(models: &[ModelStatistics]) -> Response {
    #[derive(Serialize)]
    struct Answer<'a> {
        model_stats: Vec<Model<'a>>,
    }
    json(&Answer { model_stats: models.iter().map(Model::of).collect() })
}

#[derive(Serialize)]
struct Model<'a> {
    name: &'a str,
    version: &'a str,
    /// Milliseconds since 1970.
    last_inference: u64,
    inference_count: u64,
    execution_count: u64,
    inference_stats: Inference,
    batch_stats: Vec<Batch>,
    memory_usage: Vec<Memory<'a>>,
}

#[derive(Serialize)]
struct Duration {
    count: u64,
    ns: u64,
}

#[derive(Serialize)]
struct Inference {
    success: Duration,
    fail: Duration,
    queue: Duration,
    compute_input: Duration,
    compute_infer: Duration,
    compute_output: Duration,
    cache_hit: Duration,
    cache_miss: Duration,
}

#[derive(Serialize)]
struct Batch {
    batch_size: u64,
    compute_input: Duration,
    compute_infer: Duration,
    compute_output: Duration,
}

#[derive(Serialize)]
struct Memory<'a> {
    r#type: &'a str,
    id: i64,
    byte_size: u64,
}

impl<'a> Model<'a> {
    fn of(model: &'a ModelStatistics) -> Self {
        Self {
            name: &model.name,
            version: &model.version,
            last_inference: model.last_inference,
            inference_count: model.inference_count,
            execution_count: model.execution_count,
            inference_stats: Inference::of(model.inference_stats.as_ref().unwrap_or(&InferStatistics::default())),
            batch_stats: model.batch_stats.iter().map(Batch::of).collect(),
            memory_usage: model.memory_usage.iter().map(Memory::of).collect(),
        }
    }
}

fn duration(given: Option<&StatisticDuration>) -> Duration {
    given.map_or(Duration { count: 0, ns: 0 }, |given| Duration { count: given.count, ns: given.ns })
}

impl Inference {
    fn of(given: &InferStatistics) -> Self {
        Self {
            success: duration(given.success.as_ref()),
            fail: duration(given.fail.as_ref()),
            queue: duration(given.queue.as_ref()),
            compute_input: duration(given.compute_input.as_ref()),
            compute_infer: duration(given.compute_infer.as_ref()),
            compute_output: duration(given.compute_output.as_ref()),
            cache_hit: duration(given.cache_hit.as_ref()),
            cache_miss: duration(given.cache_miss.as_ref()),
        }
    }
}

impl Batch {
    fn of(given: &InferBatchStatistics) -> Self {
        Self {
            batch_size: given.batch_size,
            compute_input: duration(given.compute_input.as_ref()),
            compute_infer: duration(given.compute_infer.as_ref()),
            compute_output: duration(given.compute_output.as_ref()),
        }
    }
}

impl<'a> Memory<'a> {
    fn of(given: &'a MemoryUsage) -> Self {
        Self { r#type: &given.r#type, id: given.id, byte_size: given.byte_size }
    }
}
