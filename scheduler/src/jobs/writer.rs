//! The one thread that changes jobs. All that is asked while it writes goes to the disk together, with one sync, and is
//! answered after it.

mod begin;
mod elapse;
mod filing;

use std::{collections::BTreeMap, sync::Arc};

use orion_proto::{
    Code, Error, Result,
    jobs::{Job, JobSpec},
    journal::{Record, record::Event},
};
use tokio::sync::mpsc;

use super::{
    ask::{Ask, Outcome, Told},
    clock::Clock,
    decide::{Attempt, Past, Submission},
    round::{Before, Round},
    snapshot::{follow, snapshot},
    table::{Change, Phase, Table},
    terms::Millis,
    view::{View, state_term},
};
use crate::journal::{Journal, Staged};

/// What is written at once, at most.
const AT_ONCE: usize = 4096;
/// Bytes of what is written at once, but for the last: what the disk takes in a moment.
const BYTES_AT_ONCE: usize = 16 << 20;
/// Records after which the fold is written down.
const SNAPSHOT_EVERY: u64 = 50_000;

pub(super) struct Writer {
    journal: Arc<dyn Journal>,
    table: Table,
    epoch: u64,
    view: Arc<View>,
    /// None once nothing can be written: what runs ends with it.
    runner: Option<mpsc::UnboundedSender<Told>>,
    /// Attempts that may be under way at once.
    places: usize,
    /// What was under way when it came to lead, until it is found, or ends; and its model.
    sought: BTreeMap<(u64, u32), Arc<str>>,
    /// Where the last snapshot ends, and when jobs were last forgotten.
    written_down: u64,
    forgot: Millis,
    /// Jobs whose files' lines have all ended.
    complete: Vec<u64>,
    /// Why nothing can be written any more.
    broken: Option<Error>,
}

impl Writer {
    /// Follows the journal to its end and begins to lead: the runner is told of what was under way.
    ///
    /// # Errors
    /// The journal cannot be read, is damaged, or cannot be written.
    pub(super) fn new(
        now: Millis,
        journal: Arc<dyn Journal>,
        mut table: Table,
        view: Arc<View>,
        runner: mpsc::UnboundedSender<Told>,
        places: usize,
    ) -> Result<Self> {
        follow(&*journal, &mut table, |change| view.changed(change))?;
        let now = now.max(table.last());
        let written_down = journal.snapshot()?.map_or(0, |snapshot| snapshot.next);
        let runner = Some(runner);
        let mut writer = Self {
            journal,
            table,
            epoch: 0,
            view,
            runner,
            places,
            written_down,
            forgot: 0,
            complete: Vec::new(),
            broken: None,
            sought: BTreeMap::new(),
        };
        let mut round = Round::new(now, writer.table.next());
        let (epoch, record) = writer.table.lead(round.now);
        writer.write(&mut round, record)?;
        writer.epoch = epoch;
        writer.journal.append(round.first, &round.batch)?;
        round.changes.into_iter().for_each(|change| writer.view.changed(change));
        writer.sought = writer.under_way_on();
        writer.resume(now)?;
        Ok(writer)
    }

    /// Answers until nobody can ask any more.
    pub(super) fn run(mut self, clock: Clock, mut asks: mpsc::Receiver<Ask>) {
        while let Some(first) = asks.blocking_recv() {
            let mut bytes = first.bytes();
            let mut all = vec![first];
            while all.len() < AT_ONCE
                && bytes < BYTES_AT_ONCE
                && let Ok(next) = asks.try_recv()
            {
                bytes += next.bytes();
                all.push(next);
            }
            self.round(clock.now(), all);
        }
    }

    /// Does what is asked, with one sync, and then answers.
    pub(super) fn round(&mut self, now: Millis, asks: impl IntoIterator<Item = Ask>) {
        let mut round = Round::new(now, self.table.next());
        asks.into_iter().for_each(|ask| self.take(&mut round, ask));
        self.pass_time(&mut round);
        self.complete(&mut round);
        self.start(&mut round);
        self.end(round);
    }

    /// Under which it leads.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The time of the last record.
    pub(super) fn last(&self) -> Millis {
        self.table.last()
    }

    #[cfg(test)]
    pub(super) fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    #[cfg(test)]
    pub(super) fn journal(&self) -> &dyn Journal {
        &*self.journal
    }

