//! Jobs as they are printed.

use std::{
    io::Write,
    time::{SystemTime, UNIX_EPOCH},
};

use comfy_table::{Cell, Table};
use orion_proto::jobs::{Job, Progress};
use orion_scheduler::jobs::shown::{json, model};

use crate::{
    Failure,
    table::{Format, facts, figure, state, table, write, write_json},
    units::seconds,
};

/// Prints a job.
pub(super) fn one(job: Job, format: Format, out: &mut dyn Write) -> Result<(), Failure> {
    match format {
        Format::Json => write_json(out, &json(&job)),
        Format::Table => write(out, &in_words(&job)),
    }
}

fn labels(job: &Job) -> String {
    let labels = job.spec.iter().flat_map(|spec| &spec.labels);
    let mut labels: Vec<String> = labels.map(|(name, value)| format!("{name}={value}")).collect();
    labels.sort();
    labels.join(" ")
}

/// Seconds since a time; none where it is not yet.
fn age(unix_ms: u64) -> Option<f64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as f64;
    (unix_ms > 0).then(|| ((now - unix_ms as f64) / 1e3).max(0.0))
}

fn ago(unix_ms: u64) -> String {
    age(unix_ms).map(|age| format!("{} ago", seconds(age))).unwrap_or_default()
}

/// Jobs, a row each.
pub(super) fn rows(jobs: &[Job]) -> Table {
    let mut shown = table(&["job", "model", "state", "attempt", "submitted", "labels", "why"]);
    for job in jobs {
        shown.add_row([
            figure(job.id),
            Cell::new(if job.progress.is_some() { "(a file)".to_owned() } else { model(job) }),
            state(&job.state),
            figure(job.attempt),
            figure(ago(job.submitted_unix_ms)),
            Cell::new(labels(job)),
            Cell::new(&job.reason),
        ]);
    }
    shown
}

/// How far a job is that is a file: how much of it was taken up, and what came of that.
pub(super) fn far(progress: &Progress) -> String {
    let share = progress.read_bytes as f64 / progress.bytes.max(1) as f64 * 100.0;
    let Progress { rows, succeeded, failed, .. } = progress;
    let under_way = rows.saturating_sub(succeeded + failed);
    format!("{share:.0} % read, {succeeded} lines succeeded, {failed} did not, {under_way} under way")
}

fn in_words(job: &Job) -> String {
    let mut shown = facts([
        ("job", job.id.to_string()),
        ("model", model(job)),
        ("state", job.state.clone()),
        ("why", job.reason.clone()),
        ("lines", job.progress.as_ref().map(far).unwrap_or_default()),
        ("training", job.training.as_ref().map(crate::train::far).unwrap_or_default()),
        ("line of", job.row.as_ref().map(|row| format!("job {}, line {}", row.job, row.line)).unwrap_or_default()),
        ("attempt", job.attempt.to_string()),
        ("labels", labels(job)),
        ("submitted", ago(job.submitted_unix_ms)),
        ("begun", ago(job.begun_unix_ms)),
        ("ended", ago(job.ended_unix_ms)),
    ]);
    for failed in &job.failed {
        shown += &format!(
            "attempt {} failed {}: {}: {}\n",
            failed.attempt,
            ago(failed.ended_unix_ms),
            failed.code,
            failed.message
        );
    }
    shown
}
