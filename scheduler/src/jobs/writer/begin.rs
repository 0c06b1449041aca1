//! Attempts begin, and those that were under way when this scheduler came to lead are looked for.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use orion_proto::{Code, Error, JobAttempt, Result, journal::Submitted};

use super::Writer;
use crate::jobs::{
    ask::{Task, Told},
    decide::Attempt,
    large::Needed,
    round::Round,
    snapshot::{SPECS_AT_ONCE, submissions},
    table::{Phase, Unfinished},
    terms::Millis,
};

impl Writer {
    /// Tells the runner of what was under way when another led.
    pub(super) fn resume(&self, now: Millis) -> Result<()> {
        let ran: Vec<_> = self.table.unfinished().filter(|job| job.phase == Phase::Running).collect();
        for some in ran.chunks(SPECS_AT_ONCE) {
            let ids: Vec<u64> = some.iter().map(|job| job.id).collect();
            let mut submitted = submissions(&*self.journal, &ids)?;
            for job in some {
                let task = submitted.remove(&job.id).and_then(|submitted| task(submitted, job, now));
                let attempt = Attempt { job: job.id, attempt: job.attempt, epoch: self.epoch };
                let told = Told::Resume(attempt, Box::new(task.ok_or_else(|| no_spec(job.id))?));
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
            let mut submitted = match self.submissions(round, &ids) {
                Ok(submitted) => submitted,
                Err(error) => return self.breaks(error),
            };
            for attempt in some {
                let job = self.table.get(attempt.job);
                let task = submitted.remove(&attempt.job).zip(job).and_then(|(found, job)| task(found, job, round.now));
                let Some(task) = task else { return self.breaks(no_spec(attempt.job)) };
                round.told.push(Told::Begin(*attempt, Box::new(task)));
            }
        }
    }

    /// Jobs as they were submitted, which may have been in this round.
    pub(super) fn submissions(&self, round: &Round, ids: &[u64]) -> Result<HashMap<u64, Submitted>> {
        let mut found: HashMap<u64, Submitted> =
            ids.iter().filter_map(|id| Some((*id, round.submission(*id)?))).collect();
        let others: Vec<u64> = ids.iter().filter(|id| !found.contains_key(id)).copied().collect();
        if !others.is_empty() {
            found.extend(submissions(&*self.journal, &others)?);
        }
        Ok(found)
    }
}

/// What an attempt of a job has to do.
fn task(submitted: Submitted, job: &Unfinished, now: Millis) -> Option<Task> {
    let needs = Needed::of(&submitted);
    Some(Task { spec: submitted.spec?, needs, left: left(job, now) })
}

pub(super) fn no_spec(id: u64) -> Error {
    Error::new(Code::Internal, format!("the journal is damaged: job {id} has no spec"))
}

/// How long a job may still take.
fn left(job: &Unfinished, now: Millis) -> Option<Duration> {
    job.terms.deadline.map(|deadline| Duration::from_millis(deadline.saturating_sub(now)))
}