    fn take(&mut self, round: &mut Round, ask: Ask) {
        let broken = self.broken.clone();
        match ask {
            Ask::Tick => {}
            Ask::Drain => self.places = 0,
            Ask::Leave(why) => self.leave(why),
            Ask::Submit(spec, staged, room, reply) => {
                round.rooms.extend(room);
                let done = broken.map_or_else(|| self.submit(round, *spec, staged), Err);
                round.answer(done, reply);
            }
            Ask::Stop(id, error, reply) => {
                let done = broken.map_or_else(|| self.stop(round, id, &error), Err);
                round.answer(done, reply);
            }
            Ask::Retry(id, room, reply) => {
                round.rooms.extend(room);
                let done = broken.map_or_else(|| self.retry(round, id), Err);
                round.answer(done, reply);
            }
            Ask::Expand(attempt, spec, read, room, reply) => {
                round.rooms.extend(room);
                let done = broken.map_or_else(|| self.expand(round, attempt, &spec, read), Err);
                round.answer(done, reply);
            }
            Ask::File(file, staged, reply) => {
                let done = broken.map_or_else(|| self.keep_file(round, file, staged), Err);
                round.answer(done, reply);
            }
            Ask::NoFile(number, reply) => {
                let done = broken.map_or_else(|| self.drop_file(round, number), Err);
                round.answer(done, reply);
            }
            Ask::Found(Attempt { job, attempt, .. }) => drop(self.sought.remove(&(job, attempt))),
            Ask::Workers(workers) if broken.is_none() => {
                let have = self.table.have(round.now, &workers);
                if let Err(error) = have.into_iter().try_for_each(|record| self.write(round, record)) {
                    self.breaks(error);
                }
            }
            Ask::Workers(_) => {}
            Ask::Release(attempt, reply) => {
                let done = broken.map_or_else(|| self.release(round, attempt), Err);
                round.answer(done, reply);
            }
            Ask::Settle(attempt, outcome, reply) => {
                let done = broken.map_or_else(|| self.settle(round, attempt, outcome), Err);
                round.answer(done, reply);
            }
        }
    }

    fn submit(&mut self, round: &mut Round, spec: JobSpec, staged: Option<Staged>) -> Result<u64> {
        match self.table.submit(round.now, spec, staged.as_ref(), &Before(&*self.journal, &round.batch))? {
            Submission::Known(id) => Ok(id),
            Submission::New(record) => {
                let id = self.table.next();
                self.write(round, *record)?;
                round.batch.staged.extend(staged);
                Ok(id)
            }
        }
    }

    fn stop(&mut self, round: &mut Round, id: u64, error: &Error) -> Result<()> {
        if self.table.get(id).is_none() {
            let ended = Before(&*self.journal, &round.batch).ended(id)?;
            return match ended {
                None => Err(Error::new(Code::NotFound, format!("there is no job {id}"))),
                Some(job) if job.state == "cancelled" => Ok(()),
                Some(job) => Err(Error::new(Code::FailedPrecondition, format!("job {id} has {} already", job.state))),
            };
        }
        let ran = self.table.get(id).is_some_and(|job| job.phase == Phase::Running);
        round.told.extend(ran.then_some(Told::Stop(id)));
        let records = self.table.stop(round.now, id, error)?;
        self.stop_rows(round, id);
        records.into_iter().try_for_each(|record| self.write(round, record))
    }

    fn retry(&mut self, round: &mut Round, id: u64) -> Result<()> {
        let left = Before(&*self.journal, &round.batch).ended(id)?.filter(|_| self.table.get(id).is_none());
        let Some(left) = left else {
            let open = self.table.get(id).is_some();
            let text = if open { format!("job {id} has not ended") } else { format!("there is no job {id}") };
            return Err(Error::new(if open { Code::FailedPrecondition } else { Code::NotFound }, text));
        };
        let submitted = self.submissions(round, &[id])?.remove(&id);
        let spec = submitted.and_then(|submitted| submitted.spec).ok_or_else(|| begin::no_spec(id))?;
        let term = state_term(&left.state);
        let before = Before(&*self.journal, &round.batch);
        let record = self.table.retry(round.now, Job { spec: Some(spec), ..left }, &before)?;
        // It may have ended in this very round.
        let gone = (term, id);
        round.batch.terms.retain(|term| *term != gone);
        round.batch.no_terms.push(gone);
        self.write(round, record)
    }

