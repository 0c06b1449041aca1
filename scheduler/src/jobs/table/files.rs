//! Jobs that are files: how far each is, and which of its lines have not ended.

use orion_proto::{
    jobs::{Progress, job_spec::Work},
    journal::{Expanded, Submitted},
};

use super::{Change, Table, Unfinished, running};
use crate::journal::{Address, address};

/// Files that are read at once.
pub(super) const AT_ONCE: usize = 512;

/// How far a job is that is a file, at its submission, and its content.
pub(super) fn of(submitted: &Submitted) -> Result<(Option<Progress>, Option<Address>), String> {
    let Some(Work::File(_)) = submitted.spec.as_ref().and_then(|spec| spec.work.as_ref()) else {
        return Ok((None, None));
    };
    let address = address(&submitted.address).map_err(|_| "its file has no address")?;
    Ok((Some(Progress { bytes: submitted.bytes, ..Progress::default() }), Some(address)))
}

impl Unfinished {
    /// Whether it takes a place while it runs: a file does until all of it was taken up.
    pub(super) fn takes_place(&self) -> bool {
        self.progress.is_none_or(|progress| progress.read_bytes < progress.bytes)
    }

    /// Whether all lines of its file have been taken up and have ended.
    pub fn is_complete(&self) -> bool {
        self.attempt > 0
            && self.progress.as_ref().is_some_and(|p| p.read_bytes == p.bytes && p.succeeded + p.failed == p.rows)
    }
}

impl Table {
    /// The lines of this job's file that have not ended.
    pub fn rows_of(&self, job: u64) -> impl Iterator<Item = &Unfinished> {
        let rows = self.rows.get(&job).into_iter().flatten();
        rows.filter_map(|row| self.get(*row).map(AsRef::as_ref))
    }

    pub(super) fn expanded(&mut self, expanded: &Expanded) -> Result<Change, String> {
        let mut job = self.taken(expanded.job, |job| running(job, expanded.attempt))?;
        let progress = job.progress.as_mut().ok_or("it is no file")?;
        (progress.read_bytes, progress.lines) = (expanded.read_bytes, expanded.lines);
        Ok(self.put(job))
    }

    /// Counts a line at its file's job, where that has not ended.
    pub(super) fn counted(&mut self, job: u64, count: impl FnOnce(&mut Progress)) -> Option<Change> {
        self.get(job)?.progress.as_ref()?;
        let mut job = self.remove(job)?;
        job.progress.as_mut().map(count);
        Some(self.put(job))
    }

    pub(super) fn row_ends(&mut self, job: u64, row: u64) {
        if let Some(rows) = self.rows.get_mut(&job) {
            rows.remove(&row);
            if rows.is_empty() {
                self.rows.remove(&job);
            }
        }
    }
}
