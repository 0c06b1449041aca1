//! What time brings: jobs that are late end, and what was kept for long enough is forgotten.

use std::collections::HashMap;

use orion_proto::{
    Code, Error, Result,
    files::File,
    jobs::{Job, job_spec::Work},
    journal::{Forgotten, Record, Submitted, record::Event},
};

use super::Writer;
use crate::{
    jobs::{
        decide::Past,
        files::{JSONL, terms as file_terms},
        round::{Before, Round},
        snapshot::submission,
        terms::{Millis, Terms},
        view::{row_term, state_term, terms},
    },
    journal::{self, Address, address},
};

/// Jobs that are forgotten at once, and how long what is due may wait for that.
const FORGET_AT_ONCE: usize = 1000;
const FORGET_EVERY: Millis = 10_000;

impl Writer {
    /// Ends what is late, and forgets what was kept for long enough.
    pub(super) fn pass_time(&mut self, round: &mut Round) {
        if self.broken.is_some() {
            return;
        }
        let late: Vec<u64> = self.table.late(round.now).collect();
        let error = Error::new(Code::DeadlineExceeded, "it had not ended by its deadline");
        for id in late {
            // One that it stopped with it is not open any more.
            let _ = self.stop(round, id, &error);
        }
        if round.now >= self.forgot.saturating_add(FORGET_EVERY) {
            self.forgot = round.now;
            if let Err(error) = self.forget(round) {
                tracing::warn!(%error, "jobs_not_forgotten");
            }
        }
    }

    fn forget(&mut self, round: &mut Round) -> Result<()> {
        let all = self.journal.due(round.now, FORGET_AT_ONCE)?;
        if all.len() == FORGET_AT_ONCE {
            // There are more: they are looked at next.
            self.forgot = 0;
        }
        let mut room = FORGET_AT_ONCE;
        for (due, id) in all {
            if room == 0 {
                break;
            }
            let left = Before(&*self.journal, &round.batch).ended(id)?;
            let is_done = match left.filter(|_| self.table.get(id).is_none()) {
                Some(left) => self.forget_job(round, due, left, &mut room)?,
                None => self.forget_kept_file(round, id)?,
            };
            if is_done {
                room = room.saturating_sub(1);
                round.batch.not_due.push((due, id));
            }
        }
        if room == 0 {
            // A job's lines may be left: they are next.
            self.forgot = 0;
        }
        Ok(())
    }

    fn forget_kept_file(&mut self, round: &mut Round, id: u64) -> Result<bool> {
        // One that was retried since is no file either.
        if let Some(file) = self.journal.file(id)? {
            self.forget_file(round, id, &file)?;
        }
        Ok(true)
    }

    /// A file is kept no more.
    pub(super) fn forget_file(&mut self, round: &mut Round, id: u64, file: &File) -> Result<()> {
        let (terms, contents) = (file_terms(file), vec![address(&file.address)?]);
        self.forgets(round, journal::Forgotten { job: id, terms, contents, ..Default::default() })
    }

    /// Forgets what is left of a job that was due then; whether it need not be looked at again.
    fn forget_job(&mut self, round: &mut Round, due: Millis, left: Job, room: &mut usize) -> Result<bool> {
        let id = left.id;
        let Some(Submitted { spec: Some(spec), address: content, .. }) = submission(&*self.journal, id)? else {
            return Ok(true);
        };
        // One that was retried since is due later.
        if left.ended_unix_ms.saturating_add(Terms::of(&spec, 0).keep) > due {
            return Ok(true);
        }
        // A file's lines go before it, some at a time.
        if left.progress.is_some() {
            let file = address(&content)?;
            let is_table = matches!(&spec.work, Some(Work::File(calls)) if calls.format != JSONL);
            *room -= self.forget_rows(round, id, is_table.then_some(file), *room)?;
            if *room == 0 {
                return Ok(false);
            }
        }
        let mut terms = terms(&spec, None);
        terms.push(state_term(&left.state));
        let contents = [&content, &left.result_address].into_iter().filter_map(|kept| address(kept).ok()).collect();
        self.forgets(round, journal::Forgotten { job: id, terms, key: spec.idempotency_key, contents })?;
        Ok(true)
    }

    /// Forgets lines of a job's file; of a table's rows, also what is large, which is not in the file.
    fn forget_rows(&mut self, round: &mut Round, id: u64, table: Option<Address>, most: usize) -> Result<usize> {
        let rows = self.journal.found(&row_term(id), u64::MAX, most)?;
        let left = self.journal.ended_of(&rows)?;
        let kept = left.iter().filter_map(|row| Some((row.id, address(&row.result_address).ok()?)));
        let kept: HashMap<u64, Address> = kept.collect();
        for row in &rows {
            let submitted = table.map(|_| submission(&*self.journal, *row)).transpose()?.flatten();
            let own =
                submitted.and_then(|submitted| address(&submitted.address).ok()).filter(|own| Some(*own) != table);
            let (terms, contents) = (vec![row_term(id)], kept.get(row).copied().into_iter().chain(own).collect());
            self.forgets(round, journal::Forgotten { job: *row, terms, contents, ..Default::default() })?;
        }
        Ok(rows.len())
    }

    fn forgets(&mut self, round: &mut Round, gone: journal::Forgotten) -> Result<()> {
        self.write(round, Record { unix_ms: round.now, event: Some(Event::Forgotten(Forgotten { job: gone.job })) })?;
        round.batch.forgotten.push(gone);
        Ok(())
    }
}
