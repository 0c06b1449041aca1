//! Whether a journal is what its records say, without running any of it.

use std::collections::BTreeMap;

use orion_proto::{Code, Error, Result};

use super::{snapshot, view::ALL};
use crate::journal::Journal;

/// Jobs that are looked at together.
const AT_ONCE: usize = 1000;

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

/// Follows all records from the last snapshot on, and looks at each job that is listed.
///
/// # Errors
/// INTERNAL, naming the record or the job that is not as it must be.
pub fn verify(journal: &dyn Journal) -> Result<Verified> {
    let table = snapshot::load(journal)?;
    let mut found = Verified { next: table.next(), epoch: table.epoch(), ..Verified::default() };
    let wrong = |id: u64, why: &str| Err(Error::new(Code::Internal, format!("job {id} {why}")));
    let (mut before, mut open) = (u64::MAX, 0);
    loop {
        let ids = journal.found(ALL, before, AT_ONCE)?;
        let Some(last) = ids.last() else { break };
        before = *last;
        for id in ids {
            if snapshot::spec(journal, id)?.is_none() {
                return wrong(id, "is listed, and what it was asked to do is missing");
            }
            if table.get(id).is_some() {
                open += 1;
                continue;
            }
            let Some(left) = journal.ended(id)? else { return wrong(id, "is listed, and has neither ended nor not") };
            if (left.state == "succeeded") != journal.result(id)?.is_some() {
                return wrong(id, &format!("has {}, and its result says otherwise", left.state));
            }
            *found.ended.entry(left.state).or_default() += 1;
        }
    }
    found.unfinished = table.unfinished().count();
    if open != found.unfinished {
        let text = format!("{} jobs have not ended, and {open} of them are listed", found.unfinished);
        return Err(Error::new(Code::Internal, text));
    }
    Ok(found)
}
