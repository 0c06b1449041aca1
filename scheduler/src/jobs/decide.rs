//! What may be done to jobs: each command becomes the records that do it, or is refused.

use std::{collections::BTreeSet, time::Duration};

use orion_proto::{
    Code, Error, Result,
    files::File,
    jobs::{HttpCall, Job, JobSpec, Row, job_spec::Work},
    journal::{
        Begun, Ended, Expanded, Failed, Joined, Left, Published, Record, Released, Retried, Submitted, record::Event,
    },
};

use super::{
    files,
    large::LARGE,
    lines::Line,
    table::{Phase, Table, Unfinished},
    terms::{self, Millis},
};
use crate::journal::Staged;

/// Jobs that have not ended, at most: they are in memory.
const MOST_OPEN: usize = 1_000_000;
/// Attempts that a job may lose with their schedulers.
const MOST_LOST: u32 = 100;

/// What ended jobs were, which the table does not know.
pub trait Past {
    /// What is left of a job, without its specification.
    ///
    /// # Errors
    /// It cannot be read.
    fn ended(&self, id: u64) -> Result<Option<Job>>;
    /// The job, ended or not, that was submitted with this idempotency key.
    ///
    /// # Errors
    /// It cannot be read.
    fn of_key(&self, key: &str) -> Result<Option<u64>>;
    /// The file of this id.
    ///
    /// # Errors
    /// It cannot be read.
    fn file(&self, id: &str) -> Result<Option<File>>;
}

/// What becomes of a submission.
#[derive(Clone, Debug, PartialEq)]
pub enum Submission {
    /// It was submitted before: this is the job.
    Known(u64),
    /// It is new.
    New(Box<Record>),
}

/// What was read of a job's file, and as far as which byte and line of it.
#[derive(Debug, Default)]
#[allow(missing_docs)] // said above
pub struct ReadLines {
    pub(super) lines: Vec<Line>,
    pub(super) bytes: u64,
    pub(super) count: u64,
    /// Of a table: its large rows, each where its line says.
    pub(super) large: Option<Staged>,
}

/// An attempt as its runner names it. Only the current attempt of the current epoch may say how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub struct Attempt {
    pub job: u64,
    pub attempt: u32,
    pub epoch: u64,
}

fn record(now: Millis, event: Event) -> Record {
    Record { unix_ms: now, event: Some(event) }
}

fn ended(now: Millis, job: u64, attempt: u32, code: &str, message: &str) -> Record {
    record(now, Event::Ended(Ended { job, attempt, code: code.into(), message: message.into() }))
}

impl Table {
    /// A job is submitted; its inputs may be a content.
    ///
    /// # Errors
    /// INVALID_ARGUMENT where it is wrong in itself or waits for a job that there is not; FAILED_PRECONDITION where it waits for
    /// one that did not succeed; RESOURCE_EXHAUSTED where there are too many.
    pub fn submit(
        &self,
        now: Millis,
        mut spec: JobSpec,
        inputs: Option<&Staged>,
        past: &impl Past,
    ) -> Result<Submission> {
        terms::check(&spec)?;
        if !spec.idempotency_key.is_empty() {
            let known = self.of_key(&spec.idempotency_key);
            if let Some(known) = known.map_or_else(|| past.of_key(&spec.idempotency_key), |known| Ok(Some(known)))? {
                return Ok(Submission::Known(known));
            }
        }
        self.has_room(1)?;
        self.may_wait(&spec, past)?;
        let mut submitted = Submitted::default();
        if let Some(Work::File(calls)) = &mut spec.work {
            let file = past.file(&calls.file_id)?;
            let file =
                file.ok_or_else(|| Error::invalid(format!("there is no file '{}'", calls.file_id.escape_default())))?;
            if file.bytes == 0 {
                return Err(Error::invalid(format!("file '{}' is empty, it must have lines", file.id)));
            }
            (submitted.bytes, submitted.address) = (file.bytes, file.address);
            if calls.format.is_empty() {
                calls.format = files::format_of(&file.name).into();
                terms::check(&spec)?;
            }
        }
        if let Some(staged) = inputs {
            (submitted.bytes, submitted.address) = (staged.bytes, staged.address.to_vec().into());
        }
        submitted.spec = Some(spec);
        Ok(Submission::New(Box::new(record(now, Event::Submitted(submitted)))))
    }

    /// The next attempt of a job begins.
    ///
    /// # Errors
    /// FAILED_PRECONDITION where another leads, or the job is not queued.
    pub fn begin(&self, now: Millis, id: u64, epoch: u64) -> Result<(Attempt, Record)> {
        self.fence(epoch)?;
        let job = self.open(id)?;
        if !matches!(job.phase, Phase::Queued(_)) {
            return Err(Error::new(Code::FailedPrecondition, format!("job {id} is not queued")));
        }
        let attempt = job.attempt.saturating_add(1);
        Ok((Attempt { job: id, attempt, epoch }, record(now, Event::Begun(Begun { job: id, attempt }))))
    }

