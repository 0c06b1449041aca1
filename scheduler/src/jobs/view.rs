//! Jobs as clients see them: what is on disk, and nothing that is not yet.

mod running;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use orion_proto::{
    Code, Error, Result,
    jobs::{Job, JobResult, JobSpec, ListJobsRequest, ListJobsResponse, Row, TrainingCourse, job_spec::Work},
};
use parking_lot::{Mutex, RwLock};
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, broadcast};

use super::{
    large::{self, Needed},
    parquet::Places,
    shown::{KINDS, kind},
    snapshot::{specs, submission},
    table::{Change, Phase, Unfinished},
};
use crate::journal::Journal;

/// Jobs of one answer, where nothing is said and at most.
const PAGE: usize = 100;
const MOST_PAGE: usize = 1000;
/// Jobs that are looked at for one answer.
const LOOKED_AT: usize = 20_000;
/// Jobs that are read from the journal together: each may have some MiB.
const TOGETHER: usize = 32;
/// Bytes of an answer, but for its last job.
const PAGE_BYTES: usize = 4 << 20;
/// Changes that a slow watcher may be behind; one that is further behind looks anew.
const BEHIND: usize = 1024;

/// The states of a job, and no state.
const STATES: [&str; 7] = ["", "waiting", "queued", "running", "succeeded", "failed", "cancelled"];

/// The jobs of a journal.
pub struct View {
    journal: Arc<dyn Journal>,
    open: RwLock<BTreeMap<u64, Arc<Unfinished>>>,
    told: broadcast::Sender<Changed>,
    ended: OnceLock<Error>,
    places: Places,
    /// What running jobs wait for.
    waits: Mutex<HashMap<u64, String>>,
    /// How trainings go.
    trains: Mutex<HashMap<u64, TrainingCourse>>,
}

/// What is said to watchers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// The job of this number.
    Job(u64),
    /// Nothing will change any more: [`View::ended`] says why.
    Ended,
}

impl View {
    pub(super) fn new(journal: Arc<dyn Journal>) -> Self {
        let told = broadcast::Sender::new(BEHIND);
        Self {
            journal,
            open: RwLock::default(),
            told,
            ended: OnceLock::new(),
            places: Places::default(),
            waits: Mutex::default(),
            trains: Mutex::default(),
        }
    }

    /// What limits how many files of Parquet are read.
    pub(super) fn places(&self) -> &Places {
        &self.places
    }

    /// A place among the files of Parquet that jobs read.
    pub(super) async fn place(&self, job: u64) -> Option<OwnedSemaphorePermit> {
        let places = &self.places.of_jobs;
        if let Ok(place) = places.clone().try_acquire_owned() {
            return Some(place);
        }
        self.waits(job, Some("waits until fewer files of Parquet are read".into()));
        let place = places.clone().acquire_owned().await.ok();
        self.waits(job, None);
        place
    }

    /// A job is open, and so.
    pub(super) fn opened(&self, job: Arc<Unfinished>) {
        let id = job.id;
        self.open.write().insert(id, job);
        self.tell(id);
    }

    /// A job is not open any more.
    pub(super) fn closed(&self, id: u64) {
        self.open.write().remove(&id);
        self.tell(id);
    }

    /// What a record did.
    pub(super) fn changed(&self, change: Change) {
        match change {
            Change::Open(job) => self.opened(job),
            Change::Ended(job, _) => self.closed(job.id),
            Change::Forgotten(_) => {}
        }
    }

    fn tell(&self, id: u64) {
        // Nobody may watch.
        let _ = self.told.send(Changed::Job(id));
    }

    /// Nothing changes any more.
    pub(super) fn ends(&self, why: Error) {
        // The first reason is the one.
        let _ = self.ended.set(why);
        let _ = self.told.send(Changed::Ended);
    }

    /// Why nothing changes any more, where that is so.
    pub fn ended(&self) -> Option<Error> {
        self.ended.get().cloned()
    }

    /// Which jobs change from now on.
    pub fn changes(&self) -> broadcast::Receiver<Changed> {
        self.told.subscribe()
    }

    /// A job as it is.
    ///
    /// # Errors
    /// NOT_FOUND; INTERNAL where the journal cannot be read.
    pub fn get(&self, id: u64) -> Result<Job> {
        self.find(id)?
            .ok_or_else(|| Error::new(Code::NotFound, format!("there is no job {id}; it may have been forgotten")))
    }

