//! Where the records of jobs are kept, in their order, with what is left of jobs that ended.
//!
//! A [`Batch`] is on disk as a whole or not at all when [`Journal::append`] returns. What is appended names the place that it
//! is to have: a writer that has been replaced names one that is taken, and is refused.

mod contents;
mod embedded;
pub mod postgres;
#[cfg(test)]
pub(crate) mod power;

use bytes::Bytes;
use orion_proto::{
    Code, Error,
    files::File,
    jobs::Job,
    journal::{Record, Snapshot},
};

#[cfg(test)]
pub(crate) use contents::NOWHERE;
pub use contents::{Address, Staged, Staging, address};
pub use embedded::Embedded;
pub use postgres::Postgres;

/// What one append brings.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// In their order.
    pub records: Vec<Record>,
    /// What is left of the jobs that ended, without their specifications; each replaces what was left before.
    pub ended: Vec<Job>,
    /// Their outcomes, encoded.
    pub results: Vec<(u64, Bytes)>,
    /// Terms by which a job is found: of each the jobs are listed in their order.
    pub terms: Vec<(String, u64)>,
    /// Terms by which a job is no longer found.
    pub no_terms: Vec<(String, u64)>,
    /// Idempotency keys and their jobs.
    pub keys: Vec<(String, u64)>,
    /// When what is left of a job that ended is no longer kept, in milliseconds since 1970.
    pub forget: Vec<(u64, u64)>,
    /// Of these times and jobs, those that were looked at: they are not due any more.
    pub not_due: Vec<(u64, u64)>,
    /// Jobs of which nothing is kept from now on, with the terms and the key by which they were found.
    pub forgotten: Vec<Forgotten>,
    /// Contents that become kept, by those of `keepers`.
    pub staged: Vec<Staged>,
    /// Contents and the jobs or files that need them.
    pub keepers: Vec<(Address, u64)>,
    /// Files by their numbers.
    pub files: Vec<(u64, File)>,
    /// The jobs that have not ended after these records.
    pub snapshot: Option<Snapshot>,
}

/// A job, or a file, of which nothing is kept.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)] // the names say it
pub struct Forgotten {
    pub job: u64,
    pub terms: Vec<String>,
    pub key: String,
    /// What it needed.
    pub contents: Vec<Address>,
}

/// Why nothing was appended.
#[derive(Debug, thiserror::Error)]
pub enum NotAppended {
    /// Another has written since.
    #[error("the journal has record {0} already: another scheduler leads")]
    Fenced(u64),
    /// It could not be written; whether it was is not known until the journal is opened anew.
    #[error("the journal could not be written: {0}")]
    Failed(String),
}

impl From<NotAppended> for Error {
    fn from(why: NotAppended) -> Self {
        let code = match why {
            NotAppended::Fenced(_) => Code::FailedPrecondition,
            NotAppended::Failed(_) => Code::Unavailable,
        };
        Error::new(code, why.to_string())
    }
}

/// The records, and what is left of jobs.
pub trait Journal: Send + Sync + 'static {
    /// Appends as a whole, at this place.
    ///
    /// # Errors
    /// Another has written since, or it cannot be written.
    fn append(&self, expected: u64, batch: &Batch) -> Result<(), NotAppended>;

    /// The last snapshot, if there is one.
    ///
    /// # Errors
    /// INTERNAL where it cannot be read or is damaged.
    fn snapshot(&self) -> orion_proto::Result<Option<Snapshot>>;

    /// The place that the next record will have.
    ///
    /// # Errors
    /// INTERNAL where it cannot be read.
    fn end(&self) -> orion_proto::Result<u64>;

    /// The records from this place on, in their order, at most so many, with their places.
    ///
    /// # Errors
    /// INTERNAL where they cannot be read or are damaged.
    fn read(&self, from: u64, most: usize) -> orion_proto::Result<Vec<(u64, Record)>>;

    /// The records at these places, those that are there, in any order.
    ///
    /// # Errors
    /// INTERNAL where they cannot be read or are damaged.
    fn at(&self, places: &[u64]) -> orion_proto::Result<Vec<(u64, Record)>>;

    /// What is left of these jobs, of those that ended, without their specifications, in any order.
    ///
    /// # Errors
    /// INTERNAL where it cannot be read or is damaged.
    fn ended_of(&self, jobs: &[u64]) -> orion_proto::Result<Vec<Job>>;

    /// What is left of a job that ended, without its specification.
    ///
    /// # Errors
    /// INTERNAL where it cannot be read or is damaged.
    fn ended(&self, job: u64) -> orion_proto::Result<Option<Job>> {
        Ok(self.ended_of(&[job])?.pop())
    }

    /// The outcomes of those of these jobs that succeeded, encoded, in any order.
    ///
    /// # Errors
    /// INTERNAL where they cannot be read.
    fn results(&self, jobs: &[u64]) -> orion_proto::Result<Vec<(u64, Bytes)>>;

    /// The outcome of a job that succeeded, encoded.
    ///
    /// # Errors
    /// INTERNAL where it cannot be read.
    fn result(&self, job: u64) -> orion_proto::Result<Option<Bytes>> {
        Ok(self.results(&[job])?.pop().map(|(_, bytes)| bytes))
    }

    /// A file.
    ///
    /// # Errors
    /// INTERNAL where it cannot be read.
    fn file(&self, number: u64) -> orion_proto::Result<Option<File>>;

    /// Takes up a content, which is kept once it is appended.
    ///
    /// # Errors
    /// UNAVAILABLE where it cannot be kept.
    fn stage(&self) -> orion_proto::Result<Box<dyn Staging>>;

    /// Bytes of a content from this place on, at most so many; none after its end.
    ///
    /// # Errors
    /// INTERNAL where it is not there or cannot be read.
    fn content(&self, address: &Address, from: u64, most: usize) -> orion_proto::Result<Bytes>;

    /// The job of this idempotency key.
    ///
    /// # Errors
    /// INTERNAL where it cannot be read.
    fn of_key(&self, key: &str) -> orion_proto::Result<Option<u64>>;

    /// The jobs that are found by this term, the newest before `before` first, at most so many.
    ///
    /// # Errors
    /// INTERNAL where they cannot be read.
    fn found(&self, term: &str, before: u64, most: usize) -> orion_proto::Result<Vec<u64>>;

    /// The jobs of which nothing is to be kept after this time, at most so many, and when each was due.
    ///
    /// # Errors
    /// INTERNAL where they cannot be read.
    fn due(&self, now: u64, most: usize) -> orion_proto::Result<Vec<(u64, u64)>>;

    /// Who needs any content.
    ///
    /// # Errors
    /// INTERNAL where it cannot be read.
    #[cfg(test)]
    fn keepers(&self) -> orion_proto::Result<std::collections::BTreeSet<u64>>;
}