    /// Lines of a job's file are taken up, up to this byte and line of it: each becomes a job, like it, and one that is wrong has
    /// failed.
    ///
    /// # Errors
    /// FAILED_PRECONDITION where it is not the job's current attempt; RESOURCE_EXHAUSTED where there are too many jobs.
    pub fn expand(&self, now: Millis, attempt: Attempt, of: &JobSpec, read: ReadLines) -> Result<Vec<Record>> {
        let job = self.current(attempt)?;
        self.has_room(read.lines.len())?;
        let (mut records, mut place) = (Vec::with_capacity(read.lines.len() + 1), self.next());
        for Line { number, custom_id, call, from, bytes } in read.lines {
            let row = Some(Row { job: attempt.job, line: number, custom_id });
            let mut submitted = Submitted { row, ..Submitted::default() };
            let (mut call, wrong) = call.map_or_else(|error| (HttpCall::default(), Some(error)), |call| (call, None));
            if call.body.len() > LARGE && bytes > 0 {
                // It is in its file, which its file's job keeps, or among the large rows, which each of them keeps.
                call.body.clear();
                (submitted.from, submitted.bytes) = (from, bytes);
                let address = read.large.as_ref().map(|large| large.address).or(job.address);
                submitted.address = address.map(Vec::from).unwrap_or_default().into();
            }
            let (work, priority, retry) =
                (Some(Work::Call(call)), terms::name(job.terms.priority).to_owned(), of.retry.clone());
            let spec = Some(JobSpec { work, priority, retry, ..JobSpec::default() });
            records.push(record(now, Event::Submitted(Submitted { spec, ..submitted })));
            if let Some(wrong) = wrong {
                records.push(ended(now, place, 0, wrong.code.name(), &wrong.message));
                place += 1;
            }
            place += 1;
        }
        let (Attempt { job, attempt, .. }, read_bytes, lines) = (attempt, read.bytes, read.count);
        records.push(record(now, Event::Expanded(Expanded { job, attempt, read_bytes, lines })));
        Ok(records)
    }

    /// All lines of a job's file have ended, and it with them.
    ///
    /// # Errors
    /// FAILED_PRECONDITION where another leads, or it has ended.
    pub fn complete(&self, now: Millis, id: u64, epoch: u64) -> Result<Record> {
        self.fence(epoch)?;
        Ok(ended(now, id, self.open(id)?.attempt, "", ""))
    }

    /// An attempt succeeded.
    ///
    /// # Errors
    /// FAILED_PRECONDITION where it is not the job's current one.
    pub fn succeed(&self, now: Millis, attempt: Attempt) -> Result<Record> {
        self.current(attempt)?;
        Ok(ended(now, attempt.job, attempt.attempt, "", ""))
    }

    /// What an attempt that succeeds has made is served.
    ///
    /// # Errors
    /// FAILED_PRECONDITION where it is not the job's current one.
    pub fn publish(&self, now: Millis, attempt: Attempt, model: Published) -> Result<Record> {
        self.current(attempt)?;
        Ok(record(now, Event::Published(model)))
    }

