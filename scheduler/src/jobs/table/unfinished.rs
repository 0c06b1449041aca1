//! A job that has not ended, and what is left of one that has.

use std::collections::BTreeSet;

use bytes::Bytes;
use orion_proto::{
    jobs::{FailedAttempt, Job, Progress, Row},
    journal::Ended,
};

use crate::{
    jobs::terms::{Millis, Terms},
    journal::Address,
};

/// Where a job is that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Others must succeed before.
    Waiting,
    /// It may begin at this time.
    Queued(Millis),
    /// Its attempt is under way.
    Running,
}

/// A job that has not ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Unfinished {
    /// Its number.
    pub id: u64,
    /// What was asked of it.
    pub terms: Terms,
    /// When it was submitted, and when its first attempt began; 0: none has.
    pub submitted: Millis,
    #[allow(missing_docs)] // said above
    pub begun: Millis,
    /// The attempt that is under way, or was the last; 0: none yet.
    pub attempt: u32,
    /// So many attempts do not count: it was retried since, or they were lost with their scheduler.
    pub forgiven: u32,
    /// Where it is.
    pub phase: Phase,
    /// The attempts that failed.
    pub failed: Vec<FailedAttempt>,
    /// Those of the jobs that must succeed before which have not ended.
    pub waits_for: BTreeSet<u64>,
    /// Where it is a line of another's file.
    pub row: Option<Row>,
    /// Where it is a file.
    pub progress: Option<Progress>,
    /// Of that file.
    pub address: Option<Address>,
}

pub(super) fn running(job: &Unfinished, attempt: u32) -> Result<(), String> {
    match job.phase {
        Phase::Running if job.attempt == attempt => Ok(()),
        phase => Err(format!("attempt {attempt} of job {} ends while it is {phase:?} at {}", job.id, job.attempt)),
    }
}

/// What is left of a job that ended so.
pub(super) fn left_of(job: Unfinished, at: Millis, ended: &Ended) -> Job {
    let mut failed = job.failed;
    if ended.attempt > 0 && !ended.code.is_empty() {
        let (attempt, code, message) = (ended.attempt, ended.code.clone(), ended.message.clone());
        failed.push(FailedAttempt { attempt, code, message, ended_unix_ms: at });
    }
    let state = match ended.code.as_str() {
        "" => "succeeded",
        "CANCELLED" => "cancelled",
        _ => "failed",
    };
    let reason = if ended.code.is_empty() { String::new() } else { format!("{}: {}", ended.code, ended.message) };
    Job {
        id: job.id,
        spec: None,
        state: state.into(),
        submitted_unix_ms: job.submitted,
        begun_unix_ms: job.begun,
        ended_unix_ms: at,
        failed,
        attempt: job.attempt,
        reason,
        row: job.row,
        // Lines that have not ended end with it.
        progress: job.progress.map(|p| Progress { failed: p.rows.saturating_sub(p.succeeded), ..p }),
        result_address: Bytes::new(),
        training: None,
    }
}
