//! A job as JSON, without what it is asked and answers.

use orion_proto::jobs::{Job, JobSpec, Progress, job_spec::Work};
use serde_json::{Value, json};

use super::files;

/// The kinds of work, as they are listed by.
pub(super) const KINDS: [&str; 4] = ["", "inference", "call", "file"];

/// The kind of a job's work.
pub fn kind(spec: Option<&JobSpec>) -> &'static str {
    match spec.and_then(|spec| spec.work.as_ref()) {
        Some(Work::Inference(_)) => "inference",
        Some(Work::Call(_)) => "call",
        Some(Work::File(_)) => "file",
        None => "",
    }
}

/// The model that does a job's work; of a file, where each line says that for itself, none.
pub fn model(job: &Job) -> &str {
    match job.spec.as_ref().and_then(|spec| spec.work.as_ref()) {
        Some(Work::Inference(request)) => &request.model_name,
        Some(Work::Call(call)) => &call.model,
        Some(Work::File(file)) => &file.model,
        None => "",
    }
}

/// The job as REST and `-o json` have it.
pub fn json(job: &Job) -> Value {
    let spec = job.spec.clone().unwrap_or_default();
    let failed = job.failed.iter().map(|failed| {
        json!({
            "attempt": failed.attempt, "code": failed.code, "message": failed.message,
            "ended_unix_ms": failed.ended_unix_ms,
        })
    });
    let (path, file_id) = match &spec.work {
        Some(Work::Call(call)) => (Some(&call.path), None),
        Some(Work::File(file)) => (Some(&file.path), Some(&file.file_id)),
        _ => (None, None),
    };
    let row = job.row.as_ref();
    json!({
        "id": job.id, "kind": kind(Some(&spec)), "model": model(job), "path": path, "file_id": file_id,
        "state": job.state, "reason": job.reason, "attempt": job.attempt, "priority": spec.priority,
        "idempotency_key": spec.idempotency_key, "after": spec.after, "labels": spec.labels,
        "submitted_unix_ms": job.submitted_unix_ms, "begun_unix_ms": job.begun_unix_ms,
        "ended_unix_ms": job.ended_unix_ms, "failed": failed.collect::<Vec<_>>(),
        "row": row.map(|row| json!({ "job": row.job, "line": row.line, "custom_id": row.custom_id })),
        "progress": job.progress.as_ref().map(progress),
    })
}

/// The files of what came of a file's lines: of those that succeeded, and of the others.
pub fn answer_ids(job: u64) -> (String, String) {
    (files::id(job, files::OUTPUT), files::id(job, files::ERRORS))
}

/// The code and the message of a job that did not succeed; empty where it did.
pub fn why(job: &Job) -> (&str, &str) {
    job.reason.split_once(": ").unwrap_or(("", &job.reason))
}

/// How far a job is that is a file.
pub fn progress(progress: &Progress) -> Value {
    json!({
        "rows": progress.rows, "succeeded": progress.succeeded, "failed": progress.failed,
        "read_bytes": progress.read_bytes, "bytes": progress.bytes, "lines": progress.lines,
    })
}