    /// An attempt failed: another follows, or the job ends, and with it those that wait for it.
    ///
    /// # Errors
    /// FAILED_PRECONDITION where it is not the job's current one.
    pub fn fail(&self, now: Millis, attempt: Attempt, error: &Error) -> Result<Vec<Record>> {
        let job = self.current(attempt)?;
        let (code, message) = (error.code.name(), error.message.as_str());
        let counted = attempt.attempt.saturating_sub(job.forgiven);
        if !job.terms.tries_again(counted, error.code) {
            return Ok(self.end(now, attempt.job, attempt.attempt, code, message));
        }
        let pause = error.retry_after.map_or(0, |after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
        let again_unix_ms = now.saturating_add(job.terms.pause(counted).max(pause));
        let (job, attempt, code, message) = (attempt.job, attempt.attempt, code.into(), message.into());
        Ok(vec![record(now, Event::Failed(Failed { job, attempt, code, message, again_unix_ms }))])
    }

    /// An attempt was lost with its scheduler, and no worker has it: it does not count, but for a job that has lost so many that it
    /// may be why.
    ///
    /// # Errors
    /// FAILED_PRECONDITION where it is not the job's current one.
    pub fn release(&self, now: Millis, attempt: Attempt) -> Result<Vec<Record>> {
        let job = self.current(attempt)?;
        if attempt.attempt >= MOST_LOST.saturating_add(job.terms.attempts) {
            let lost = Error::new(Code::Unavailable, "its schedulers were lost again and again while it ran");
            return Ok(self.end(now, attempt.job, attempt.attempt, lost.code.name(), &lost.message));
        }
        let Attempt { job, attempt, .. } = attempt;
        Ok(vec![record(now, Event::Released(Released { job, attempt }))])
    }

    /// A job ends from outside: it is cancelled, or late.
    ///
    /// # Errors
    /// NOT_FOUND where it is not open.
    pub fn stop(&self, now: Millis, id: u64, error: &Error) -> Result<Vec<Record>> {
        let job = self.open(id)?;
        let attempt = if job.phase == Phase::Running { job.attempt } else { 0 };
        Ok(self.end(now, id, attempt, error.code.name(), &error.message))
    }

    fn has_room(&self, jobs: usize) -> Result<()> {
        if self.unfinished().len().saturating_add(jobs) <= MOST_OPEN {
            return Ok(());
        }
        let text = format!("{MOST_OPEN} jobs have not ended, no more are taken until some have");
        Err(Error::new(Code::ResourceExhausted, text).retry_after(Duration::from_secs(1)))
    }

    /// Whether all that a job waits for have succeeded, or still may.
    fn may_wait(&self, spec: &JobSpec, past: &impl Past) -> Result<()> {
        for id in spec.after.iter().filter(|id| self.get(**id).is_none()) {
            match past.ended(*id)? {
                None => return Err(Error::invalid(format!("the job waits for job {id}, which there is not"))),
                Some(job) if job.state != "succeeded" => {
                    let text = format!("the job waits for job {id}, which {}", how(&job));
                    return Err(Error::new(Code::FailedPrecondition, text));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// A job that failed or was cancelled gets its attempts anew. `left`, with its specification, is what is left of it.
    ///
    /// # Errors
    /// FAILED_PRECONDITION where it succeeded or has not ended, or waits for what did not succeed.
    pub fn retry(&self, now: Millis, left: Job, past: &impl Past) -> Result<Record> {
        let id = left.id;
        if self.get(id).is_some() {
            return Err(Error::new(
                Code::FailedPrecondition,
                format!("job {id} has not ended, only one that failed can be retried"),
            ));
        }
        if left.state == "succeeded" {
            return Err(Error::new(
                Code::FailedPrecondition,
                format!("job {id} succeeded, only one that failed can be retried"),
            ));
        }
        if left.row.is_some() || left.progress.is_some() {
            let text = format!(
                "job {id} is of a file, which is not retried: submit those of its lines that failed as another"
            );
            return Err(Error::new(Code::FailedPrecondition, text));
        }
        self.has_room(1)?;
        if let Some(spec) = &left.spec {
            self.may_wait(spec, past)?;
        }
        Ok(record(now, Event::Retried(Retried { job: Some(left) })))
    }

    /// These workers are here, and others are not.
    pub fn have(&self, now: Millis, workers: &BTreeSet<String>) -> Vec<Record> {
        let joined = |worker: &String| record(now, Event::Joined(Joined { worker: worker.clone() }));
        let left = |worker: &String| record(now, Event::Left(Left { worker: worker.clone() }));
        let joined = workers.difference(self.workers()).map(joined);
        joined.chain(self.workers().difference(workers).map(left)).collect()
    }

    /// A scheduler begins to lead: only outcomes under its epoch count from here on. The record, and the epoch.
    pub fn lead(&self, now: Millis) -> (u64, Record) {
        let epoch = self.epoch().saturating_add(1);
        (epoch, record(now, Event::Epoch(epoch)))
    }

    /// The end of a job, and of those that wait for it, and for those.
    fn end(&self, now: Millis, id: u64, attempt: u32, code: &str, message: &str) -> Vec<Record> {
        let mut records = vec![ended(now, id, attempt, code, message)];
        let (mut left, mut stopped) = (vec![id], BTreeSet::from([id]));
        while let Some(id) = left.pop() {
            let reason = format!("it waits for job {id}, which did not succeed");
            for waiting in self.waiting_for(id).filter(|waiting| stopped.insert(*waiting)) {
                records.push(ended(now, waiting, 0, Code::FailedPrecondition.name(), &reason));
                left.push(waiting);
            }
            let reason = format!("job {id} of its file has ended: {message}");
            let of_row = if code == Code::DeadlineExceeded.name() { code } else { Code::Cancelled.name() };
            for row in self.rows_of(id).filter(|row| stopped.insert(row.id)) {
                records.push(ended(now, row.id, 0, of_row, &reason));
                left.push(row.id);
            }
        }
        records
    }

    fn fence(&self, epoch: u64) -> Result<()> {
        if epoch == self.epoch() {
            return Ok(());
        }
        let text = format!("epoch {epoch} is over, the scheduler of epoch {} leads", self.epoch());
        Err(Error::new(Code::FailedPrecondition, text))
    }

    fn open(&self, id: u64) -> Result<&Unfinished> {
        let job = self.get(id).map(AsRef::as_ref);
        job.ok_or_else(|| Error::new(Code::FailedPrecondition, format!("job {id} has ended, or there is none")))
    }

    fn current(&self, attempt: Attempt) -> Result<&Unfinished> {
        self.fence(attempt.epoch)?;
        let job = self.open(attempt.job)?;
        if job.phase == Phase::Running && job.attempt == attempt.attempt {
            return Ok(job);
        }
        let Attempt { job: id, attempt, .. } = attempt;
        Err(Error::new(
            Code::FailedPrecondition,
            format!("attempt {attempt} of job {id} is over, its outcome is dropped"),
        ))
    }
}

fn how(job: &Job) -> String {
    if job.state == "cancelled" { "was cancelled".into() } else { format!("failed ({})", job.reason) }
}
