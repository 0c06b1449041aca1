//! What happened to a job, line by line: the difference between how it was and how it is.

use orion_proto::jobs::{Job, LogLine};
use serde_json::{Value, json};

use super::{
    clock::Clock,
    shown::{kind, model},
    terms::Millis,
};

/// Of a file's job, how many parts of it are told of.
const PARTS: u64 = 10;

/// A job as it was when it was looked at last.
#[derive(Default)]
pub(crate) struct Log {
    clock: Clock,
    was: Option<Job>,
}

impl Log {
    /// What happened since, the oldest first.
    pub(crate) fn next(&mut self, job: &Job) -> Vec<LogLine> {
        self.seen(job, self.clock.now())
    }

    fn seen(&mut self, job: &Job, now: Millis) -> Vec<LogLine> {
        let mut lines = Vec::new();
        let was = self.was.replace(job.clone());
        if was.is_none() {
            lines.push(line(job.submitted_unix_ms, 0, INFO, submitted(job)));
        }
        let was = was.unwrap_or_default();
        if was.begun_unix_ms == 0 && job.begun_unix_ms > 0 {
            lines.push(line(job.begun_unix_ms, 1, INFO, "begins".into()));
        }
        // Where it was retried they are told of again only if they are others.
        let new = job.failed.iter().filter(|failed| !was.failed.contains(failed));
        lines.extend(new.map(|failed| {
            let text = format!("failed: {}: {}", failed.code, failed.message);
            line(failed.ended_unix_ms, failed.attempt, WARN, text)
        }));
        if job.ended_unix_ms > 0 {
            lines.push(ended(job));
        } else {
            lines.extend(under_way(&was, job, now));
        }
        lines.sort_by_key(|line| line.unix_ms);
        lines
    }
}

/// A line as REST and `-o json` have it.
pub fn json(line: &LogLine) -> Value {
    json!({ "unix_ms": line.unix_ms, "attempt": line.attempt, "level": line.level, "text": line.text })
}

const INFO: &str = "info";
const WARN: &str = "warn";
const ERROR: &str = "error";

fn line(unix_ms: Millis, attempt: u32, level: &str, text: String) -> LogLine {
    LogLine { unix_ms, attempt, level: level.into(), text }
}

fn submitted(job: &Job) -> String {
    let model = model(job);
    let of = match (kind(job.spec.as_ref()), model.as_str()) {
        (kind, "") => format!("submitted: {kind}"),
        (kind, model) => format!("submitted: {kind} of model '{}'", model.escape_default()),
    };
    match &job.row {
        Some(row) => format!("{of}, line {} of the file of job {}", row.line, row.job),
        None => of,
    }
}

fn under_way(was: &Job, job: &Job, now: Millis) -> Vec<LogLine> {
    let mut lines = Vec::new();
    if job.state == "running" && job.attempt > 1 && (was.attempt, &*was.state) != (job.attempt, "running") {
        lines.push(line(now, job.attempt, INFO, "begins".into()));
    }
    if job.reason != was.reason && !job.reason.is_empty() {
        lines.push(line(now, job.attempt, INFO, job.reason.clone()));
    }
    let part = |job: &Job| job.progress.map_or(0, |far| far.read_bytes.saturating_mul(PARTS) / far.bytes.max(1));
    if part(job) > part(was)
        && let Some(far) = &job.progress
    {
        let share = part(job) * 100 / PARTS;
        let text = format!("{share} % read, {} lines succeeded, {} did not", far.succeeded, far.failed);
        lines.push(line(now, job.attempt, INFO, text));
    }
    lines
}

fn ended(job: &Job) -> LogLine {
    let of = match &job.progress {
        Some(far) => {
            format!("{}: of {} lines {} succeeded, {} did not", job.state, far.rows, far.succeeded, far.failed)
        }
        None => job.state.clone(),
    };
    let text = if job.reason.is_empty() { of } else { format!("{of}: {}", job.reason) };
    let level = match job.state.as_str() {
        "succeeded" => INFO,
        "cancelled" => WARN,
        _ => ERROR,
    };
    line(job.ended_unix_ms, job.attempt, level, text)
}

#[cfg(test)]
mod tests {
    use orion_proto::jobs::FailedAttempt;

    use super::*;

    fn texts(lines: Vec<LogLine>) -> Vec<String> {
        lines
            .into_iter()
            .map(|line| format!("{} {} {} {}", line.unix_ms, line.attempt, line.level, line.text))
            .collect()
    }

    fn failed(attempt: u32, ended_unix_ms: Millis) -> FailedAttempt {
        FailedAttempt { attempt, code: "INTERNAL".into(), message: "why".into(), ended_unix_ms }
    }

    #[test]
    fn each_thing_that_happened_is_told_once_whenever_it_is_looked_at() {
        let queued = Job { id: 7, state: "queued".into(), submitted_unix_ms: 10, ..Job::default() };
        let waits =
            Job { state: "running".into(), attempt: 1, begun_unix_ms: 20, reason: "waits".into(), ..queued.clone() };
        let again = Job { reason: String::new(), attempt: 2, failed: vec![failed(1, 30)], ..waits.clone() };
        let over = Job {
            state: "failed".into(),
            reason: "INTERNAL: why".into(),
            ended_unix_ms: 50,
            failed: vec![failed(1, 30), failed(2, 50)],
            ..again.clone()
        };
        let mut log = Log::default();
        assert_eq!(texts(log.seen(&queued, 11)), ["10 0 info submitted: "]);
        assert_eq!(texts(log.seen(&waits, 21)), ["20 1 info begins", "21 1 info waits"]);
        assert!(log.seen(&waits, 22).is_empty());
        assert_eq!(texts(log.seen(&again, 41)), ["30 1 warn failed: INTERNAL: why", "41 2 info begins"]);
        assert_eq!(texts(log.seen(&over, 51)), ["50 2 warn failed: INTERNAL: why", "50 2 error failed: INTERNAL: why"]);
        let at_once = texts(Log::default().seen(&over, 60));
        assert_eq!(at_once.len(), 5, "but for what it waited for, and when its second attempt began: {at_once:?}");
    }
}