    /// The same with its inputs where they are a content.
    ///
    /// # Errors
    /// As of [`View::get`].
    pub fn get_whole(&self, id: u64) -> Result<Job> {
        let mut job = self.get(id)?;
        let needs = submission(&*self.journal, id)?.as_ref().and_then(Needed::of);
        if let Some(needs) = needs
            && let Some(spec) = job.spec.take()
        {
            job.spec = Some(needs.complete(&*self.journal, spec)?);
        }
        Ok(job)
    }

    fn find(&self, id: u64) -> Result<Option<Job>> {
        Ok(self.find_all(&[id])?.pop())
    }

    /// Those of these jobs that there are, in their order.
    pub(super) fn find_all(&self, ids: &[u64]) -> Result<Vec<Job>> {
        let mut found: HashMap<u64, Job> = {
            let open = self.open.read();
            ids.iter().filter_map(|id| open.get(id)).map(|job| (job.id, shown(job))).collect()
        };
        let waits = self.waits.lock();
        for (id, job) in found.iter_mut().filter(|(_, job)| job.state == "running") {
            job.reason = waits.get(id).cloned().unwrap_or_default();
        }
        drop(waits);
        let trains = self.trains.lock();
        for (id, job) in &mut found {
            job.training = trains.get(id).cloned();
        }
        drop(trains);
        let others: Vec<u64> = ids.iter().filter(|id| !found.contains_key(id)).copied().collect();
        if !others.is_empty() {
            found.extend(self.journal.ended_of(&others)?.into_iter().map(|job| (job.id, job)));
        }
        let mut specs = specs(&*self.journal, ids)?;
        // One may have been forgotten between the two.
        let job = |id: &u64| Some(Job { spec: Some(specs.remove(id)?), ..found.remove(id)? });
        Ok(ids.iter().filter_map(job).collect())
    }

    /// What a job that succeeded has to show.
    ///
    /// # Errors
    /// NOT_FOUND; FAILED_PRECONDITION where it did not succeed, or not yet.
    pub fn result(&self, id: u64) -> Result<JobResult> {
        if let Some(row) = self.journal.result(id)? {
            return large::result(&*self.journal, id, row);
        }
        let job = self.get(id)?;
        let why = if job.reason.is_empty() { String::new() } else { format!(": {}", job.reason) };
        Err(Error::new(Code::FailedPrecondition, format!("job {id} has no result, it is {}{why}", job.state)))
    }

    /// A job that has not ended.
    pub(super) fn unfinished(&self, id: u64) -> Option<Arc<Unfinished>> {
        self.open.read().get(&id).cloned()
    }

    /// Where the jobs are kept.
    pub(super) fn journal(&self) -> &Arc<dyn Journal> {
        &self.journal
    }

    /// A page of jobs, the newest first.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for an unknown state; INTERNAL where the journal cannot be read.
    pub fn list(&self, asked: &ListJobsRequest) -> Result<ListJobsResponse> {
        known_state(&asked.state)?;
        if !KINDS.contains(&asked.kind.as_str()) {
            let shown = asked.kind.escape_default();
            return Err(Error::invalid(format!("kind '{shown}' must be inference, call, file or training")));
        }
        let term = match (asked.state.as_str(), asked.labels.iter().next()) {
            _ if asked.of_job > 0 => row_term(asked.of_job),
            (_, Some((name, value))) if !is_open(&asked.state) => label_term(name, value),
            (state, _) if asked.kind == "file" && !is_open(state) => FILES.to_owned(),
            ("", None) => ALL.to_owned(),
            (state, _) if is_open(state) => return self.list_open(asked),
            _ => state_term(&asked.state),
        };
        let most = page(asked);
        let mut before = if asked.before == 0 { u64::MAX } else { asked.before };
        let (mut answer, mut bytes) = (ListJobsResponse::default(), 0);
        for _ in 0..LOOKED_AT.div_ceil(most) {
            let ids = self.journal.found(&term, before, most)?;
            let is_last = ids.len() < most;
            for some in ids.chunks(TOGETHER) {
                for job in self.find_all(some)? {
                    if answer.jobs.len() == most || bytes > PAGE_BYTES {
                        answer.before = before;
                        return Ok(answer);
                    }
                    before = job.id;
                    if fits(&job, asked) {
                        bytes += job.encoded_len();
                        answer.jobs.push(job);
                    }
                }
                before = some.last().copied().unwrap_or(before);
            }
            if is_last {
                return Ok(answer);
            }
        }
        answer.before = before;
        Ok(answer)
    }

