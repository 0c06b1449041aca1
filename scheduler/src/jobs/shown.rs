//! A job as JSON, without what it is asked and answers.

use orion_proto::{
    jobs::{Job, JobSpec, Progress, TrainedModel, TrainingCourse, job_spec::Work},
    training::Plan,
};
use serde_json::{Value, json};

use super::files;

/// The kinds of work, as they are listed by.
pub(super) const KINDS: [&str; 5] = ["", "inference", "call", "file", "training"];

/// The kind of a job's work.
pub fn kind(spec: Option<&JobSpec>) -> &'static str {
    match spec.and_then(|spec| spec.work.as_ref()) {
        Some(Work::Inference(_)) => "inference",
        Some(Work::Call(_)) => "call",
        Some(Work::File(_)) => "file",
        Some(Work::Training(_)) => "training",
        None => "",
    }
}

/// The model that does a job's work, or that it makes; of a file, where each line says that for itself, none.
pub fn model(job: &Job) -> String {
    match job.spec.as_ref().and_then(|spec| spec.work.as_ref()) {
        Some(Work::Inference(request)) => request.model_name.clone(),
        Some(Work::Call(call)) => call.model.clone(),
        Some(Work::File(file)) => file.model.clone(),
        Some(Work::Training(training)) => Plan::from_json(&training.plan).map(|plan| plan.name).unwrap_or_default(),
        None => String::new(),
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
        "training": job.training.as_ref().map(course),
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

/// How a training goes.
pub fn course(course: &TrainingCourse) -> Value {
    json!({
        "step": course.step, "steps": course.steps, "train_loss": course.train_loss, "test_loss": course.test_loss,
        "test_accuracy": course.test_accuracy, "learning_rate": course.learning_rate,
        "examples_per_second": course.examples_per_second, "workers": course.workers, "cohorts": course.cohorts,
        "exchanged_bytes": course.exchanged_bytes, "epsilon": course.epsilon,
    })
}

/// What a training left.
pub fn trained(model: &TrainedModel) -> Value {
    let TrainedModel { name, version, path, course: ended } = model;
    json!({ "model": name, "version": version, "path": path, "training": ended.as_ref().map(course) })
}

/// How far a job is that is a file.
pub fn progress(progress: &Progress) -> Value {
    json!({
        "rows": progress.rows, "succeeded": progress.succeeded, "failed": progress.failed,
        "read_bytes": progress.read_bytes, "bytes": progress.bytes, "lines": progress.lines,
    })
}
