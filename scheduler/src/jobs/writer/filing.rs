//! Files are kept, and their lines become jobs.

use orion_proto::{
    Code, Error, Result,
    files::File,
    jobs::{FileAnswers, JobResult, JobSpec, job_result::Outcome},
    journal::{Record, Submitted, record::Event},
};
use prost::Message;

use super::Writer;
use crate::{
    jobs::{
        ask::Told,
        decide::{Attempt, Past, ReadLines},
        files::{self, Announced},
        round::{Before, Round},
        shown,
        table::Phase,
        view::terms,
    },
    journal::{Staged, address},
};

impl Writer {
    /// What a submitted job is found by, and what it needs.
    pub(super) fn index(&self, round: &mut Round, id: u64, submitted: &Submitted) {
        let Some(spec) = &submitted.spec else { return };
        round.batch.terms.extend(terms(spec, submitted.row.as_ref()).into_iter().map(|term| (term, id)));
        if !spec.idempotency_key.is_empty() {
            round.batch.keys.push((spec.idempotency_key.clone(), id));
        }
        // A line that is in its file is kept by its file's job.
        let file = submitted.row.as_ref().and_then(|row| self.table.get(row.job)?.address);
        let content = address(&submitted.address).ok().filter(|content| Some(*content) != file);
        round.batch.keepers.extend(content.map(|content| (content, id)));
    }

    pub(super) fn expand(&mut self, round: &mut Round, attempt: Attempt, of: &JobSpec, read: ReadLines) -> Result<()> {
        let large = read.large.clone();
        let records = self.table.expand(round.now, attempt, of, read)?;
        round.batch.staged.extend(large);
        records.into_iter().try_for_each(|record| self.write(round, record))
    }

    /// Ends the jobs whose files' lines have all ended.
    pub(super) fn complete(&mut self, round: &mut Round) {
        for id in std::mem::take(&mut self.complete) {
            let Some(job) = self.table.get(id).filter(|job| job.is_complete() && job.phase == Phase::Running) else {
                continue;
            };
            let (output_file_id, error_file_id) = shown::answer_ids(id);
            let answers = FileAnswers { output_file_id, error_file_id, progress: job.progress };
            let result = JobResult { outcome: Some(Outcome::File(answers)) };
            let ends = self.table.complete(round.now, id, self.epoch);
            match ends.and_then(|record| self.write(round, record)) {
                Ok(()) => round.batch.results.push((id, result.encode_to_vec().into())),
                Err(error) => return self.breaks(error),
            }
        }
    }

    /// The lines of this job's file that run are given up.
    pub(super) fn stop_rows(&self, round: &mut Round, id: u64) {
        let running = self.table.rows_of(id).filter(|row| row.phase == Phase::Running);
        round.told.extend(running.map(|row| Told::Stop(row.id)));
    }

    pub(super) fn keep_file(&mut self, round: &mut Round, announced: Announced, staged: Staged) -> Result<File> {
        let number = self.table.next();
        let Announced { name, purpose, keep } = announced;
        let file = File {
            id: files::id(number, ""),
            name,
            purpose,
            bytes: staged.bytes,
            created_unix_ms: round.now,
            expires_unix_ms: round.now.saturating_add(keep),
            address: staged.address.to_vec().into(),
        };
        self.write(round, Record { unix_ms: round.now, event: Some(Event::Filed(file.clone())) })?;
        round.batch.keepers.push((staged.address, number));
        round.batch.staged.push(staged);
        round.batch.terms.extend(files::terms(&file).into_iter().map(|term| (term, number)));
        round.batch.forget.push((file.expires_unix_ms, number));
        round.batch.files.push((number, file.clone()));
        Ok(file)
    }

    pub(super) fn drop_file(&mut self, round: &mut Round, number: u64) -> Result<File> {
        let id = files::id(number, "");
        let is_gone = round.batch.forgotten.iter().any(|gone| gone.job == number);
        let file = Before(&*self.journal, &round.batch).file(&id)?.filter(|_| !is_gone);
        let file = file.ok_or_else(|| Error::new(Code::NotFound, format!("there is no file '{id}'")))?;
        self.forget_file(round, number, &file)?;
        round.batch.not_due.push((file.expires_unix_ms, number));
        Ok(file)
    }
}
