//! The server's and the models' own descriptions: metadata, readiness, configuration.

use axum::{extract::State, http::StatusCode, response::Response};
use orion_proto::{
    Code, Error,
    inference::{DataType, ModelInput, ModelOutput, ServerMetadataResponse, model_metadata_response::TensorMetadata},
};
use serde::Serialize;

use super::{
    Api, ModelPath,
    reply::{Failure, json},
};
use crate::api::metadata::{model_config, model_metadata, server_metadata};

pub(super) async fn server() -> Response {
    #[derive(Serialize)]
    struct Server {
        name: String,
        version: String,
        extensions: Vec<String>,
    }
    let ServerMetadataResponse { name, version, extensions } = server_metadata();
    json(&Server { name, version, extensions })
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
    struct Metadata {
        name: String,
        versions: Vec<String>,
        platform: String,
        inputs: Vec<Tensor>,
        outputs: Vec<Tensor>,
    }
    #[derive(Serialize)]
    struct Tensor {
        name: String,
        datatype: String,
        shape: Vec<i64>,
    }
    let tensors = |list: Vec<TensorMetadata>| {
        list.into_iter().map(|t| Tensor { name: t.name, datatype: t.datatype, shape: t.shape }).collect()
    };
    let of = model_metadata(&*api.0.front.model_spec(&path.name, &path.version)?);
    let (inputs, outputs) = (tensors(of.inputs), tensors(of.outputs));
    Ok(json(&Metadata { name: of.name, versions: of.versions, platform: of.platform, inputs, outputs }))
}

/// Triton's ModelConfig as its JSON form.
#[derive(Serialize)]
struct Config {
    name: String,
    platform: String,
    backend: String,
    max_batch_size: i32,
    input: Vec<TensorConfig>,
    output: Vec<TensorConfig>,
    model_transaction_policy: TransactionPolicy,
}

#[derive(Serialize)]
struct TensorConfig {
    name: String,
    data_type: &'static str,
    dims: Vec<i64>,
    /// Inputs alone have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    optional: Option<bool>,
}

#[derive(Serialize)]
struct TransactionPolicy {
    decoupled: bool,
}

pub(super) async fn config(State(api): State<Api>, path: ModelPath) -> Result<Response, Failure> {
    let of = model_config(&*api.0.front.model_spec(&path.name, &path.version)?);
    let tensor = |name, data_type: DataType, dims, optional| TensorConfig {
        name,
        data_type: data_type.as_str_name(),
        dims,
        optional,
    };
    let input = |input: ModelInput| tensor(input.name.clone(), input.data_type(), input.dims, Some(input.optional));
    let output = |output: ModelOutput| tensor(output.name.clone(), output.data_type(), output.dims, None);
    Ok(json(&Config {
        name: of.name,
        platform: of.platform,
        backend: of.backend,
        max_batch_size: of.max_batch_size,
        input: of.input.into_iter().map(input).collect(),
        output: of.output.into_iter().map(output).collect(),
        model_transaction_policy: TransactionPolicy {
            decoupled: of.model_transaction_policy.unwrap_or_default().decoupled,
        },
    }))
}
