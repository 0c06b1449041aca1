//! A job as a client of REST writes it.

use std::collections::HashMap;

use axum::http::HeaderMap;
use orion_proto::{
    Error, Result,
    jobs::{FileCalls, HttpCall, JobSpec, RetryPolicy, Training, job_spec::Work},
};
use serde::Deserialize;
use serde_json::value::RawValue;

/// What many clients of HTTP give a key in.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The key of the header; empty: none.
///
/// # Errors
/// INVALID_ARGUMENT where it is no text.
pub(super) fn key_of(headers: &HeaderMap) -> Result<String> {
    let key = headers.get(IDEMPOTENCY_KEY).map(|key| key.to_str()).transpose();
    let key = key.map_err(|_| Error::invalid("header 'idempotency-key' must be visible ASCII"))?;
    Ok(key.unwrap_or_default().to_owned())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a job")]
pub(super) struct Submission {
    #[serde(default)]
    call: Option<Call>,
    #[serde(default)]
    file: Option<File>,
    /// The plan.
    #[serde(default)]
    training: Option<Box<RawValue>>,
    #[serde(default)]
    idempotency_key: String,
    #[serde(default)]
    priority: String,
    #[serde(default)]
    deadline_ms: u64,
    #[serde(default)]
    retry: Option<Retry>,
    #[serde(default)]
    keep_ms: u64,
    #[serde(default)]
    after: Vec<u64>,
    #[serde(default)]
    labels: HashMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a call")]
struct Call {
    path: String,
    body: Box<RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a file of calls")]
struct File {
    file_id: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    model: String,
    #[serde(default)]
    format: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a retry policy")]
struct Retry {
    #[serde(default)]
    attempts: u32,
    #[serde(default)]
    back_off_ms: u64,
    #[serde(default)]
    codes: Vec<String>,
}

impl Submission {
    /// As the service takes it.
    ///
    /// # Errors
    /// INVALID_ARGUMENT where it has not one kind of work, or two idempotency keys.
    pub(super) fn spec(self, headers: &HeaderMap) -> Result<JobSpec> {
        let work = match (self.call, self.file, self.training) {
            (Some(Call { path, body }), None, None) => {
                let body = String::from(Box::<str>::from(body)).into();
                Work::Call(HttpCall { path, body, model: String::new() })
            }
            (None, Some(File { file_id, path, model, format }), None) => {
                Work::File(FileCalls { file_id, path, model, format })
            }
            (None, None, Some(plan)) => Work::Training(Training { plan: plan.get().to_owned() }),
            _ => return Err(Error::invalid("the job must have one kind of work: 'call', 'file' or 'training'")),
        };
        let idempotency_key = match (key_of(headers)?, self.idempotency_key) {
            (header, own) if own.is_empty() => header,
            (header, own) if header.is_empty() || header == own => own,
            _ => return Err(Error::invalid("the idempotency key of the header is not that of the body")),
        };
        let retry =
            self.retry.map(|Retry { attempts, back_off_ms, codes }| RetryPolicy { attempts, back_off_ms, codes });
        Ok(JobSpec {
            work: Some(work),
            idempotency_key,
            priority: self.priority,
            deadline_ms: self.deadline_ms,
            retry,
            keep_ms: self.keep_ms,
            after: self.after,
            labels: self.labels,
        })
    }
}
