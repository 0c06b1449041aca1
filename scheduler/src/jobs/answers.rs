//! What came of a file's lines, as files that are written while they are read.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use orion_proto::{
    Code, Error, Result,
    files::File,
    jobs::{HttpAnswer, Job, JobResult, JobSpec, job_result::Outcome, job_spec::Work},
    journal::Submitted,
};
use serde_json::{Value, json, value::RawValue};

mod parquet;
mod table;

use super::{
    files::{self, ERRORS, OUTPUT},
    large,
    reader::Reader,
    shown,
    snapshot::submission,
    view::{View, row_term},
};
use crate::journal::address;

/// Lines that are found, and those that are read, together.
const FOUND: usize = 10_000;
const TOGETHER: usize = 64;
/// Bytes that are written at once, but for the last line.
const PIECE: usize = 256 << 10;
const BUSY: &str = "too many tables of Parquet are being read, try again when one is done";

/// Which of a job's lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Succeeded,
    NotSucceeded,
}

/// The job whose lines this file is of, and which of them.
pub(super) fn of(id: &str) -> Option<(u64, Which)> {
    let of = |end: &str, which| Some((files::number(id.strip_suffix(end)?)?, which));
    of(OUTPUT, Which::Succeeded).or_else(|| of(ERRORS, Which::NotSucceeded))
}

/// Reads what came of the lines of a file, in the file's order; of those that have ended by now.
pub(crate) struct Answers {
    view: Arc<View>,
    job: u64,
    which: Which,
    /// The last first.
    rows: Vec<u64>,
    table: Table,
    /// Whether what came of the rows was looked at: the first must be written as the last.
    is_seen: bool,
}

/// How they are written.
enum Table {
    Lines,
    Csv(Box<table::Table>),
    /// Until it is finished.
    Parquet(Option<Box<parquet::Table>>),
}

impl Answers {
    /// Of the file of this id; none where that is no such file.
    ///
    /// # Errors
    /// NOT_FOUND; INTERNAL where the journal cannot be read.
    pub(crate) fn open(view: &Arc<View>, id: &str) -> Result<Option<Self>> {
        let Some((job, which)) = of(id) else { return Ok(None) };
        let Some(Submitted {
            spec: Some(JobSpec { work: Some(Work::File(calls)), .. }), bytes, address: content, ..
        }) = submission(&**view.journal(), job)?
        else {
            return Err(files::unknown(id));
        };
        // Where it has ended by now, all its lines are there, or some have been forgotten.
        let left = view.get(job)?;
        let content = address(&content)?;
        let reader = || Reader::new(view.journal().clone(), content, bytes);
        let table = match calls.format.as_str() {
            files::CSV => Table::Csv(Box::new(table::Table::new(reader(), calls.path)?)),
            files::PARQUET => {
                let place = view.places().of_readers.clone().try_acquire_owned();
                let place = place.map_err(|_| Error::new(Code::ResourceExhausted, BUSY))?;
                Table::Parquet(Some(Box::new(parquet::Table::new(&reader(), calls.path, place)?)))
            }
            _ => Table::Lines,
        };
        let (mut rows, mut before) = (Vec::new(), u64::MAX);
        loop {
            let found = view.journal().found(&row_term(job), before, FOUND)?;
            let Some(last) = found.last() else { break };
            before = *last;
            rows.extend(found);
        }
        if left.ended_unix_ms > 0 && left.progress.is_some_and(|progress| progress.rows != rows.len() as u64) {
            return Err(forgotten(job));
        }
        Ok(Some(Self { view: view.clone(), job, which, rows, table, is_seen: false }))
    }

