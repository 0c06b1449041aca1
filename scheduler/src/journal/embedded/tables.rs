//! What one append does to the tables.

use orion_proto::journal::{Record, Snapshot, record::Event};
use prost::Message;
use redb::{ReadableTable, WriteTransaction};

use super::{ENDED, FILES, FORGET, KEEPERS, KEYS, NEXT, RECORDS, RESULTS, SNAPSHOT, TERMS, failed};
use crate::journal::{Address, Batch, Forgotten, NotAppended};

/// All tables of one transaction.
pub(super) struct Tables<'t> {
    records: redb::Table<'t, u64, &'static [u8]>,
    ended: redb::Table<'t, u64, &'static [u8]>,
    results: redb::Table<'t, u64, &'static [u8]>,
    terms: redb::Table<'t, (&'static str, u64), ()>,
    keys: redb::Table<'t, &'static str, u64>,
    forget: redb::Table<'t, (u64, u64), ()>,
    files: redb::Table<'t, u64, &'static [u8]>,
    keepers: redb::Table<'t, (&'static [u8], u64), ()>,
    snapshot: redb::Table<'t, (), &'static [u8]>,
    next: redb::Table<'t, (), u64>,
}

impl<'t> Tables<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> std::result::Result<Self, NotAppended> {
        Ok(Self {
            records: transaction.open_table(RECORDS).map_err(failed)?,
            ended: transaction.open_table(ENDED).map_err(failed)?,
            results: transaction.open_table(RESULTS).map_err(failed)?,
            terms: transaction.open_table(TERMS).map_err(failed)?,
            keys: transaction.open_table(KEYS).map_err(failed)?,
            forget: transaction.open_table(FORGET).map_err(failed)?,
            files: transaction.open_table(FILES).map_err(failed)?,
            keepers: transaction.open_table(KEEPERS).map_err(failed)?,
            snapshot: transaction.open_table(SNAPSHOT).map_err(failed)?,
            next: transaction.open_table(NEXT).map_err(failed)?,
        })
    }

    pub(super) fn append(&mut self, expected: u64, batch: &Batch) -> std::result::Result<(), NotAppended> {
        let next = self.next.get(()).map_err(failed)?.map_or(0, |next| next.value());
        if next != expected {
            return Err(NotAppended::Fenced(next));
        }
        let mut bytes = Vec::new();
        for (place, record) in (next..).zip(&batch.records) {
            self.records.insert(place, encoded(&mut bytes, record)).map_err(failed)?;
        }
        self.next.insert((), next.saturating_add(batch.records.len() as u64)).map_err(failed)?;
        for job in &batch.ended {
            self.ended.insert(job.id, encoded(&mut bytes, job)).map_err(failed)?;
        }
        for (job, result) in &batch.results {
            self.results.insert(*job, &**result).map_err(failed)?;
        }
        for (term, job) in &batch.no_terms {
            self.terms.remove((term.as_str(), *job)).map_err(failed)?;
        }
        for (term, job) in &batch.terms {
            self.terms.insert((term.as_str(), *job), ()).map_err(failed)?;
        }
        for (key, job) in &batch.keys {
            self.keys.insert(key.as_str(), *job).map_err(failed)?;
        }
        for (due, job) in &batch.forget {
            self.forget.insert((*due, *job), ()).map_err(failed)?;
        }
        for due in &batch.not_due {
            self.forget.remove(*due).map_err(failed)?;
        }
        for (file, kept) in &batch.files {
            self.files.insert(*file, encoded(&mut bytes, kept)).map_err(failed)?;
        }
        for (address, keeper) in &batch.keepers {
            self.keepers.insert((&address[..], *keeper), ()).map_err(failed)?;
        }
        batch.forgotten.iter().try_for_each(|gone| self.forget(gone))?;
        if let Some(snapshot) = &batch.snapshot {
            self.truncate(snapshot.next)?;
            self.snapshot.insert((), encoded(&mut bytes, snapshot)).map_err(failed)?;
        }
        Ok(())
    }

    fn forget(&mut self, gone: &Forgotten) -> std::result::Result<(), NotAppended> {
        self.records.remove(gone.job).map_err(failed)?;
        self.ended.remove(gone.job).map_err(failed)?;
        self.results.remove(gone.job).map_err(failed)?;
        self.files.remove(gone.job).map_err(failed)?;
        for term in &gone.terms {
            self.terms.remove((term.as_str(), gone.job)).map_err(failed)?;
        }
        for address in &gone.contents {
            self.keepers.remove((&address[..], gone.job)).map_err(failed)?;
        }
        if !gone.key.is_empty() {
            self.keys.remove(gone.key.as_str()).map_err(failed)?;
        }
        Ok(())
    }

    /// The contents that nothing needs after this batch.
    pub(super) fn unneeded(&self, batch: &Batch) -> std::result::Result<Vec<Address>, NotAppended> {
        let mut unneeded = Vec::new();
        for address in batch.forgotten.iter().flat_map(|gone| &gone.contents) {
            if !is_kept(&self.keepers, address).map_err(failed)? {
                unneeded.push(*address);
            }
        }
        Ok(unneeded)
    }

    /// Takes away the records before a new snapshot, but for what jobs were asked to do.
    fn truncate(&mut self, below: u64) -> std::result::Result<(), NotAppended> {
        let last = self.snapshot.get(()).map_err(failed)?;
        let from = last.and_then(|last| Snapshot::decode(last.value()).ok()).map_or(0, |last| last.next);
        self.records.retain_in(from..below, |_, bytes| is_submission(bytes)).map_err(failed)
    }
}

/// Whether anything needs this content.
pub(super) fn is_kept(
    keepers: &impl ReadableTable<(&'static [u8], u64), ()>,
    address: &Address,
) -> std::result::Result<bool, redb::StorageError> {
    Ok(keepers.range((&address[..], 0)..=(&address[..], u64::MAX))?.next().transpose()?.is_some())
}

fn is_submission(bytes: &[u8]) -> bool {
    Record::decode(bytes).is_ok_and(|record| matches!(record.event, Some(Event::Submitted(_))))
}

fn encoded<'b>(bytes: &'b mut Vec<u8>, message: &impl Message) -> &'b [u8] {
    bytes.clear();
    // A vector grows as it must.
    let _ = message.encode(bytes);
    bytes
}
