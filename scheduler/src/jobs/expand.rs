//! A job that is a file: its lines become jobs, so many at a time that whatever is more urgent comes soon.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use orion_proto::{
    Code, Error, ModelSpec, Result,
    jobs::{FileCalls, JobSpec, Progress},
};
use prost::Message;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Jobs,
    ask::Ask,
    decide::{Attempt, ReadLines},
    files::{CSV, PARQUET},
    lines::{self, LONGEST, Piece, lines},
    parquet::{self, Parquet},
    reader::Reader,
    rows::{self, Header},
};

/// Lines that have not ended, of all files that are read, and those of one at most and at least.
const OPEN: usize = 65_536;
const OPEN_OF_ONE: (usize, usize) = (64, 1024);
/// Lines that are taken up at once.
const AT_ONCE: usize = 256;
/// How often it is looked whether some have ended.
const LOOK: Duration = Duration::from_millis(10);
/// The pause where there are too many jobs.
const FULL: Duration = Duration::from_secs(1);

/// Takes up all lines of a job's file; `model` is that of an `infer` whose inputs are columns.
///
/// # Errors
/// INVALID_ARGUMENT where the file is wrong as a whole; INTERNAL where it cannot be read; FAILED_PRECONDITION where the attempt is over.
pub(super) async fn expand(
    jobs: &Jobs,
    attempt: Attempt,
    spec: &JobSpec,
    calls: &FileCalls,
    model: Option<Arc<ModelSpec>>,
) -> Result<()> {
    let mut source = None;
    let reading = Reading::one(&jobs.files);
    while let Some(job) = jobs.view().unfinished(attempt.job) {
        let (Some(progress), Some(address)) = (job.progress, job.address) else {
            return Err(Error::new(Code::Internal, format!("job {} is no file", attempt.job)));
        };
        if progress.read_bytes == progress.bytes && progress.bytes > 0 {
            return Ok(());
        }
        let open = progress.rows.saturating_sub(progress.succeeded).saturating_sub(progress.failed);
        let room = reading.lines_of_one().saturating_sub(usize::try_from(open).unwrap_or(usize::MAX));
        let places = &jobs.view().places().of_jobs;
        if room < reading.lines_of_one() / 2 {
            // Its place is another's while it waits, where one is wanted.
            source = source.filter(|source: &Source| source.place.is_none() || places.available_permits() > 0);
            tokio::time::sleep(LOOK).await;
            continue;
        }
        let mut from = match source.take() {
            Some(source) => source,
            None => {
                let place = match calls.format == PARQUET {
                    true => jobs.view().place(attempt.job).await,
                    false => None,
                };
                let reader = Reader::new(jobs.view().journal().clone(), address, progress.bytes);
                Source { reader, of: calls.clone(), table: None, model: model.clone(), place }
            }
        };
        let next =
            tokio::task::spawn_blocking(move || from.next(progress, room.min(AT_ONCE)).map(|read| (from, read))).await;
        let (from, read) = next.map_err(|_| Error::new(Code::Internal, "reading its file failed unexpectedly"))??;
        source = Some(from);
        let bytes = read.lines.iter().filter_map(|line| line.call.as_ref().ok()).map(Message::encoded_len).sum();
        let room = jobs.room(bytes).await;
        match jobs.ask(|reply| Ask::Expand(attempt, Box::new(spec.clone()), read, room, reply)).await {
            Err(Error { code: Code::ResourceExhausted, .. }) => tokio::time::sleep(FULL).await,
            done => done?,
        }
    }
    Ok(())
}

/// One of the files that are read at this moment.
struct Reading(Arc<AtomicUsize>);

impl Reading {
    fn one(files: &Arc<AtomicUsize>) -> Self {
        files.fetch_add(1, Ordering::Relaxed);
        Self(files.clone())
    }

    /// Lines that each of them may have open.
    fn lines_of_one(&self) -> usize {
        let (least, most) = OPEN_OF_ONE;
        (OPEN / self.0.load(Ordering::Relaxed).max(1)).clamp(least, most)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A file whose lines are taken up.
struct Source {
    reader: Reader,
    of: FileCalls,
    /// Of a table, once it was opened.
    table: Option<Table>,
    model: Option<Arc<ModelSpec>>,
    /// Among the files of Parquet that are read.
    place: Option<OwnedSemaphorePermit>,
}

enum Table {
    Csv(Header),
    Parquet(Box<Parquet>),
}

impl Source {
    /// The lines after those that were taken up.
    fn next(&mut self, progress: Progress, most: usize) -> Result<ReadLines> {
        let after = (progress.read_bytes, progress.lines);
        let table = match &mut self.table {
            Some(table) => table,
            none => match self.of.format.as_str() {
                CSV => none.insert(Table::Csv(rows::header(&mut self.reader)?)),
                PARQUET => none.insert(Table::Parquet(Box::new(self.reader.parquet()?))),
                _ => return self.lines(after, most),
            },
        };
        let mut read = match table {
            Table::Csv(header) => rows::rows(&mut self.reader, header, after, most, &self.of, self.model.as_deref()),
            Table::Parquet(file) => parquet::rows::rows(file, after.1, most, &self.of, self.model.as_deref()),
        }?;
        self.reader.apart(&mut read)?;
        Ok(read)
    }

    fn lines(&mut self, (from, before): (u64, u64), most: usize) -> Result<ReadLines> {
        // Most lines are in what was read before.
        for least in [1, LONGEST / 2, LONGEST + 1] {
            let piece = self.reader.piece(from, least)?;
            let is_last = from.saturating_add(piece.len() as u64) >= self.reader.length();
            let read = lines(Piece { bytes: &piece, from, before, is_last }, most, &self.of);
            if read.bytes > 0 {
                let (bytes, count) = (from + read.bytes, before + read.count);
                return Ok(ReadLines { lines: read.lines, bytes, count, large: None });
            }
        }
        let (count, bytes) = (before + 1, self.after_line(from)?);
        Ok(ReadLines { lines: vec![lines::too_long(count)], bytes, count, large: None })
    }

    /// Where the line ends that begins there.
    fn after_line(&mut self, mut from: u64) -> Result<u64> {
        while from < self.reader.length() {
            let piece = self.reader.piece(from, 1)?;
            if let Some(place) = piece.iter().position(|byte| *byte == b'\n') {
                return Ok(from + place as u64 + 1);
            }
            if piece.is_empty() {
                return Err(Error::new(Code::Internal, "its file is shorter than it was"));
            }
            from += piece.len() as u64;
        }
        Ok(self.reader.length())
    }
}