    fn list_open(&self, asked: &ListJobsRequest) -> Result<ListJobsResponse> {
        let most = page(asked);
        let before = if asked.before == 0 { u64::MAX } else { asked.before };
        let open: Vec<_> = {
            let open = self.open.read();
            let found = open.range(..before).rev().filter(|(_, job)| phase(job) == asked.state && job.row.is_none());
            found.take(LOOKED_AT).map(|(id, _)| *id).collect()
        };
        let mut answer = ListJobsResponse::default();
        let was_cut = open.len() == LOOKED_AT;
        let mut bytes = 0;
        for job in open.chunks(TOGETHER).map(|some| self.find_all(some)) {
            for job in job? {
                let id = job.id;
                if fits(&job, asked) {
                    bytes += job.encoded_len();
                    answer.jobs.push(job);
                }
                if answer.jobs.len() == most || bytes > PAGE_BYTES {
                    answer.before = id;
                    return Ok(answer);
                }
            }
        }
        answer.before = open.last().filter(|_| was_cut).copied().unwrap_or(0);
        Ok(answer)
    }
}

fn is_open(state: &str) -> bool {
    matches!(state, "waiting" | "queued" | "running")
}

/// Checks a state's name.
fn known_state(state: &str) -> Result<()> {
    if STATES.contains(&state) {
        return Ok(());
    }
    Err(Error::invalid(format!("state '{state}' must be waiting, queued, running, succeeded, failed or cancelled")))
}

fn page(asked: &ListJobsRequest) -> usize {
    match asked.limit as usize {
        0 => PAGE,
        limit => limit.min(MOST_PAGE),
    }
}

fn fits(job: &Job, asked: &ListJobsRequest) -> bool {
    let labels = job.spec.as_ref().map(|spec| &spec.labels);
    let has = |(name, value): (&String, &String)| labels.is_some_and(|labels| labels.get(name) == Some(value));
    let is_kind = asked.kind.is_empty() || asked.kind == kind(job.spec.as_ref());
    is_kind && (asked.state.is_empty() || job.state == asked.state) && asked.labels.iter().all(has)
}

/// The term of jobs that are files.
const FILES: &str = "k:file";
/// The term of every job.
pub(super) const ALL: &str = "";

/// The terms by which a job is found from its submission on; a line of a file is found by that alone.
pub(super) fn terms(spec: &JobSpec, row: Option<&Row>) -> Vec<String> {
    if let Some(row) = row {
        return vec![row_term(row.job)];
    }
    let labels = spec.labels.iter().map(|(name, value)| label_term(name, value));
    let is_file = matches!(spec.work, Some(Work::File(_)));
    labels.chain([ALL.to_owned()]).chain(is_file.then(|| FILES.to_owned())).collect()
}

/// The term of jobs that ended so.
pub(super) fn state_term(state: &str) -> String {
    format!("s:{state}")
}

/// The term of the lines of this job's file.
pub(super) fn row_term(job: u64) -> String {
    format!("r:{job}")
}

fn label_term(name: &str, value: &str) -> String {
    format!("l:{name}={value}")
}

fn phase(job: &Unfinished) -> &'static str {
    match job.phase {
        Phase::Waiting => "waiting",
        Phase::Queued(_) => "queued",
        Phase::Running => "running",
    }
}

/// A job that has not ended, without its specification.
fn shown(job: &Unfinished) -> Job {
    let reason = match job.phase {
        Phase::Waiting => {
            let others: Vec<String> = job.waits_for.iter().map(u64::to_string).collect();
            format!("waits for job {}", others.join(", "))
        }
        Phase::Queued(_) => job.failed.last().map(|failed| format!("after {}", failed.code)).unwrap_or_default(),
        Phase::Running => String::new(),
    };
    Job {
        id: job.id,
        spec: None,
        state: phase(job).into(),
        submitted_unix_ms: job.submitted,
        begun_unix_ms: job.begun,
        ended_unix_ms: 0,
        failed: job.failed.clone(),
        attempt: job.attempt,
        reason,
        row: job.row.clone(),
        progress: job.progress,
        result_address: Bytes::new(),
        training: None,
    }
}