    fn settle(&mut self, round: &mut Round, attempt: Attempt, outcome: Result<Outcome>) -> Result<()> {
        match outcome {
            Ok(Outcome { row, staged, model }) => {
                // Served from the very append in which its job succeeds.
                if let Some(model) = model {
                    let record = self.table.publish(round.now, attempt, model)?;
                    self.write(round, record)?;
                }
                let record = self.table.succeed(round.now, attempt)?;
                round.batch.results.push((attempt.job, row));
                self.write(round, record)?;
                if let (Some(staged), Some(left)) = (staged, round.batch.ended.last_mut()) {
                    left.result_address = staged.address.to_vec().into();
                    round.batch.keepers.push((staged.address, attempt.job));
                    round.batch.staged.push(staged);
                }
                Ok(())
            }
            Err(error) => {
                let records = self.table.fail(round.now, attempt, &error)?;
                if let Some(Event::Ended(_)) = records.first().and_then(|record| record.event.as_ref()) {
                    self.stop_rows(round, attempt.job);
                }
                records.into_iter().try_for_each(|record| self.write(round, record))
            }
        }
    }

    fn release(&mut self, round: &mut Round, attempt: Attempt) -> Result<()> {
        let records = self.table.release(round.now, attempt)?;
        records.into_iter().try_for_each(|record| self.write(round, record))
    }

    fn write(&mut self, round: &mut Round, record: Record) -> Result<()> {
        let place = self.table.next();
        let changes = self.table.apply(&record).map_err(|error| Error::new(Code::Internal, error.to_string()))?;
        if let Some(Event::Submitted(submitted)) = &record.event {
            self.index(round, place, submitted);
        }
        round.batch.records.push(record);
        for change in &changes {
            match change {
                Change::Ended(job, keep) => {
                    // A file's lines are forgotten with its job.
                    if job.row.is_none() {
                        round.batch.terms.push((state_term(&job.state), job.id));
                        round.batch.forget.push((job.ended_unix_ms.saturating_add(*keep), job.id));
                    }
                    round.batch.ended.push(Job::clone(job));
                }
                Change::Open(job) if job.is_complete() => self.complete.push(job.id),
                _ => {}
            }
        }
        round.changes.extend(changes);
        Ok(())
    }

    /// Writes the round, then tells what it did.
    fn end(&mut self, mut round: Round) {
        // What is forgotten takes records away that the fold would need: it is written down with it.
        let forgets = !round.batch.forgotten.is_empty();
        if forgets || self.table.next() >= self.written_down.saturating_add(SNAPSHOT_EVERY) {
            round.batch.snapshot = Some(snapshot(&self.table));
        }
        let is_empty = round.batch.records.is_empty() && round.batch.not_due.is_empty();
        let written = match &self.broken {
            // It may have broken in this very round: nothing of it is on disk.
            Some(error) => Err(error.clone()),
            None if is_empty => Ok(()),
            None => self.journal.append(round.first, &round.batch).map_err(Error::from),
        };
        match written {
            Ok(()) => {
                if let Some(snapshot) = &round.batch.snapshot {
                    self.written_down = snapshot.next;
                }
                round.changes.into_iter().for_each(|change| self.view.changed(change));
                // A runner that is gone runs nothing: the process ends.
                let runner = self.runner.iter();
                runner.for_each(|runner| round.told.drain(..).for_each(|told| _ = runner.send(told)));
                round.answers.into_iter().for_each(|answer| answer(Ok(())));
            }
            Err(error) => {
                self.breaks(error.clone());
                let told = to_clients(error);
                round.answers.into_iter().for_each(|answer| answer(Err(told.clone())));
            }
        }
    }

    /// What is on disk is not what is in memory any more: nothing is accepted until the journal is opened anew.
    fn breaks(&mut self, error: Error) {
        if self.broken.is_none() {
            match error.code {
                Code::FailedPrecondition => tracing::warn!(%error, "lead_lost"),
                _ => tracing::error!(%error, "journal_broken"),
            }
            self.leave(error);
        }
    }

    fn leave(&mut self, why: Error) {
        let why = to_clients(why);
        self.view.ends(why.clone());
        self.runner = None;
        self.broken.get_or_insert(why);
    }
}

/// A leader that was refused stops; who asked it may ask whoever leads now, which may be the same scheduler anew.
fn to_clients(error: Error) -> Error {
    match error.code {
        Code::FailedPrecondition => {
            let text = "the lead has gone to another scheduler, or was won anew; what was asked is done or not: ask again, with the same idempotency key";
            Error::new(Code::Unavailable, text)
        }
        _ => error,
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Whoever watches would wait for ever.
        self.view.ends(super::gone());
    }
}
