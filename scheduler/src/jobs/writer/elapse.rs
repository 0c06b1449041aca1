//! What time brings: jobs that are late end, and what was kept for long enough is forgotten.

use orion_proto::{
    Code, Error, Result,
    journal::{Forgotten, Record, record::Event},
};

use super::Writer;
use crate::{
    jobs::{
        decide::Past,
        round::{Before, Round},
        snapshot::spec,
        terms::{Millis, Terms},
        view::{state_term, terms},
    },
    journal,
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
        for (due, id) in all {
            round.batch.not_due.push((due, id));
            let left = Before(&*self.journal, &round.batch).ended(id)?.filter(|_| self.table.get(id).is_none());
            // One that was retried since is due later, or not at all.
            if let (Some(left), Some(spec)) = (left, spec(&*self.journal, id)?)
                && left.ended_unix_ms.saturating_add(Terms::of(&spec, 0).keep) <= due
            {
                self.write(round, Record { unix_ms: round.now, event: Some(Event::Forgotten(Forgotten { job: id })) })?;
                let (mut terms, key) = (terms(&spec), spec.idempotency_key);
                terms.push(state_term(&left.state));
                round.batch.forgotten.push(journal::Forgotten { job: id, terms, key });
            }
        }
        Ok(())
    }
}
