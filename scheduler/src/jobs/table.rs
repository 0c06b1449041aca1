//! The jobs that have not ended: a fold over the records of the journal.

mod files;
mod unfinished;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use orion_proto::{
    jobs::{FailedAttempt, Job, JobSpec, Progress},
    journal::{Begun, Ended, Failed, Joined, Left, Published, Record, Released, Retried, Submitted, record::Event},
};
use thiserror::Error;

use super::{
    queue::Queue,
    terms::{FILES, Millis, Terms},
};
pub use unfinished::{Phase, Unfinished};
use unfinished::{left_of, running};

/// Failed attempts that a job keeps over its retries.
const MOST_FAILED: usize = 100;

/// A record that cannot follow those before it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("record {seq} cannot be: {why}")]
pub struct Inconsistent {
    /// Its place in the journal.
    pub seq: u64,
    /// Why.
    pub why: String,
}

/// What a record did to a job.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It is, or goes on being, one that has not ended.
    Open(Arc<Unfinished>),
    /// It ended, and this is what is left of it, without its specification; and for how long that is kept.
    Ended(Box<Job>, Millis),
    /// Nothing is left of it.
    Forgotten(u64),
}

/// The fold. Equal records give equal tables.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    next: u64,
    epoch: u64,
    /// The latest time that a record bore.
    last: Millis,
    jobs: BTreeMap<u64, Arc<Unfinished>>,
    keys: HashMap<String, u64>,
    /// Which jobs wait for each.
    blocks: BTreeMap<u64, BTreeSet<u64>>,
    queue: Queue,
    deadlines: BTreeSet<(Millis, u64)>,
    /// Those that joined and have not left: they may have what runs.
    workers: BTreeSet<String>,
    /// Of each file's job, its lines that have not ended.
    rows: BTreeMap<u64, BTreeSet<u64>>,
    /// Models that jobs have made, by name.
    models: BTreeMap<String, Published>,
    /// How many run of each model, and of all; files run apart.
    running: BTreeMap<Arc<str>, usize>,
    all_running: usize,
}

impl Table {
    /// After a snapshot of the jobs that had not ended, the workers that were there and the models that were made, before the record of number `next`, the
    /// last of which was of time `last`.
    pub fn restored(
        next: u64,
        epoch: u64,
        last: Millis,
        workers: BTreeSet<String>,
        models: BTreeMap<String, Published>,
        jobs: impl IntoIterator<Item = Unfinished>,
    ) -> Self {
        let mut table = Self { next, epoch, last, workers, models, ..Self::default() };
        jobs.into_iter().for_each(|job| _ = table.put(job));
        table
    }

    /// The number of the next record.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The epoch of the scheduler that leads.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The latest time that a record bore.
    pub fn last(&self) -> Millis {
        self.last
    }

    /// A job that has not ended.
    pub fn get(&self, id: u64) -> Option<&Arc<Unfinished>> {
        self.jobs.get(&id)
    }

    /// Workers that may have what runs.
    pub fn workers(&self) -> &BTreeSet<String> {
        &self.workers
    }

    /// Models that jobs have made, by name.
    pub fn models(&self) -> &BTreeMap<String, Published> {
        &self.models
    }

    /// All jobs that have not ended.
    pub fn unfinished(&self) -> impl ExactSizeIterator<Item = &Arc<Unfinished>> {
        self.jobs.values()
    }

    /// The job that has this idempotency key and has not ended.
    pub fn of_key(&self, key: &str) -> Option<u64> {
        self.keys.get(key).copied()
    }

    /// The job that is to begin next, the most urgent first, where so many may run. Those of one model may be as many as places are
    /// left free (the dynamic threshold of Choudhury and Hahne, 1998): a model that cannot answer leaves places to all others.
    /// Those that are sought (so many of each model) take no place: they may be nowhere.
    pub fn ready(&self, now: Millis, places: usize, sought: &BTreeMap<Arc<str>, usize>) -> Option<u64> {
        let of = |counts: &BTreeMap<Arc<str>, usize>, model: &str| counts.get(model).copied().unwrap_or(0);
        let free = places.saturating_sub(self.all_running.saturating_sub(sought.values().sum()));
        self.queue.ready(now, |model| match model {
            FILES if places > 0 => of(&self.running, FILES) < files::AT_ONCE,
            model => of(&self.running, model).saturating_sub(of(sought, model)) < free,
        })
    }

    /// The jobs that should have ended by now.
    pub fn late(&self, now: Millis) -> impl Iterator<Item = u64> {
        self.deadlines.range(..=(now, u64::MAX)).map(|(_, id)| *id)
    }

    /// Those that wait for this job.
    pub fn waiting_for(&self, id: u64) -> impl Iterator<Item = u64> {
        self.blocks.get(&id).into_iter().flatten().copied()
    }

