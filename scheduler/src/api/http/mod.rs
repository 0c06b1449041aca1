//! HTTP: the Open Inference Protocol's REST with Triton's extensions under `/v2`, OpenAI's API under `/v1`.

mod at_most;
mod body;
mod element_json;
mod explain;
mod generate;
mod infer;
mod infer_request;
mod infer_response;
mod jobs;
mod model;
mod openai;
mod parameters;
mod raw_request;
pub(crate) mod reply;
mod repository;
mod request_id;
pub mod server;
mod statistics;

use std::sync::Arc;

use axum::{
    Router,
    extract::{FromRequestParts, RawPathParams, Request},
    http::{StatusCode, request::Parts},
    response::Response,
    routing::{any, get, post},
};
use orion_proto::{Code, Error};

use super::{
    access::Access,
    budget::Budget,
    grpc::{FilesService, JobsService},
};
use crate::front::Front;
use reply::Failure;

/// What every handler needs.
#[derive(Clone)]
struct Api(Arc<State>);

struct State {
    front: Front,
    /// Largest request body, in bytes.
    max_message_bytes: usize,
    /// For bodies on their way in.
    budget: Budget,
    /// Seconds since 1970 at which the server began: OpenAI's `created`.
    started: u64,
}

/// The routes of the HTTP port, behind `access`. Request bodies above `max_message_bytes` are refused.
pub fn router(
    front: Front,
    (jobs, files): (JobsService, FilesService),
    max_message_bytes: usize,
    budget: Budget,
    access: &Arc<Access>,
) -> Router {
    let started = reply::unix_seconds();
    Router::new()
        .merge(inference_routes())
        .route("/v2", get(model::server))
        .route("/v2/", get(model::server))
        .route("/v2/health/live", get(model::live))
        .route("/v2/health/ready", get(model::ready))
        .route("/v2/models/stats", get(statistics::all))
        .route("/v2/orion/explain/models/{model}", get(explain::model))
        .route("/v2/orion/explain/requests/{id}", get(explain::request))
        .route("/v2/repository/index", post(repository::index))
        .route("/v2/repository/models/{model}/load", post(repository::load))
        .route("/v2/repository/models/{model}/unload", post(repository::unload))
        .route("/v2/systemsharedmemory/{*rest}", any(shared_memory))
        .route("/v2/cudasharedmemory/{*rest}", any(shared_memory))
        .route("/v2/trace/setting", any(trace))
        .route("/v2/models/{model}/trace/setting", any(trace))
        .route("/v2/logging", any(logging))
        .route("/v1/models", get(openai::models))
        .route("/v1/models/{model}", get(openai::model))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(Api(Arc::new(State { front, max_message_bytes, budget: budget.clone(), started })))
        .merge(jobs::routes(jobs, files, max_message_bytes, budget))
        .layer(access.http_layer())
}

/// What jobs may call, without a port: what they send was let in when they were submitted.
pub(crate) fn inner_router(front: Front) -> Router {
    let (started, budget) = (reply::unix_seconds(), Budget::new(usize::MAX));
    inference_routes()
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(Api(Arc::new(State { front, max_message_bytes: usize::MAX, budget, started })))
}

fn inference_routes() -> Router<Api> {
    Router::new()
        .merge(model_routes("/v2/models/{model}"))
        .merge(model_routes("/v2/models/{model}/versions/{version}"))
        .route("/v1/chat/completions", post(openai::chat))
        .route("/v1/completions", post(openai::completions))
        .route("/v1/embeddings", post(openai::embeddings))
        .route("/v1/rerank", post(openai::rerank))
        .route("/v1/audio/transcriptions", post(openai::transcriptions))
}

fn model_routes(model: &str) -> Router<Api> {
    let path = |end: &str| format!("{model}{end}");
    Router::new()
        .route(&path("/infer"), post(infer::infer))
        .route(model, get(model::metadata))
        .route(&path("/ready"), get(model::model_ready))
        .route(&path("/config"), get(model::config))
        .route(&path("/stats"), get(statistics::one))
        .route(&path("/generate"), post(generate::generate))
        .route(&path("/generate_stream"), post(generate::generate_stream))
}

/// The model (or another name) and the version of a path; no version is the newest.
struct ModelPath {
    name: String,
    version: String,
}

impl<S: Send + Sync> FromRequestParts<S> for ModelPath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let parameters = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| Error::invalid("the path holds a model name that is not UTF-8"))?;
        let mut path = Self { name: String::new(), version: String::new() };
        for (key, value) in &parameters {
            match key {
                "version" => value.clone_into(&mut path.version),
                _ => value.clone_into(&mut path.name),
            }
        }
        Ok(path)
    }
}

fn unserved(what: &str) -> Failure {
    Error::new(Code::Unimplemented, what).into()
}

async fn shared_memory() -> Failure {
    unserved("shared memory is not served, send the tensor's bytes")
}

async fn trace() -> Failure {
    unserved("trace settings are not served, set them with flags when the server starts")
}

async fn logging() -> Failure {
    unserved("log settings are not served, set them with flags when the server starts")
}

async fn unknown_path(request: Request) -> Response {
    let path = request.uri().path();
    let shown = reply::excerpt(path);
    let message = format!("path '{shown}' is unknown, this server has /v2 (Open Inference Protocol) and /v1 (OpenAI)");
    reply::in_dialect_of(path, Error::new(Code::NotFound, message).into())
}

async fn wrong_method(request: Request) -> Response {
    let path = request.uri().path();
    let message = format!("method {} does not fit path '{}'", request.method(), reply::excerpt(path));
    reply::in_dialect_of(path, Failure::new(StatusCode::METHOD_NOT_ALLOWED, message))
}
