//! The server's and the models' own descriptions: metadata, readiness, configuration.

use axum::{extract::State, http::StatusCode, response::Response};
use orion_proto::{Code, Error, ModelSpec, TensorSpec};
use serde::Serialize;

use super::{
    Api, ModelPath,
    reply::{Failure, json},
};

/// Triton's names of the extensions that are served.
const EXTENSIONS: [&str; 7] = [
    "model_repository",
    "model_repository(unload_dependents)",
    "schedule_policy",
    "model_configuration",
    "binary_tensor_data",
    "parameters",
    "statistics",
];

pub(super) async fn server() -> Response {
    #[derive(Serialize)]
    struct Server {
        name: &'static str,
        version: &'static str,
        extensions: [&'static str; 7],
    }
    json(&Server { name: "orion", version: env!("CARGO_PKG_VERSION"), extensions: EXTENSIONS })
}

pub(super) async fn live() -> StatusCode {
    StatusCode::OK
}

pub(super) async fn ready(State(api): State<Api>) -> Result<StatusCode, Failure> {
    match api.0.front.ready() {
        true => Ok(StatusCode::OK),
        false => Err(Error::new(Code::Unavailable, "the server is starting or stopping").into()),
    }
}

pub(super) async fn model_ready(State(api): State<Api>, path: ModelPath) -> Result<StatusCode, Failure> {
    match api.0.front.model_ready(&path.name, &path.version)? {
        true => Ok(StatusCode::OK),
        false => Err(Error::new(Code::Unavailable, format!("model '{}' is not ready yet", path.name)).into()),
    }
}

pub(super) async fn metadata(State(api): State<Api>, path: ModelPath) -> Result<Response, Failure> {
    #[derive(Serialize)]
    struct Metadata<'a> {
        name: &'a str,
        versions: [&'a str; 1],
        platform: &'a str,
        inputs: Vec<TensorMetadata<'a>>,
        outputs: Vec<TensorMetadata<'a>>,
    }
    let spec = api.0.front.model_spec(&path.name, &path.version)?;
    Ok(json(&Metadata {
        name: spec.name.as_str(),
        versions: [&spec.version],
        platform: &spec.family,
        inputs: spec.inputs.iter().map(TensorMetadata::of).collect(),
        outputs: spec.outputs.iter().map(TensorMetadata::of).collect(),
    }))
}

#[derive(Serialize)]
struct TensorMetadata<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: &'a [i64],
}

impl<'a> TensorMetadata<'a> {
    fn of(tensor: &'a TensorSpec) -> Self {
        Self { name: &tensor.name, datatype: tensor.datatype.name(), shape: declared(tensor) }
    }
}

/// A tensor of any shape is shown as clients know it: one dimension of any size.
fn declared(tensor: &TensorSpec) -> &[i64] {
    if tensor.any_shape() { &[-1] } else { &tensor.shape }
}

pub(super) async fn config(State(api): State<Api>, path: ModelPath) -> Result<Response, Failure> {
    Ok(json(&Config::of(&*api.0.front.model_spec(&path.name, &path.version)?)))
}

/// Triton's ModelConfig as its JSON form.
#[derive(Serialize)]
struct Config<'a> {
    name: &'a str,
    platform: &'a str,
    backend: &'static str,
    /// 0: Triton's clients add no batch dimension, the first one declared is rows.
    max_batch_size: u32,
    input: Vec<TensorConfig<'a>>,
    output: Vec<TensorConfig<'a>>,
    model_transaction_policy: TransactionPolicy,
}

#[derive(Serialize)]
struct TensorConfig<'a> {
    name: &'a str,
    data_type: &'static str,
    dims: &'a [i64],
}

#[derive(Serialize)]
struct TransactionPolicy {
    decoupled: bool,
}

impl<'a> Config<'a> {
    fn of(spec: &'a ModelSpec) -> Self {
        let tensor = |tensor: &'a TensorSpec| TensorConfig {
            name: &tensor.name,
            data_type: tensor.datatype.triton().as_str_name(),
            dims: declared(tensor),
        };
        Self {
            name: spec.name.as_str(),
            platform: &spec.family,
            backend: "orion",
            max_batch_size: 0,
            input: spec.inputs.iter().map(tensor).collect(),
            output: spec.outputs.iter().map(tensor).collect(),
            model_transaction_policy: TransactionPolicy { decoupled: false },
        }
    }
}
