//! What the simulated workers say, and what is read of what they are told.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use orion_net::{AttemptResult, Batch, BatchResult};
use orion_proto::{
    Datatype, Error, InferAnswer, InferRequest, ModelName, ModelPolicy, ModelSpec, Payload, Result, ServiceCurve,
    Tensor, TensorSpec, session,
};

use super::world::{WorldModel, WorldWorker};
use crate::core::{Command, IN_PROCESS, ModelState, Nanos, Report};

/// The kind and family of everything here.
const SIMULATED: &str = "simulated";

/// A number that stands for all commands so far, in order.
pub(super) fn digest<T: Hash, L: Hash>(before: u64, command: &Command<T, L>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (before, std::mem::discriminant(command)).hash(&mut hasher);
    match command {
        Command::Run { link, batch } => (link, batch.batch, &*batch.device, batch.attempts.len()).hash(&mut hasher),
        Command::Settle { ticket, outcome, .. } => (ticket, outcome.is_ok()).hash(&mut hasher),
        Command::Load { link, order, .. } | Command::Unload { link, order, .. } => (link, order).hash(&mut hasher),
        Command::Inspect { link, order, .. } => (link, order).hash(&mut hasher),
        Command::Pull { link, path, fetch, .. } => (link, path, fetch).hash(&mut hasher),
        Command::Cancel { link, batch, .. } => (link, batch).hash(&mut hasher),
        Command::Close { link, .. } | Command::Drained { link } => link.hash(&mut hasher),
        Command::Tell { delta, .. } => delta.tokens.hash(&mut hasher),
    }
    hasher.finish()
}

/// A request of so many rows, without an id.
pub(super) fn request(rows: usize) -> InferRequest {
    let data = Payload::from(vec![0; rows * 4]);
    let input = Tensor { name: "x".into(), datatype: Datatype::Fp32, shape: vec![rows as i64], data };
    InferRequest { inputs: vec![input], ..InferRequest::default() }
}

pub(super) fn rows_of(batch: &Batch) -> usize {
    batch.attempts.iter().filter_map(|attempt| attempt.request.inputs.first()).map(Tensor::rows).sum()
}

pub(super) fn device_number(name: &str) -> usize {
    name.trim_start_matches("sim").parse().unwrap_or(0)
}

pub(super) fn carrier(worker: &WorldWorker) -> &'static str {
    if worker.round_trip == 0 { IN_PROCESS } else { "simulated" }
}

pub(super) fn spec(index: usize, model: &WorldModel) -> Result<ModelSpec> {
    Ok(ModelSpec {
        name: ModelName::new(format!("m{index}"))?,
        version: "1".into(),
        family: SIMULATED.into(),
        inputs: vec![TensorSpec::new("x", Datatype::Fp32, [-1])],
        outputs: Vec::new(),
        max_batch_rows: model.max_rows,
        memory_bytes: model.bytes,
        inline: false,
        policy: ModelPolicy { slo: Some(model.slo), min_replicas: model.min_replicas, ..ModelPolicy::default() },
        generator: None,
    })
}

/// What a worker says of itself; `held` are the bytes that each of its devices holds.
pub(super) fn hello(index: usize, worker: &WorldWorker, held: impl Fn(usize) -> u64) -> session::Hello {
    let device = |number: usize| session::Device {
        name: format!("sim{number}"),
        kind: SIMULATED.into(),
        model: format!("speed {}", worker.speed),
        memory_total_bytes: worker.memory_bytes,
        // 0 would say that it is not known.
        memory_free_bytes: (worker.memory_bytes - held(number)).max(1),
        usable: true,
        ..session::Device::default()
    };
    let capability = session::Capability { devices: (0..worker.devices).map(device).collect(), ..Default::default() };
    session::Hello {
        name: format!("w{index}"),
        incarnation: 1,
        capability: Some(capability),
        ..session::Hello::default()
    }
}

pub(super) fn result(batch: &Batch, service: Nanos) -> BatchResult {
    let done =
        |attempt: u64| AttemptResult { attempt, outcome: Ok::<_, Error>(InferAnswer::default()), not_started: false };
    BatchResult {
        batch: batch.batch,
        epoch: batch.epoch,
        service_seconds: service as f64 / 1e9,
        rows: rows_of(batch) as u64,
        waited_seconds: 0.0,
        peak_bytes: 0,
        results: batch.attempts.iter().map(|attempt| done(attempt.attempt)).collect(),
    }
}

/// What a worker says of a model on one of its devices.
pub(super) fn report(
    spec: &ModelSpec,
    model: &WorldModel,
    worker: &WorldWorker,
    device: usize,
    order: u64,
    state: ModelState,
) -> Report {
    Report {
        name: Arc::from(spec.name.as_str()),
        device: format!("sim{device}"),
        state,
        error: String::new(),
        progress: 1.0,
        spec: Some(spec.clone()),
        curve: ServiceCurve {
            base_seconds: model.base_ms / worker.speed / 1e3,
            per_row_seconds: model.per_row_ms / worker.speed / 1e3,
        },
        order,
        load_seconds: model.load as f64 / 1e9,
        peak_bytes: 0,
    }
}
