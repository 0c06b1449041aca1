//! A job, and then each change of it, as server-sent events.

use axum::{extract::State, http::HeaderMap, response::Response};
use futures::StreamExt;
use orion_proto::jobs::{GetJobRequest, jobs_server::Jobs};

use super::{Api, Id, call, refused};
use crate::{
    api::http::openai::{Refusal, events},
    jobs::shown,
};

pub(super) async fn watch(State(api): State<Api>, headers: HeaderMap, Id(id): Id) -> Result<Response, Refusal> {
    let jobs = api.0.jobs.watch(call(&headers, GetJobRequest { id, ..Default::default() })).await;
    let jobs = jobs.map_err(|status| refused(&status))?.into_inner();
    Ok(events(jobs.map(|job| match job {
        Ok(job) => shown::json(&job).to_string(),
        Err(status) => refused(&status).event(),
    })))
}
