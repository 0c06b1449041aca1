//! Whether a journal is what its records say, without running any of it.

use std::collections::{BTreeMap, HashMap};

use orion_proto::{
    Code, Error, Result,
    jobs::{Job, JobResult, KeptContent, Progress, job_result::Outcome},
};
use prost::Message;

use super::{
    files::LISTED as FILES,
    snapshot,
    table::Table,
    terms::Terms,
    view::{ALL, row_term},
};
use crate::journal::{Address, Journal, address};

/// Jobs that are looked at together.
const AT_ONCE: usize = 1000;
/// Bytes of a content that are read together.
const PIECE: usize = 1 << 20;

/// What a journal holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// The place of the next record.
    pub next: u64,
    /// The epoch of the last scheduler that led.
    pub epoch: u64,
    /// Jobs that have not ended.
    pub unfinished: usize,
    /// Jobs that ended, by how.
    pub ended: BTreeMap<String, usize>,
}

/// Follows all records from the last snapshot on, and looks at each job that is listed, at the lines of those that are files, and at
/// all bytes of what they need and have to show.
///
/// # Errors
/// INTERNAL, naming the record or the job that is not as it must be.
pub fn verify(journal: &dyn Journal) -> Result<Verified> {
    let (table, mut contents) = (snapshot::load(journal)?, Contents { journal, known: HashMap::new() });
    let mut found = Verified { next: table.next(), epoch: table.epoch(), ..Verified::default() };
    each(journal, ALL, |id| {
        let Some(submitted) = snapshot::submission(journal, id)? else {
            return Err(wrong(id, "is listed, and what it was asked to do is missing"));
        };
        contents.needed(id, &submitted.address, submitted.bytes)?;
        let progress = match one(&mut contents, &table, id)? {
            None => {
                found.unfinished += 1;
                table.get(id).and_then(|job| job.progress)
            }
            Some(left) => {
                let keep = submitted.spec.map_or(0, |spec| Terms::of(&spec, 0).keep);
                // The lines of one that is being forgotten go before it.
                let is_due = left.ended_unix_ms.saturating_add(keep) <= table.last();
                *found.ended.entry(left.state).or_default() += 1;
                left.progress.filter(|_| !is_due)
            }
        };
        match progress {
            Some(progress) => rows(&mut contents, &table, id, &progress).map(|open| found.unfinished += open),
            None => Ok(()),
        }
    })?;
    each(journal, FILES, |id| match journal.file(id)? {
        Some(file) => contents.needed(id, &file.address, file.bytes),
        None => Err(wrong(id, "is listed as a file, and there is none")),
    })?;
    let open = table.unfinished().count();
    if open != found.unfinished {
        let text = format!("{open} jobs have not ended, and {} of them are listed", found.unfinished);
        return Err(Error::new(Code::Internal, text));
    }
    Ok(found)
}

/// The contents of a journal, and how many bytes those have that were looked at.
struct Contents<'j> {
    journal: &'j dyn Journal,
    known: HashMap<Address, u64>,
}

impl Contents<'_> {
    /// Looks whether a content is there that is needed, and is what its address says; none is where there is no address.
    fn needed(&mut self, id: u64, content: &[u8], bytes: u64) -> Result<()> {
        if content.is_empty() {
            return Ok(());
        }
        match self.length(id, address(content)?)? {
            found if found == bytes => Ok(()),
            found => Err(wrong(id, &format!("needs a content of {bytes} bytes, which has {found}"))),
        }
    }

    /// Looks whether a large row of a table is there.
    fn row(&mut self, id: u64) -> Result<()> {
        let Some(submitted) = snapshot::submission(self.journal, id)?.filter(|row| !row.address.is_empty()) else {
            return Ok(());
        };
        let ends = submitted.from.saturating_add(submitted.bytes);
        match self.length(id, address(&submitted.address)?)? {
            found if ends <= found => Ok(()),
            found => Err(wrong(id, &format!("needs a content to its byte {ends}, which has {found}"))),
        }
    }

    /// How many bytes a content has that is what its address says.
    fn length(&mut self, id: u64, address: Address) -> Result<u64> {
        if let Some(known) = self.known.get(&address) {
            return Ok(*known);
        }
        let found = self.read(id, &address)?;
        self.known.insert(address, found);
        Ok(found)
    }

    fn read(&self, id: u64, address: &Address) -> Result<u64> {
        let mut hash = blake3::Hasher::new();
        loop {
            let piece = self.journal.content(address, hash.count(), PIECE);
            match piece {
                Ok(piece) if piece.is_empty() => break,
                Ok(piece) => _ = hash.update(&piece),
                Err(error) => {
                    return Err(wrong(id, &format!("needs a content that cannot be read: {}", error.message)));
                }
            }
        }
        match hash.finalize().as_bytes() == address {
            true => Ok(hash.count()),
            false => Err(wrong(id, "needs a content that is not what its address says")),
        }
    }

    /// Looks at a result, and at the content that it is where its row has none.
    fn result(&mut self, id: u64, row: bytes::Bytes) -> Result<()> {
        match JobResult::decode(row)
            .map_err(|error| wrong(id, &format!("has a result that cannot be read: {error}")))?
        {
            JobResult { outcome: Some(Outcome::Kept(KeptContent { address, bytes })) } => {
                self.needed(id, &address, bytes)
            }
            _ => Ok(()),
        }
    }
}

fn wrong(id: u64, why: &str) -> Error {
    Error::new(Code::Internal, format!("job {id} {why}"))
}

/// Looks at all jobs that are found by this term.
fn each(journal: &dyn Journal, term: &str, mut look: impl FnMut(u64) -> Result<()>) -> Result<()> {
    let mut before = u64::MAX;
    loop {
        let ids = journal.found(term, before, AT_ONCE)?;
        let Some(last) = ids.last() else { return Ok(()) };
        before = *last;
        ids.into_iter().try_for_each(&mut look)?;
    }
}

/// What is left of a job; none where it has not ended.
fn one(contents: &mut Contents<'_>, table: &Table, id: u64) -> Result<Option<Job>> {
    let journal = contents.journal;
    if table.get(id).is_some() {
        return Ok(None);
    }
    let left = journal.ended(id)?.ok_or_else(|| wrong(id, "is listed, and has neither ended nor not"))?;
    match journal.result(id)? {
        Some(row) if left.state == "succeeded" => contents.result(id, row).map(|()| Some(left)),
        None if left.state != "succeeded" => Ok(Some(left)),
        _ => Err(wrong(id, &format!("has {}, and its result says otherwise", left.state))),
    }
}

/// Looks at the lines of a file's job; how many have not ended.
fn rows(contents: &mut Contents<'_>, table: &Table, id: u64, progress: &Progress) -> Result<usize> {
    let (mut succeeded, mut failed, mut open) = (0, 0, 0);
    each(contents.journal, &row_term(id), |row| {
        contents.row(row)?;
        match one(contents, table, row)? {
            None => open += 1,
            Some(left) if left.state == "succeeded" => succeeded += 1,
            Some(_) => failed += 1,
        }
        Ok(())
    })?;
    if (progress.rows, progress.succeeded, progress.failed) != (succeeded + failed + open, succeeded, failed) {
        let text = format!(
            "counts {progress:?}, and {succeeded} of its lines succeeded, {failed} did not, {open} have not ended"
        );
        return Err(wrong(id, &text));
    }
    usize::try_from(open).map_err(|_| wrong(id, "has too many lines"))
}
