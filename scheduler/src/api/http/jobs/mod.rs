//! Jobs over HTTP: `/v1/jobs`, described by `/openapi.json`, and OpenAI's `/v1/files` and `/v1/batches`.

mod batch;
mod batches;
mod files;
mod result;
mod submission;
mod upload;
mod watch;

use std::{collections::HashMap, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, FromRequestParts, Path, Query, State},
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use orion_proto::{
    Error, Result,
    jobs::{GetJobRequest, Job, ListJobsRequest, SubmitJobRequest, jobs_server::Jobs},
};
use serde::de::DeserializeOwned;
use tonic::{Request, metadata::MetadataMap};

use super::{
    body,
    openai::Refusal,
    reply::{self, excerpt},
};
use crate::{
    api::{
        budget::Budget,
        grpc::{FilesService, JobsService},
    },
    jobs::shown,
};

/// What handlers need.
#[derive(Clone)]
struct Api(Arc<Services>);

struct Services {
    jobs: JobsService,
    files: FilesService,
    max_message_bytes: usize,
    budget: Budget,
}

/// The routes of jobs and files.
pub(super) fn routes(jobs: JobsService, files: FilesService, max_message_bytes: usize, budget: Budget) -> Router {
    Router::new()
        .route("/openapi.json", get(document))
        .route("/v1/jobs", post(submit).get(list))
        .route("/v1/jobs/{id}", get(one))
        .route("/v1/jobs/{id}/watch", get(watch::watch))
        .route("/v1/jobs/{id}/logs", get(watch::logs))
        .route("/v1/jobs/{id}/result", get(result::result))
        .route("/v1/jobs/{id}/cancel", post(cancel))
        .route("/v1/jobs/{id}/retry", post(retry))
        .route("/v1/files", post(files::upload).get(files::list))
        .route("/v1/files/{id}", get(files::one).delete(files::delete))
        .route("/v1/files/{id}/content", get(files::content))
        .route("/v1/batches", post(batches::create).get(batches::list))
        .route("/v1/batches/{id}", get(batches::one))
        .route("/v1/batches/{id}/cancel", post(batches::cancel))
        .layer(DefaultBodyLimit::disable())
        .method_not_allowed_fallback(super::wrong_method)
        .with_state(Api(Arc::new(Services { jobs, files, max_message_bytes, budget })))
}

async fn document() -> Response {
    let document = include_str!("openapi.json").replace("{VERSION}", env!("CARGO_PKG_VERSION"));
    reply::json_bytes(document.into_bytes())
}

/// The client's own metadata, for whoever does what it asks.
fn metadata(headers: &HeaderMap) -> MetadataMap {
    let mut kept = HeaderMap::new();
    for value in headers.get_all(axum::http::header::AUTHORIZATION) {
        kept.append(axum::http::header::AUTHORIZATION, value.clone());
    }
    MetadataMap::from_headers(kept)
}

fn call<T>(headers: &HeaderMap, message: T) -> Request<T> {
    Request::from_parts(metadata(headers), tonic::Extensions::new(), message)
}

fn refused(status: &tonic::Status) -> Refusal {
    Error::of_status(status).into()
}

/// A job's number, from the path.
struct Id(u64);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> std::result::Result<Self, Refusal> {
        let id = Path::<String>::from_request_parts(parts, state).await.map(|Path(id)| id).unwrap_or_default();
        let number = plain(&id).ok_or_else(|| Error::invalid(format!("job '{}' must be a number", excerpt(&id))))?;
        Ok(Self(number))
    }
}

/// Reads a query's fields, each by its name.
fn query<T: DeserializeOwned>(query: Option<&str>) -> std::result::Result<T, Refusal> {
    let uri = format!("/?{}", query.unwrap_or_default()).parse();
    let uri = uri.map_err(|_| Error::invalid("the query cannot be read"))?;
    let read: Query<T> = Query::try_from_uri(&uri)
        .map_err(|error| Error::invalid(format!("the query is wrong: {}", error.body_text())))?;
    Ok(read.0)
}