    /// The next lines; none after the last.
    ///
    /// # Errors
    /// NOT_FOUND where they have been forgotten since; INTERNAL where the journal cannot be read or is damaged.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>> {
        if !std::mem::replace(&mut self.is_seen, true) {
            self.look()?;
        }
        let mut text = Vec::new();
        while !self.rows.is_empty() && text.len() < PIECE {
            let mut some = self.rows.split_off(self.rows.len().saturating_sub(TOGETHER));
            some.reverse();
            let mut rows = self.ended(&some)?.into_iter();
            while text.len() < PIECE
                && let Some((row, result)) = rows.next()
            {
                let result = result.map(|bytes| large::result(&**self.view.journal(), row.id, bytes)).transpose()?;
                match &mut self.table {
                    Table::Lines => write(&mut text, &row, result)?,
                    Table::Csv(table) => table.write(&mut text, &row, result.as_ref())?,
                    Table::Parquet(Some(table)) => table.write(&mut text, &row, result.as_ref())?,
                    Table::Parquet(None) => {}
                }
            }
            // What there is no room for is read again.
            self.rows.extend(rows.rev().map(|(row, _)| row.id));
        }
        if self.rows.is_empty()
            && let Table::Parquet(table) = &mut self.table
            && let Some(mut table) = table.take()
        {
            table.finish(&mut text)?;
        }
        Ok((!text.is_empty()).then(|| text.into()))
    }

    fn look(&mut self) -> Result<()> {
        let Table::Parquet(table) = &mut self.table else { return Ok(()) };
        let Some(mut table) = table.take() else { return Ok(()) };
        for some in self.rows.rchunks(TOGETHER) {
            for (row, result) in self.ended(some)? {
                let result = result.map(|bytes| large::result(&**self.view.journal(), row.id, bytes)).transpose()?;
                table.look(&row, result.as_ref())?;
            }
        }
        self.table = Table::Parquet(Some(table));
        Ok(())
    }

    /// Whether others wait for their turn while this is read.
    pub(crate) fn takes_a_place(&self) -> bool {
        matches!(self.table, Table::Parquet(Some(_)))
    }

    /// Those of these lines that have ended so, and their results as their rows have them.
    fn ended(&self, rows: &[u64]) -> Result<Vec<(Job, Option<Bytes>)>> {
        let journal = self.view.journal();
        // Before its lines are looked at: where it has ended they all have.
        let all_ended = self.view.get(self.job)?.ended_unix_ms > 0;
        let mut ended = journal.ended_of(rows)?;
        if all_ended && ended.len() < rows.len() {
            return Err(forgotten(self.job));
        }
        ended.retain(|row| (row.state == "succeeded") == (self.which == Which::Succeeded));
        ended.sort_by_key(|row| row.id);
        if self.which == Which::NotSucceeded {
            return Ok(ended.into_iter().map(|row| (row, None)).collect());
        }
        let ids: Vec<u64> = ended.iter().map(|row| row.id).collect();
        let mut results: HashMap<u64, Bytes> = journal.results(&ids)?.into_iter().collect();
        let with = |row: Job| match results.remove(&row.id) {
            Some(result) => Ok((row, Some(result))),
            None => Err(forgotten(self.job)),
        };
        ended.into_iter().map(with).collect()
    }
}

fn forgotten(job: u64) -> Error {
    Error::new(Code::NotFound, format!("what came of job {job} is being forgotten"))
}

impl View {
    /// What came of the lines of this job's file; its bytes are counted.
    pub(super) fn answers_file(self: &Arc<Self>, id: &str, job: u64) -> Result<File> {
        let mut answers = Answers::open(self, id)?.ok_or_else(|| files::unknown(id))?;
        let mut bytes = 0;
        while let Some(lines) = answers.next()? {
            bytes += lines.len() as u64;
        }
        let created_unix_ms = self.get(job)?.submitted_unix_ms;
        let format = match answers.table {
            Table::Lines => files::JSONL,
            Table::Csv(_) => files::CSV,
            Table::Parquet(_) => files::PARQUET,
        };
        let (id, name, purpose) = (id.to_owned(), format!("{id}.{format}"), "batch_output".to_owned());
        Ok(File { id, name, purpose, bytes, created_unix_ms, ..File::default() })
    }
}

fn write(text: &mut Vec<u8>, job: &Job, result: Option<JobResult>) -> Result<()> {
    let damaged = || Error::new(Code::Internal, format!("the result of job {} is damaged", job.id));
    let row = job.row.clone().unwrap_or_default();
    let custom_id = if row.custom_id.is_empty() { Value::Null } else { row.custom_id.into() };
    let id = format!("batch_req_{}", job.id);
    let head = json!({ "id": id, "custom_id": custom_id, "line": row.line }).to_string();
    // The rest is after the object's fields.
    text.extend_from_slice(head.trim_end_matches('}').as_bytes());
    match result {
        Some(result) => {
            let Some(Outcome::Call(HttpAnswer { status, body, .. })) = result.outcome else { return Err(damaged()) };
            // One line, whatever the answer's text is.
            let body: &RawValue = serde_json::from_slice(&body).map_err(|_| damaged())?;
            let body = body.get().replace(['\n', '\r'], " ");
            text.extend_from_slice(
                format!(",\"response\":{{\"status_code\":{status},\"request_id\":\"{id}\",\"body\":{body}}}")
                    .as_bytes(),
            );
            text.extend_from_slice(b",\"error\":null}\n");
        }
        None => {
            let (code, message) = shown::why(job);
            let attempts = job
                .failed
                .iter()
                .map(|failed| json!({ "attempt": failed.attempt, "code": failed.code, "message": failed.message }));
            let error = json!({ "code": code, "message": message, "attempts": attempts.collect::<Vec<_>>() });
            // What an API answered, as a client there would have had it.
            let response = job.failed.last().filter(|last| last.code == code).map(|last| {
                let body = json!({ "error": { "message": last.message, "code": last.code } });
                json!({ "status_code": Code::from_name(&last.code).http(), "request_id": id, "body": body })
            });
            let response = response.unwrap_or(Value::Null);
            text.extend_from_slice(format!(",\"response\":{response},\"error\":{error}}}\n").as_bytes());
        }
    }
    Ok(())
}
