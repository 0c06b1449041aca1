//! A job that is a file: its lines become jobs, so many at a time that whatever is more urgent comes soon.

use std::{sync::Arc, time::Duration};

use orion_proto::{
    Code, Error, Result,
    jobs::{FileCalls, JobSpec, Progress},
};
use prost::Message;

use super::{
    Jobs,
    ask::Ask,
    decide::{Attempt, ReadLines},
    lines::{self, LONGEST, Piece, lines},
};
use crate::journal::{Address, Journal};

/// Lines of one file that have not ended, and that are taken up at once.
const OPEN: u64 = 1024;
const AT_ONCE: usize = 256;
/// Bytes that are read at once; a line that is longer has this read for itself.
const AT_A_TIME: usize = 1 << 20;
/// How often it is looked whether some have ended.
const LOOK: Duration = Duration::from_millis(10);
/// The pause where there are too many jobs.
const FULL: Duration = Duration::from_secs(1);

/// Takes up all lines of a job's file.
///
/// # Errors
/// INTERNAL where the file cannot be read; FAILED_PRECONDITION where the attempt is over.
pub(super) async fn expand(jobs: &Jobs, attempt: Attempt, spec: &JobSpec, calls: &FileCalls) -> Result<()> {
    while let Some(job) = jobs.view().unfinished(attempt.job) {
        let (Some(progress), Some(address)) = (job.progress, job.address) else {
            return Err(Error::new(Code::Internal, format!("job {} is no file", attempt.job)));
        };
        if progress.read_bytes == progress.bytes && progress.bytes > 0 {
            return Ok(());
        }
        let open = progress.rows.saturating_sub(progress.succeeded).saturating_sub(progress.failed);
        if open > OPEN / 2 {
            tokio::time::sleep(LOOK).await;
            continue;
        }
        let (journal, of) = (jobs.view().journal().clone(), calls.clone());
        let read = tokio::task::spawn_blocking(move || next(&journal, &address, progress, &of)).await;
        let read = read.map_err(|_| Error::new(Code::Internal, "reading its file failed unexpectedly"))??;
        let bytes = read.lines.iter().filter_map(|line| line.call.as_ref().ok()).map(Message::encoded_len).sum();
        let room = jobs.room(bytes).await;
        match jobs.ask(|reply| Ask::Expand(attempt, Box::new(spec.clone()), read, room, reply)).await {
            Err(Error { code: Code::ResourceExhausted, .. }) => tokio::time::sleep(FULL).await,
            done => done?,
        }
    }
    Ok(())
}

/// The lines after those that were taken up.
fn next(journal: &Arc<dyn Journal>, address: &Address, progress: Progress, of: &FileCalls) -> Result<ReadLines> {
    let from = progress.read_bytes;
    for most in [AT_A_TIME, LONGEST + 1] {
        let piece = journal.content(address, from, most)?;
        let is_last = from.saturating_add(piece.len() as u64) >= progress.bytes;
        let piece = Piece { bytes: &piece, from, before: progress.lines, is_last };
        let read = lines(piece, AT_ONCE, of);
        if read.bytes > 0 {
            let (bytes, count) = (from + read.bytes, progress.lines + read.count);
            return Ok(ReadLines { lines: read.lines, bytes, count });
        }
    }
    let number = progress.lines + 1;
    let bytes = after_line(journal, address, from, progress.bytes)?;
    Ok(ReadLines { lines: vec![lines::too_long(number)], bytes, count: number })
}

/// Where the line ends that begins there.
fn after_line(journal: &Arc<dyn Journal>, address: &Address, mut from: u64, end: u64) -> Result<u64> {
    while from < end {
        let piece = journal.content(address, from, AT_A_TIME)?;
        if piece.is_empty() {
            return Err(Error::new(Code::Internal, "its file is shorter than it was"));
        }
        if let Some(place) = piece.iter().position(|byte| *byte == b'\n') {
            return Ok(from + place as u64 + 1);
        }
        from += piece.len() as u64;
    }
    Ok(end)
}
