//! What becomes one append, and who is answered after it.

use orion_proto::{
    Result,
    files::File,
    jobs::Job,
    journal::{Submitted, record::Event},
};

use tokio::sync::OwnedSemaphorePermit;

use super::{
    ask::{Reply, Told},
    decide::Past,
    files,
    table::Change,
    terms::Millis,
};
use crate::journal::{Batch, Journal};

type Answer = Box<dyn FnOnce(Result<()>)>;

/// What becomes one append.
pub(super) struct Round {
    pub(super) now: Millis,
    pub(super) first: u64,
    pub(super) batch: Batch,
    pub(super) changes: Vec<Change>,
    pub(super) told: Vec<Told>,
    pub(super) answers: Vec<Answer>,
    /// In memory, of what was submitted.
    pub(super) rooms: Vec<OwnedSemaphorePermit>,
}

/// What ended before, on disk or in this round.
pub(super) struct Before<'a>(pub(super) &'a dyn Journal, pub(super) &'a Batch);

impl Past for Before<'_> {
    fn ended(&self, id: u64) -> Result<Option<Job>> {
        match self.1.ended.iter().rev().find(|job| job.id == id) {
            Some(job) => Ok(Some(job.clone())),
            None => self.0.ended(id),
        }
    }

    fn of_key(&self, key: &str) -> Result<Option<u64>> {
        // Of what has not ended the table knows the key.
        let here = if self.1.ended.is_empty() { &[] } else { &self.1.keys[..] };
        match here.iter().find(|(known, _)| known == key) {
            Some((_, job)) => Ok(Some(*job)),
            None => self.0.of_key(key),
        }
    }

    fn file(&self, id: &str) -> Result<Option<File>> {
        let Some(number) = files::number(id) else { return Ok(None) };
        match self.1.files.iter().find(|(known, _)| *known == number) {
            Some((_, file)) => Ok(Some(file.clone())),
            None => self.0.file(number),
        }
    }
}

impl Round {
    pub(super) fn new(now: Millis, first: u64) -> Self {
        let (batch, changes, told, answers) = (Batch::default(), Vec::new(), Vec::new(), Vec::new());
        Self { now, first, batch, changes, told, answers, rooms: Vec::new() }
    }

    /// A job as it was submitted in it.
    pub(super) fn submission(&self, id: u64) -> Option<Submitted> {
        let place = usize::try_from(id.checked_sub(self.first)?).ok()?;
        match &self.batch.records.get(place)?.event {
            Some(Event::Submitted(submitted)) => Some(submitted.clone()),
            _ => None,
        }
    }

    /// Answers after the round is on disk.
    pub(super) fn answer<T: 'static>(&mut self, done: Result<T>, reply: Reply<T>) {
        // Whoever asked may have gone.
        self.answers.push(Box::new(move |written| _ = reply.send(written.and(done))));
    }
}
