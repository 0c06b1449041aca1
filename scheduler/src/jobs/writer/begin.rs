//! Attempts begin, and those that were under way when this scheduler came to lead are looked for.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use orion_proto::{Code, Error, JobAttempt, Result, jobs::JobSpec};

use super::Writer;
use crate::jobs::{
    ask::Told,
    decide::Attempt,
    round::Round,
    snapshot::{SPECS_AT_ONCE, specs},
    table::{Phase, Unfinished},
    terms::Millis,
};

impl Writer {
    /// Tells the runner of what was under way when another led.
    pub(super) fn resume(&self, now: Millis) -> Result<()> {
        let ran: Vec<_> = self.table.unfinished().filter(|job| job.phase == Phase::Running).collect();
        for some in ran.chunks(SPECS_AT_ONCE) {
            let ids: Vec<u64> = some.iter().map(|job| job.id).collect();
            let mut specs = specs(&*self.journal, &ids)?;
            for job in some {
                let spec = specs.remove(&job.id).ok_or_else(|| no_spec(job.id))?;
                let attempt = Attempt { job: job.id, attempt: job.attempt, epoch: self.epoch };
                let told = Told::Resume(attempt, Box::new(spec), left(job, now));
                // A runner that is gone runs nothing: the process ends.
                let _ = self.runner.as_ref().map(|runner| runner.send(told));
            }
        }
        Ok(())
    }

    /// The attempts that are under way.
    pub(in crate::jobs) fn under_way(&self) -> Vec<JobAttempt> {
        let running = self.table.unfinished().filter(|job| job.phase == Phase::Running && job.progress.is_none());
        running.map(|job| JobAttempt { job: job.id, attempt: job.attempt }).collect()
    }

    /// The same with the model of each.
    pub(super) fn under_way_on(&self) -> BTreeMap<(u64, u32), Arc<str>> {
        let running = self.table.unfinished().filter(|job| job.phase == Phase::Running && job.progress.is_none());
        running.map(|job| ((job.id, job.attempt), job.terms.model.clone())).collect()
    }

    /// How many of each model are sought.
    fn sought(&mut self) -> BTreeMap<Arc<str>, usize> {
        let table = &self.table;
        self.sought.retain(|(job, attempt), _| {
            table.get(*job).is_some_and(|job| job.phase == Phase::Running && job.attempt == *attempt)
        });
        let mut counts = BTreeMap::new();
        self.sought.values().for_each(|model| *counts.entry(model.clone()).or_default() += 1);
        counts
    }

    /// Begins what may begin.
    pub(super) fn start(&mut self, round: &mut Round) {
        let (mut begun, sought) = (Vec::new(), self.sought());
        while self.broken.is_none() {
            let Some(id) = self.table.ready(round.now, self.places, &sought) else { break };
            let begins = self.table.begin(round.now, id, self.epoch);
            match begins.and_then(|(attempt, record)| self.write(round, record).map(|()| attempt)) {
                Ok(attempt) => begun.push(attempt),
                Err(error) => return self.breaks(error),
            }
        }
        // Many at once: a journal may be far away.
        for some in begun.chunks(SPECS_AT_ONCE) {
            let ids: Vec<u64> = some.iter().map(|attempt| attempt.job).collect();
            let mut specs = match self.specs(round, &ids) {
                Ok(specs) => specs,
                Err(error) => return self.breaks(error),
            };
            for attempt in some {
                let Some(spec) = specs.remove(&attempt.job) else { return self.breaks(no_spec(attempt.job)) };
                let left = self.table.get(attempt.job).and_then(|job| left(job, round.now));
                round.told.push(Told::Begin(*attempt, Box::new(spec), left));
            }
        }
    }

    /// What jobs were asked to do, which may have been in this round.
    pub(super) fn specs(&self, round: &Round, ids: &[u64]) -> Result<HashMap<u64, JobSpec>> {
        let mut found: HashMap<u64, JobSpec> = ids.iter().filter_map(|id| Some((*id, round.spec(*id)?))).collect();
        let others: Vec<u64> = ids.iter().filter(|id| !found.contains_key(id)).copied().collect();
        if !others.is_empty() {
            found.extend(specs(&*self.journal, &others)?);
        }
        Ok(found)
    }
}

pub(super) fn no_spec(id: u64) -> Error {
    Error::new(Code::Internal, format!("the journal is damaged: job {id} has no spec"))
}

/// How long a job may still take.
fn left(job: &Unfinished, now: Millis) -> Option<Duration> {
    job.terms.deadline.map(|deadline| Duration::from_millis(deadline.saturating_sub(now)))
}
