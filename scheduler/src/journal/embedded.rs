//! The journal of one machine, a file of redb: one sync of the disk for each append.

mod tables;

use std::{fs::File, io, path::Path};

use bytes::Bytes;
use orion_proto::{
    Code, Error, Result, files,
    jobs::Job,
    journal::{Record, Snapshot},
};
use prost::Message;
use redb::{Database, ReadTransaction, ReadableDatabase, StorageBackend, TableDefinition};

use self::tables::{Tables, is_kept};
use super::{Address, Batch, Journal, NotAppended, Staging, contents::Folder};

const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");
const ENDED: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("ended");
const RESULTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("results");
const TERMS: TableDefinition<'_, (&str, u64), ()> = TableDefinition::new("terms");
const KEYS: TableDefinition<'_, &str, u64> = TableDefinition::new("keys");
const FORGET: TableDefinition<'_, (u64, u64), ()> = TableDefinition::new("forget");
/// Files by their numbers.
const FILES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("files");
/// Contents and who needs them.
const KEEPERS: TableDefinition<'_, (&[u8], u64), ()> = TableDefinition::new("keepers");
/// One row: the last snapshot.
const SNAPSHOT: TableDefinition<'_, (), &[u8]> = TableDefinition::new("snapshot");
/// One row: the number of the next record.
const NEXT: TableDefinition<'_, (), u64> = TableDefinition::new("next");

/// The folder beside the file in which contents are.
const CONTENTS: &str = "contents";

/// Bytes of pages that are kept in memory.
const CACHE_BYTES: usize = 64 << 20;

/// A journal in a file.
#[derive(Debug)]
pub struct Embedded {
    database: Database,
    /// None of one that has no folder.
    contents: Option<Folder>,
}

fn unreadable(error: impl Into<redb::Error>) -> Error {
    Error::new(Code::Internal, format!("the journal cannot be read: {}", error.into()))
}

fn failed(error: impl Into<redb::Error>) -> NotAppended {
    NotAppended::Failed(format!("{}; jobs are taken again when the scheduler is started anew", error.into()))
}

fn unopened(path: &Path, error: redb::DatabaseError) -> Error {
    let shown = path.display();
    match error {
        redb::DatabaseError::DatabaseAlreadyOpen => Error::new(
            Code::FailedPrecondition,
            format!("the journal {shown} is open in another process, a scheduler needs one of its own"),
        ),
        error => Error::new(Code::Internal, format!("the journal {shown} cannot be opened: {error}")),
    }
}

fn decode<M: Message + Default>(what: &str, bytes: &[u8]) -> Result<M> {
    M::decode(bytes).map_err(|error| Error::new(Code::Internal, format!("the journal is damaged: {what}: {error}")))
}

/// Makes an empty journal as a whole: half a file, left by a loss of power, would be refused for ever.
fn create(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let new = tempfile::Builder::new().prefix(".jobs-").tempfile_in(folder)?;
    drop(Database::builder().create(new.path()).map_err(io::Error::other)?);
    new.as_file().sync_all()?;
    match new.persist_noclobber(path) {
        // Another process was faster, and has it.
        Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => return Err(error.error),
        _ => {}
    }
    File::open(folder)?.sync_all()
}

impl Embedded {
    /// Opens the file, or makes it. Another process that has it open is an error.
    ///
    /// # Errors
    /// INTERNAL where it cannot be opened; FAILED_PRECONDITION where another process has it.
    pub fn open(path: &Path) -> Result<Self> {
        if !path.exists() {
            create(path).map_err(|error| {
                Error::new(Code::Internal, format!("the journal {} cannot be made: {error}", path.display()))
            })?;
        }
        let database = Database::builder().set_cache_size(CACHE_BYTES).open(path);
        let journal = Self::with(database.map_err(|error| unopened(path, error))?, Some(contents(path)))?;
        let keepers = journal.reading()?.open_table(KEEPERS).map_err(unreadable)?;
        let keeps = |address: &Address| is_kept(&keepers, address).map_err(unreadable);
        journal.contents.iter().try_for_each(|folder| folder.sweep(keeps))?;
        Ok(journal)
    }

