//! The fold written down, and read again: from there on the journal's records are followed.

use std::collections::HashMap;

use orion_proto::{
    Code, Error, Result,
    jobs::JobSpec,
    journal::{self, Record, Submitted, record::Event},
};

use super::{
    table::{Change, Phase, Table, Unfinished},
    terms::Terms,
};
use crate::journal::{Journal, address};

/// Records that are read at once.
const AT_ONCE: usize = 256;
/// Specifications that are read at once: each may have some MiB.
pub(super) const SPECS_AT_ONCE: usize = 64;

/// What the table is.
pub(super) fn snapshot(table: &Table) -> journal::Snapshot {
    let jobs = table.unfinished().map(|job| written(job)).collect();
    let workers = table.workers().iter().cloned().collect();
    let models = table.models().values().cloned().collect();
    journal::Snapshot { next: table.next(), epoch: table.epoch(), jobs, unix_ms: table.last(), workers, models }
}

fn written(job: &Unfinished) -> journal::Unfinished {
    journal::Unfinished {
        job: job.id,
        submitted_unix_ms: job.submitted,
        begun_unix_ms: job.begun,
        attempt: job.attempt,
        forgiven: job.forgiven,
        running: job.phase == Phase::Running,
        again_unix_ms: if let Phase::Queued(when) = job.phase { when } else { 0 },
        failed: job.failed.clone(),
        waits_for: job.waits_for.iter().copied().collect(),
        deadline_unix_ms: job.terms.deadline.unwrap_or(0),
        row: job.row.clone(),
        progress: job.progress,
        address: job.address.map(Vec::from).unwrap_or_default().into(),
    }
}

fn read(job: journal::Unfinished, spec: &JobSpec) -> Unfinished {
    let phase = match (job.running, job.waits_for.is_empty()) {
        (true, _) => Phase::Running,
        (false, true) => Phase::Queued(job.again_unix_ms),
        (false, false) => Phase::Waiting,
    };
    let deadline = (job.deadline_unix_ms > 0).then_some(job.deadline_unix_ms);
    Unfinished {
        id: job.job,
        terms: Terms { deadline, ..Terms::of(spec, job.submitted_unix_ms) },
        submitted: job.submitted_unix_ms,
        begun: job.begun_unix_ms,
        attempt: job.attempt,
        forgiven: job.forgiven,
        phase,
        failed: job.failed,
        waits_for: job.waits_for.into_iter().collect(),
        row: job.row,
        progress: job.progress,
        address: address(&job.address).ok(),
    }
}

fn damaged(what: impl std::fmt::Display) -> Error {
    Error::new(Code::Internal, format!("the journal is damaged: {what}"))
}

/// The fold over a journal: its snapshot and all records after.
///
/// # Errors
/// INTERNAL where it cannot be read or is damaged.
pub(super) fn load(journal: &dyn Journal) -> Result<Table> {
    let mut table = written_down(journal)?;
    follow(journal, &mut table, |_| {})?;
    Ok(table)
}

/// The fold as the last snapshot says.
///
/// # Errors
/// INTERNAL where it cannot be read or is damaged.
pub(super) fn written_down(journal: &dyn Journal) -> Result<Table> {
    let snapshot = journal.snapshot()?.unwrap_or_default();
    let mut jobs = Vec::with_capacity(snapshot.jobs.len());
    for some in snapshot.jobs.chunks(SPECS_AT_ONCE) {
        let ids: Vec<u64> = some.iter().map(|job| job.job).collect();
        let specs = specs(journal, &ids)?;
        for job in some {
            let spec = specs.get(&job.job).ok_or_else(|| damaged(format!("job {} has no spec", job.job)))?;
            jobs.push(read(job.clone(), spec));
        }
    }
    let workers = snapshot.workers.into_iter().collect();
    let models = snapshot.models.into_iter().map(|model| (model.name.clone(), model)).collect();
    Ok(Table::restored(snapshot.next, snapshot.epoch, snapshot.unix_ms, workers, models, jobs))
}

/// Follows all records that are there now and that the table has not followed yet, and tells what they do.
///
/// # Errors
/// INTERNAL where they cannot be read, or the next is missing or damaged: those before it were followed.
pub(super) fn follow(journal: &dyn Journal, table: &mut Table, mut each: impl FnMut(Change)) -> Result<()> {
    let end = journal.end()?;
    while table.next() < end {
        let records = journal.read(table.next(), AT_ONCE)?;
        if records.is_empty() {
            return Err(damaged(format!("record {} is missing", table.next())));
        }
        for (place, record) in records {
            if place != table.next() {
                return Err(damaged(format!("record {} is missing", table.next())));
            }
            table.apply(&record).map_err(damaged)?.into_iter().for_each(&mut each);
        }
    }
    Ok(())
}

/// What a job was asked to do, as it was submitted.
pub(super) fn submission(journal: &dyn Journal, id: u64) -> Result<Option<Submitted>> {
    Ok(submissions(journal, &[id])?.remove(&id))
}

/// What jobs were asked to do, of those that there are.
pub(super) fn specs(journal: &dyn Journal, ids: &[u64]) -> Result<HashMap<u64, JobSpec>> {
    let submissions = submissions(journal, ids)?.into_iter();
    Ok(submissions.filter_map(|(id, submitted)| Some((id, submitted.spec?))).collect())
}

/// Jobs as they were submitted, of those that there are.
pub(super) fn submissions(journal: &dyn Journal, ids: &[u64]) -> Result<HashMap<u64, Submitted>> {
    let submitted = |(place, record): (u64, Record)| match record.event {
        Some(Event::Submitted(submitted)) => Some((place, submitted)),
        _ => None,
    };
    Ok(journal.at(ids)?.into_iter().filter_map(submitted).collect())
}
