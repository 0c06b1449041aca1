//! OpenAI's batches: jobs that are files.

use std::collections::HashMap;

use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, Uri},
    response::Response,
};
use orion_proto::{
    Error,
    jobs::{
        FileCalls, GetJobRequest, Job, JobSpec, ListJobsRequest, SubmitJobRequest, job_spec::Work, jobs_server::Jobs,
    },
};
use serde::Deserialize;

use super::{Api, batch::shown, call, files::page, numbered, query, read, refused, submission::key_of};
use crate::api::http::{
    openai::Refusal,
    reply::{self, excerpt},
};

const PREFIX: &str = "batch_";
/// Batches of a page where nothing is said, and at most.
const PAGE: u32 = 20;
const MOST_PAGE: u32 = 100;

/// The body. What OpenAI's has beside is not used.
#[derive(Deserialize)]
#[serde(expecting = "a batch")]
struct Request {
    input_file_id: String,
    endpoint: String,
    completion_window: String,
    #[serde(default)]
    metadata: Option<HashMap<String, String>>,
    #[serde(default)]
    output_expires_after: Option<ExpiresAfter>,
}

#[derive(Deserialize)]
struct ExpiresAfter {
    seconds: u64,
}

/// Milliseconds of a window such as 24h.
fn window(text: &str) -> Result<u64, Refusal> {
    let wrong = || {
        let shown = excerpt(text);
        Error::invalid(format!(
            "completion_window '{shown}' must be a number of hours, such as 24h; m and d are minutes and days"
        ))
    };
    let unit = match text.as_bytes().last() {
        Some(b'm') => 60_000,
        Some(b'h') => 3_600_000,
        Some(b'd') => 86_400_000,
        _ => return Err(wrong().into()),
    };
    let number = text[..text.len() - 1].parse::<u64>().ok().filter(|number| *number > 0);
    Ok(number.and_then(|number| number.checked_mul(unit)).ok_or_else(wrong)?)
}

pub(super) async fn create(State(api): State<Api>, headers: HeaderMap, body: Body) -> Result<Response, Refusal> {
    let asked: Request = read(&api, &headers, body).await?;
    let spec = JobSpec {
        deadline_ms: window(&asked.completion_window)?,
        work: Some(Work::File(FileCalls {
            file_id: asked.input_file_id,
            path: asked.endpoint,
            ..FileCalls::default()
        })),
        labels: asked.metadata.unwrap_or_default(),
        idempotency_key: key_of(&headers)?,
        keep_ms: asked.output_expires_after.map_or(0, |after| after.seconds.saturating_mul(1000)),
        ..JobSpec::default()
    };
    let id = api.0.jobs.submit(call(&headers, SubmitJobRequest { spec: Some(spec) })).await;
    let id = id.map_err(|status| refused(&status))?.into_inner().id;
    answered(api.0.jobs.get(call(&headers, GetJobRequest { id, ..Default::default() })).await)
}

pub(super) async fn one(
    State(api): State<Api>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let id = numbered(&id, PREFIX)?;
    answered(api.0.jobs.get(call(&headers, GetJobRequest { id, ..Default::default() })).await)
}

pub(super) async fn cancel(
    State(api): State<Api>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let id = numbered(&id, PREFIX)?;
    // Of another kind of job it is not a batch's number.
    let job = api
        .0
        .jobs
        .get(call(&headers, GetJobRequest { id, ..Default::default() }))
        .await
        .map_err(|status| refused(&status))?
        .into_inner();
    shown(&job)?;
    answered(api.0.jobs.cancel(call(&headers, GetJobRequest { id, ..Default::default() })).await)
}

fn answered(job: Result<tonic::Response<Job>, tonic::Status>) -> Result<Response, Refusal> {
    Ok(reply::json(&shown(&job.map_err(|status| refused(&status))?.into_inner())?))
}

#[derive(Deserialize)]
struct Listed {
    #[serde(default)]
    after: Option<String>,
    #[serde(default)]
    limit: u32,
}

pub(super) async fn list(State(api): State<Api>, headers: HeaderMap, uri: Uri) -> Result<Response, Refusal> {
    let Listed { after, limit } = query(uri.query())?;
    let limit = if limit == 0 { PAGE } else { limit.min(MOST_PAGE) };
    let before = after.map(|after| numbered(&after, PREFIX)).transpose()?.unwrap_or(0);
    let asked = ListJobsRequest { kind: "file".into(), before, limit, ..Default::default() };
    let listed = api.0.jobs.list(call(&headers, asked)).await.map_err(|status| refused(&status))?.into_inner();
    let batches = listed.jobs.iter().map(shown).collect::<Result<_, _>>()?;
    Ok(reply::json(&page(batches, listed.before > 0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_hours_minutes_or_days() {
        let read = |text| window(text).ok();
        assert_eq!((read("24h"), read("30m"), read("7d")), (Some(86_400_000), Some(1_800_000), Some(604_800_000)));
        for wrong in ["", "h", "24", "0h", "-1h", "99999999999999999999h", "18446744073709551615d", "ü"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