    /// Follows the next record.
    ///
    /// # Errors
    /// It cannot follow: the journal is damaged, or its writer wrong. The table is as it was.
    pub fn apply(&mut self, record: &Record) -> Result<Vec<Change>, Inconsistent> {
        let seq = self.next;
        let changes = self.follow(seq, record).map_err(|why| Inconsistent { seq, why })?;
        self.next += 1;
        self.last = self.last.max(record.unix_ms);
        Ok(changes)
    }

    fn follow(&mut self, seq: u64, record: &Record) -> Result<Vec<Change>, String> {
        let at = record.unix_ms;
        Ok(vec![match record.event.as_ref().ok_or("it says nothing")? {
            Event::Epoch(epoch) if *epoch <= self.epoch => {
                return Err(format!("epoch {epoch} is not after {}", self.epoch));
            }
            Event::Epoch(epoch) => {
                self.epoch = *epoch;
                return Ok(Vec::new());
            }
            Event::Joined(Joined { worker }) => {
                self.workers.insert(worker.clone());
                return Ok(Vec::new());
            }
            Event::Left(Left { worker }) => {
                self.workers.remove(worker);
                return Ok(Vec::new());
            }
            Event::Published(published) => {
                self.models.insert(published.name.clone(), published.clone());
                return Ok(Vec::new());
            }
            Event::Submitted(submitted) => return self.submitted(seq, at, submitted),
            Event::Expanded(expanded) => self.expanded(expanded)?,
            Event::Filed(_) => return Ok(Vec::new()),
            Event::Begun(begun) => self.begun(at, begun)?,
            Event::Failed(failed) => self.failed(at, failed)?,
            Event::Ended(ended) => return self.ended(at, ended),
            Event::Retried(retried) => self.retried(at, retried)?,
            Event::Released(released) => self.released(at, released)?,
            Event::Forgotten(gone) if self.jobs.contains_key(&gone.job) => {
                return Err(format!("job {} has not ended", gone.job));
            }
            Event::Forgotten(gone) => Change::Forgotten(gone.job),
        }])
    }

    fn submitted(&mut self, id: u64, at: Millis, submitted: &Submitted) -> Result<Vec<Change>, String> {
        let spec = submitted.spec.as_ref().ok_or("it has no spec")?;
        let (terms, (waits_for, phase)) = (Terms::of(spec, at), self.waits(at, spec));
        let (begun, attempt, forgiven, failed) = (0, 0, 0, Vec::new());
        let (row, (progress, address)) = (submitted.row.clone(), files::of(submitted)?);
        let mut changes = Vec::new();
        if let Some(row) = &row {
            changes.push(self.counted(row.job, |progress| progress.rows += 1).ok_or("its file's job has ended")?);
        }
        let (submitted, id) = (at, id);
        let job = Unfinished {
            id,
            terms,
            submitted,
            begun,
            attempt,
            forgiven,
            phase,
            failed,
            waits_for,
            row,
            progress,
            address,
        };
        changes.push(self.put(job));
        Ok(changes)
    }

    fn begun(&mut self, at: Millis, Begun { job, attempt }: &Begun) -> Result<Change, String> {
        let mut job = self.taken(*job, |job| match job.phase {
            Phase::Queued(_) if *attempt == job.attempt.wrapping_add(1) => Ok(()),
            phase => {
                Err(format!("attempt {attempt} of job {} begins while it is {phase:?} at {}", job.id, job.attempt))
            }
        })?;
        (job.attempt, job.phase) = (*attempt, Phase::Running);
        job.begun = if job.begun == 0 { at } else { job.begun };
        Ok(self.put(job))
    }

    fn failed(&mut self, at: Millis, failed: &Failed) -> Result<Change, String> {
        let mut job = self.taken(failed.job, |job| running(job, failed.attempt))?;
        let (attempt, code, message) = (failed.attempt, failed.code.clone(), failed.message.clone());
        job.failed.push(FailedAttempt { attempt, code, message, ended_unix_ms: at });
        job.phase = Phase::Queued(failed.again_unix_ms);
        Ok(self.put(job))
    }

    fn ended(&mut self, at: Millis, ended: &Ended) -> Result<Vec<Change>, String> {
        let job = self.taken(ended.job, |job| match (ended.attempt, ended.code.as_str()) {
            (0, "") => Err(format!("job {} succeeds without an attempt", job.id)),
            (0, _) => Ok(()),
            (attempt, _) => running(job, attempt),
        })?;
        let waiting =
            if ended.code.is_empty() { self.blocks.remove(&job.id).unwrap_or_default() } else { BTreeSet::new() };
        let mut changes = Vec::new();
        for other in waiting {
            if let Some(mut waiter) = self.remove(other) {
                waiter.waits_for.remove(&job.id);
                if waiter.waits_for.is_empty() {
                    waiter.phase = Phase::Queued(at);
                }
                changes.push(self.put(waiter));
            }
        }
        if let Some(row) = &job.row {
            let succeeded = ended.code.is_empty();
            let count = |p: &mut Progress| *(if succeeded { &mut p.succeeded } else { &mut p.failed }) += 1;
            // Its file's job may have ended first, and it with that.
            changes.extend(self.counted(row.job, count));
        }
        let keep = job.terms.keep;
        changes.push(Change::Ended(Box::new(left_of(job, at, ended)), keep));
        Ok(changes)
    }

