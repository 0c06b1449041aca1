//! A job, and then each change of it, or what happened to it, as server-sent events.

use axum::{
    extract::State,
    http::{HeaderMap, Uri},
    response::Response,
};
use futures::{StreamExt, TryStreamExt};
use orion_proto::jobs::{GetJobRequest, JobLogsRequest, jobs_server::Jobs};

use super::{Api, Id, call, query, refused};
use crate::{
    api::http::{
        openai::{Refusal, events},
        reply,
    },
    jobs::{logs, shown},
};

pub(super) async fn watch(State(api): State<Api>, headers: HeaderMap, Id(id): Id) -> Result<Response, Refusal> {
    let jobs = api.0.jobs.watch(call(&headers, GetJobRequest { id, ..Default::default() })).await;
    let jobs = jobs.map_err(|status| refused(&status))?.into_inner();
    Ok(events(jobs.map(|job| match job {
        Ok(job) => shown::json(&job).to_string(),
        Err(status) => refused(&status).event(),
    })))
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    #[serde(default)]
    follow: bool,
}

/// All lines as one object, or each as it comes where they are followed.
pub(super) async fn logs(
    State(api): State<Api>,
    headers: HeaderMap,
    Id(id): Id,
    uri: Uri,
) -> Result<Response, Refusal> {
    let Asked { follow } = query(uri.query())?;
    let lines = api.0.jobs.logs(call(&headers, JobLogsRequest { id, follow })).await;
    let lines = lines.map_err(|status| refused(&status))?.into_inner();
    if follow {
        return Ok(events(lines.map(|line| match line {
            Ok(line) => logs::json(&line).to_string(),
            Err(status) => refused(&status).event(),
        })));
    }
    let lines: Vec<_> = lines.try_collect().await.map_err(|status| refused(&status))?;
    Ok(reply::json(&serde_json::json!({ "lines": lines.iter().map(logs::json).collect::<Vec<_>>() })))
}