/// Reads a body of JSON.
async fn read<T: DeserializeOwned>(api: &Api, headers: &HeaderMap, body: Body) -> std::result::Result<T, Refusal> {
    let is_json = headers.get(CONTENT_TYPE).is_none_or(|kind| kind.as_bytes().starts_with(b"application/json"));
    if !is_json {
        return Err(Error::invalid("the body must be JSON: Content-Type application/json").into());
    }
    let body = body::read(headers, body, api.0.max_message_bytes, api.0.budget.hold()).await?;
    let mut json = serde_json::Deserializer::from_slice(&body);
    let read = serde_path_to_error::deserialize(&mut json);
    let read = read.map_err(|error| Error::invalid(format!("the body is not what it must be: {error}")))?;
    json.end().map_err(|error| Error::invalid(format!("the body is more than one object: {error}")))?;
    Ok(read)
}

async fn submit(State(api): State<Api>, headers: HeaderMap, body: Body) -> std::result::Result<Response, Refusal> {
    let written: submission::Submission = read(&api, &headers, body).await?;
    let spec = Some(written.spec(&headers)?);
    let submitted = api.0.jobs.submit(call(&headers, SubmitJobRequest { spec })).await;
    let id = submitted.map_err(|status| refused(&status))?.into_inner().id;
    // It is on disk: one that cannot be looked at now is accepted all the same.
    let job = api.0.jobs.get(call(&headers, GetJobRequest { id, ..Default::default() })).await;
    let job = job.map_or_else(|_| serde_json::json!({ "id": id }), |job| shown::json(&job.into_inner()));
    Ok((StatusCode::CREATED, reply::json(&job)).into_response())
}

async fn one(State(api): State<Api>, headers: HeaderMap, Id(id): Id) -> std::result::Result<Response, Refusal> {
    answered(api.0.jobs.get(call(&headers, GetJobRequest { id, ..Default::default() })).await)
}

async fn cancel(State(api): State<Api>, headers: HeaderMap, Id(id): Id) -> std::result::Result<Response, Refusal> {
    answered(api.0.jobs.cancel(call(&headers, GetJobRequest { id, ..Default::default() })).await)
}

async fn retry(State(api): State<Api>, headers: HeaderMap, Id(id): Id) -> std::result::Result<Response, Refusal> {
    answered(api.0.jobs.retry(call(&headers, GetJobRequest { id, ..Default::default() })).await)
}

fn answered(job: std::result::Result<tonic::Response<Job>, tonic::Status>) -> std::result::Result<Response, Refusal> {
    let job = job.map_err(|status| refused(&status))?.into_inner();
    Ok(reply::json(&shown::json(&job)))
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    #[serde(default)]
    state: String,
    /// NAME=VALUE.
    #[serde(default)]
    label: Option<String>,
    #[serde(default)]
    before: u64,
    #[serde(default)]
    limit: u32,
    #[serde(default)]
    of_job: u64,
    #[serde(default)]
    kind: String,
}

async fn list(
    State(api): State<Api>,
    headers: HeaderMap,
    uri: axum::http::Uri,
) -> std::result::Result<Response, Refusal> {
    let Listed { state, label, before, limit, of_job, kind } = query(uri.query())?;
    let label = label.map(|label| match label.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err(Error::invalid(format!("label '{}' must be NAME=VALUE", excerpt(&label)))),
    });
    let labels: HashMap<String, String> = label.transpose()?.into_iter().collect();
    let asked = ListJobsRequest { state, labels, before, limit, of_job, kind };
    let listed = api.0.jobs.list(call(&headers, asked)).await.map_err(|status| refused(&status))?.into_inner();
    let jobs: Vec<_> = listed.jobs.iter().map(shown::json).collect();
    let before = (listed.before > 0).then_some(listed.before);
    Ok(reply::json(&serde_json::json!({ "jobs": jobs, "before": before })))
}

/// A number that a client wrote as the end of an id such as `batch_17`.
fn numbered(id: &str, prefix: &str) -> Result<u64> {
    let number = id.strip_prefix(prefix).and_then(plain);
    number.ok_or_else(|| {
        Error::new(orion_proto::Code::NotFound, format!("'{}' is none, it must be such as {prefix}17", excerpt(id)))
    })
}

/// A number that is written in one way alone.
fn plain(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number: &u64| number.to_string() == text)
}