    /// Opens a file that is there.
    ///
    /// # Errors
    /// As [`Embedded::open`], and where there is no such file.
    pub fn existing(path: &Path) -> Result<Self> {
        let database = Database::builder().open(path).map_err(|error| unopened(path, error))?;
        Ok(Self { database, contents: Some(contents(path)) })
    }

    /// Opens what a backend holds, with no pages in memory: of tests that take its power away.
    ///
    /// # Errors
    /// INTERNAL where it cannot be opened.
    pub fn on(backend: impl StorageBackend) -> Result<Self> {
        Self::with(Database::builder().set_cache_size(0).create_with_backend(backend).map_err(unreadable)?, None)
    }

    fn with(database: Database, contents: Option<Folder>) -> Result<Self> {
        let journal = Self { database, contents };
        // A reader would miss tables that nothing was written to.
        journal.write(|_| Ok(())).map_err(Error::from)?;
        Ok(journal)
    }

    fn write(
        &self,
        change: impl FnOnce(&mut Tables<'_>) -> std::result::Result<(), NotAppended>,
    ) -> std::result::Result<(), NotAppended> {
        let transaction = self.database.begin_write().map_err(failed)?;
        {
            let mut tables = Tables::open(&transaction)?;
            change(&mut tables)?;
        }
        transaction.commit().map_err(failed)
    }

    fn reading(&self) -> Result<ReadTransaction> {
        self.database.begin_read().map_err(unreadable)
    }

    /// What is in those of these rows that are there.
    fn rows<T>(
        &self,
        table: TableDefinition<'_, u64, &'static [u8]>,
        rows: &[u64],
        take: impl Fn(u64, &[u8]) -> Result<T>,
    ) -> Result<Vec<T>> {
        let table = self.reading()?.open_table(table).map_err(unreadable)?;
        let row = |row: &u64| match table.get(*row) {
            Ok(found) => found.map(|found| take(*row, found.value())),
            Err(error) => Some(Err(unreadable(error))),
        };
        rows.iter().filter_map(row).collect()
    }
}

fn no_folder() -> Error {
    Error::new(Code::Internal, "this journal has no folder for contents")
}

fn contents(journal: &Path) -> Folder {
    Folder::new(journal.with_file_name(CONTENTS))
}

impl Journal for Embedded {
    fn append(&self, expected: u64, batch: &Batch) -> std::result::Result<(), NotAppended> {
        for staged in &batch.staged {
            #[cfg(test)]
            if staged.is_nowhere() {
                continue;
            }
            let folder = self.contents.as_ref().ok_or_else(|| NotAppended::Failed("it has no folder".into()))?;
            folder.keep(staged).map_err(|error| NotAppended::Failed(error.to_string()))?;
        }
        let mut unneeded = Vec::new();
        self.write(|tables| {
            tables.append(expected, batch)?;
            unneeded = tables.unneeded(batch)?;
            Ok(())
        })?;
        self.contents.iter().for_each(|folder| unneeded.iter().for_each(|address| folder.remove(address)));
        Ok(())
    }

    fn snapshot(&self) -> Result<Option<Snapshot>> {
        let table = self.reading()?.open_table(SNAPSHOT).map_err(unreadable)?;
        table.get(()).map_err(unreadable)?.map(|found| decode("its snapshot", found.value())).transpose()
    }

    fn end(&self) -> Result<u64> {
        let table = self.reading()?.open_table(NEXT).map_err(unreadable)?;
        Ok(table.get(()).map_err(unreadable)?.map_or(0, |next| next.value()))
    }