    fn released(&mut self, at: Millis, released: &Released) -> Result<Change, String> {
        let mut job = self.taken(released.job, |job| running(job, released.attempt))?;
        (job.phase, job.forgiven) = (Phase::Queued(at), job.forgiven.saturating_add(1));
        Ok(self.put(job))
    }

    fn retried(&mut self, at: Millis, retried: &Retried) -> Result<Change, String> {
        let left = retried.job.as_ref().ok_or("it names no job")?;
        let spec = left.spec.as_ref().ok_or("it has no spec")?;
        if self.jobs.contains_key(&left.id) || left.id >= self.next {
            return Err(format!("job {} has not ended", left.id));
        }
        let (waits_for, phase) = self.waits(at, spec);
        let kept = left.failed.len().saturating_sub(MOST_FAILED);
        Ok(self.put(Unfinished {
            id: left.id,
            terms: Terms::of(spec, at),
            submitted: left.submitted_unix_ms,
            begun: left.begun_unix_ms,
            attempt: left.attempt,
            forgiven: left.attempt,
            phase,
            failed: left.failed.iter().skip(kept).cloned().collect(),
            waits_for,
            row: None,
            progress: None,
            address: None,
        }))
    }

    /// What a job waits for that begins anew, and where that puts it.
    fn waits(&self, at: Millis, spec: &JobSpec) -> (BTreeSet<u64>, Phase) {
        let open: BTreeSet<u64> = spec.after.iter().copied().filter(|job| self.jobs.contains_key(job)).collect();
        let phase = if open.is_empty() { Phase::Queued(at) } else { Phase::Waiting };
        (open, phase)
    }

    /// Takes a job out that this may be done to.
    fn taken(&mut self, id: u64, may: impl FnOnce(&Unfinished) -> Result<(), String>) -> Result<Unfinished, String> {
        may(self.jobs.get(&id).ok_or_else(|| format!("job {id} is not open"))?)?;
        self.remove(id).ok_or_else(|| format!("job {id} is not open"))
    }

    fn remove(&mut self, id: u64) -> Option<Unfinished> {
        let job = self.jobs.remove(&id)?;
        match job.phase {
            Phase::Queued(when) => self.queue.take(job.terms.priority, &job.terms.model, when, id),
            Phase::Running if job.takes_place() => self.stops_running(&job.terms.model),
            Phase::Running | Phase::Waiting => {}
        }
        if let Some(deadline) = job.terms.deadline {
            self.deadlines.remove(&(deadline, id));
        }
        for other in &job.waits_for {
            if let Some(waiting) = self.blocks.get_mut(other) {
                waiting.remove(&id);
                if waiting.is_empty() {
                    self.blocks.remove(other);
                }
            }
        }
        if let Some(row) = &job.row {
            self.row_ends(row.job, id);
        }
        if self.keys.get(&job.terms.key) == Some(&id) {
            self.keys.remove(&job.terms.key);
        }
        Some(Arc::unwrap_or_clone(job))
    }

    fn stops_running(&mut self, model: &Arc<str>) {
        self.all_running -= usize::from(&**model != FILES);
        if let Some(running) = self.running.get_mut(model) {
            *running -= 1;
            if *running == 0 {
                self.running.remove(model);
            }
        }
    }

    fn put(&mut self, job: Unfinished) -> Change {
        match job.phase {
            Phase::Queued(when) => self.queue.put(job.terms.priority, &job.terms.model, when, job.id),
            Phase::Running if job.takes_place() => {
                *self.running.entry(job.terms.model.clone()).or_default() += 1;
                self.all_running += usize::from(&*job.terms.model != FILES);
            }
            Phase::Running | Phase::Waiting => {}
        }
        if let Some(deadline) = job.terms.deadline {
            self.deadlines.insert((deadline, job.id));
        }
        for other in &job.waits_for {
            self.blocks.entry(*other).or_default().insert(job.id);
        }
        if !job.terms.key.is_empty() {
            self.keys.insert(job.terms.key.clone(), job.id);
        }
        if let Some(row) = &job.row {
            self.rows.entry(row.job).or_default().insert(job.id);
        }
        let job = Arc::new(job);
        self.jobs.insert(job.id, job.clone());
        Change::Open(job)
    }
}
