//! A job that is a file, as OpenAI has batches.

use orion_proto::{
    Code, Error, Result,
    jobs::{FileCalls, Job, job_spec::Work},
};
use serde_json::{Value, json};

use crate::jobs::shown::{answer_ids, why};

/// The batch.
///
/// # Errors
/// NOT_FOUND where the job is no file.
pub(super) fn shown(job: &Job) -> Result<Value> {
    let spec = job.spec.clone().unwrap_or_default();
    let Some(Work::File(FileCalls { file_id, path, .. })) = spec.work else {
        return Err(Error::new(Code::NotFound, format!("job {} is no batch", job.id)));
    };
    let status = status(job);
    let progress = job.progress.unwrap_or_default();
    let seconds = |unix_ms: u64| (unix_ms > 0).then_some(unix_ms / 1000);
    let ended = |of: &str| (status == of).then(|| seconds(job.ended_unix_ms)).flatten();
    let expires = (spec.deadline_ms > 0).then(|| job.submitted_unix_ms.saturating_add(spec.deadline_ms) / 1000);
    let (code, message) = why(job);
    let (output, errors_of) = answer_ids(job.id);
    let errors = (status == "failed").then(
        || json!({ "object": "list", "data": [{ "code": code, "message": message, "param": null, "line": null }] }),
    );
    Ok(json!({
        "id": format!("batch_{}", job.id),
        "object": "batch",
        "endpoint": path,
        "errors": errors,
        "input_file_id": file_id,
        "completion_window": window(spec.deadline_ms),
        "status": status,
        "output_file_id": (progress.succeeded > 0).then_some(output),
        "error_file_id": (progress.failed > 0).then_some(errors_of),
        "created_at": job.submitted_unix_ms / 1000,
        "in_progress_at": seconds(job.begun_unix_ms),
        "expires_at": expires,
        "completed_at": ended("completed"),
        "failed_at": ended("failed"),
        "expired_at": ended("expired"),
        "cancelled_at": ended("cancelled"),
        "request_counts": { "total": progress.rows, "completed": progress.succeeded, "failed": progress.failed },
        "metadata": spec.labels,
    }))
}

fn status(job: &Job) -> &'static str {
    match job.state.as_str() {
        "succeeded" => "completed",
        "cancelled" => "cancelled",
        "failed" if job.reason.starts_with(Code::DeadlineExceeded.name()) => "expired",
        "failed" => "failed",
        "running" => "in_progress",
        // It has not been looked at.
        _ => "validating",
    }
}

fn window(deadline_ms: u64) -> String {
    match deadline_ms {
        0 => "none".into(),
        ms if ms.is_multiple_of(3_600_000) => format!("{}h", ms / 3_600_000),
        ms => format!("{}m", ms.div_ceil(60_000)),
    }
}