    fn read(&self, from: u64, most: usize) -> Result<Vec<(u64, Record)>> {
        let table = self.reading()?.open_table(RECORDS).map_err(unreadable)?;
        let rows = table.range(from..).map_err(unreadable)?.take(most);
        let record = |row: std::result::Result<(redb::AccessGuard<'_, u64>, redb::AccessGuard<'_, &[u8]>), _>| {
            let (place, bytes) = row.map_err(|error: redb::StorageError| unreadable(error))?;
            Ok((place.value(), decode(&format!("record {}", place.value()), bytes.value())?))
        };
        rows.map(record).collect()
    }

    fn at(&self, places: &[u64]) -> Result<Vec<(u64, Record)>> {
        self.rows(RECORDS, places, |place, bytes| Ok((place, decode(&format!("record {place}"), bytes)?)))
    }

    fn ended_of(&self, jobs: &[u64]) -> Result<Vec<Job>> {
        self.rows(ENDED, jobs, |job, bytes| decode(&format!("job {job}"), bytes))
    }

    fn results(&self, jobs: &[u64]) -> Result<Vec<(u64, Bytes)>> {
        self.rows(RESULTS, jobs, |job, bytes| Ok((job, Bytes::copy_from_slice(bytes))))
    }

    fn file(&self, number: u64) -> Result<Option<files::File>> {
        Ok(self.rows(FILES, &[number], |file, bytes| decode(&format!("file {file}"), bytes))?.pop())
    }

    fn stage(&self) -> Result<Box<dyn Staging>> {
        self.contents.as_ref().ok_or_else(no_folder)?.stage()
    }

    #[cfg(test)]
    fn keepers(&self) -> Result<std::collections::BTreeSet<u64>> {
        let table = self.reading()?.open_table(KEEPERS).map_err(unreadable)?;
        let rows = table.range::<(&[u8], u64)>(..).map_err(unreadable)?;
        rows.map(|row| Ok(row.map_err(unreadable)?.0.value().1)).collect()
    }

    fn content(&self, address: &Address, from: u64, most: usize) -> Result<Bytes> {
        #[cfg(test)]
        if self.contents.is_none() {
            return Ok(crate::journal::Staged::read_nowhere(address, from));
        }
        self.contents.as_ref().ok_or_else(no_folder)?.read(address, from, most)
    }

    fn of_key(&self, key: &str) -> Result<Option<u64>> {
        let table = self.reading()?.open_table(KEYS).map_err(unreadable)?;
        Ok(table.get(key).map_err(unreadable)?.map(|job| job.value()))
    }

    fn found(&self, term: &str, before: u64, most: usize) -> Result<Vec<u64>> {
        let table = self.reading()?.open_table(TERMS).map_err(unreadable)?;
        let rows = table.range((term, 0)..(term, before)).map_err(unreadable)?.rev().take(most);
        rows.map(|row| Ok(row.map_err(unreadable)?.0.value().1)).collect()
    }

    fn due(&self, now: u64, most: usize) -> Result<Vec<(u64, u64)>> {
        let table = self.reading()?.open_table(FORGET).map_err(unreadable)?;
        let rows = table.range(..=(now, u64::MAX)).map_err(unreadable)?.take(most);
        rows.map(|row| row.map_err(unreadable).map(|(key, _)| key.value())).collect::<Result<_>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each finds a whole file, and one alone gets it.
    #[test]
    fn of_many_that_make_it_at_once_one_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jobs.redb");
        let opened: Vec<_> = std::thread::scope(|scope| {
            let openers: Vec<_> = (0..8).map(|_| scope.spawn(|| Embedded::open(&path))).collect();
            openers.into_iter().map(|opener| opener.join().unwrap()).collect()
        });
        let refused: Vec<_> = opened.iter().filter_map(|opened| opened.as_ref().err()).collect();
        assert_eq!(refused.len(), 7, "{refused:?}");
        assert!(refused.iter().all(|error| error.message.contains("another process")), "{refused:?}");
        // Nothing half made is left.
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
