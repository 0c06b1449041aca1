//! Jobs: work that is on disk before it is acknowledged, and run until it has ended.
//!
//! [`table`] is the fold over the journal's records, `decide` what may be done to it, `writer` the one thread that does it,
//! `runner` what runs jobs, [`view`] what clients see.

pub(crate) mod answers;
mod ask;
pub(crate) mod calls;
mod clock;
pub(crate) mod cluster;
mod decide;
mod expand;
pub(crate) mod files;
mod inputs;
mod large;
mod lines;
pub mod logs;
mod parquet;
mod queue;
mod reader;
mod round;
mod row;
mod rows;
mod runner;
pub mod seat;
pub mod shown;
mod snapshot;
pub mod table;
pub mod terms;
#[cfg(test)]
pub(crate) mod tests;
pub mod verify;
pub mod view;
mod writer;

use std::sync::{Arc, atomic::AtomicUsize};

use orion_proto::{
    Code, Error, Result,
    jobs::{JobSpec, job_spec::Work},
};
use parking_lot::Mutex;
use prost::Message;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    task::JoinHandle,
};

#[cfg(test)]
pub(crate) use self::decide::Attempt;
pub(crate) use self::runner::request_id;
use self::{
    ask::{Ask, Reply},
    clock::Clock,
    inputs::Inputs,
    large::LARGE,
    snapshot::load,
    table::Table,
    view::View,
    writer::Writer,
};
use crate::{
    front::Front,
    journal::{Journal, Staged},
};

/// What may wait for the writer before more is held back.
const ASKED_AHEAD: usize = 8192;
/// KiB of jobs that are on their way to the disk before more is held back.
const ROOM_KIB: usize = 64 << 10;

/// The jobs of this scheduler, cheap to clone.
#[derive(Clone)]
pub struct Jobs {
    asks: mpsc::Sender<Ask>,
    view: Arc<View>,
    /// KiB of jobs that may be on their way to the disk.
    room: Arc<Semaphore>,
    inputs: Inputs,
    /// Files that are read at this moment.
    files: Arc<AtomicUsize>,
    /// Turns true when this scheduler leads no more.
    left: Arc<watch::Sender<bool>>,
    runner: Arc<Mutex<Option<JoinHandle<()>>>>,
    term: u64,
    epoch: u64,
}

impl Jobs {
    /// Opens this scheduler's own journal and begins to run what is in it.
    ///
    /// # Errors
    /// The journal cannot be read, is damaged, or cannot be written.
    pub fn open(journal: Arc<dyn Journal>, front: Front) -> Result<Self> {
        let table = load(&*journal)?;
        let view = Arc::new(View::new(journal.clone()));
        table.unfinished().for_each(|job| view.opened(job.clone()));
        Self::start(journal, front, view, table)
    }

    /// Follows the journal to its end from what is known of it, and begins to run what is in it, on this scheduler.
    ///
    /// # Errors
    /// The journal cannot be read, is damaged, or cannot be written.
    pub(crate) fn start(journal: Arc<dyn Journal>, front: Front, view: Arc<View>, known: Table) -> Result<Self> {
        let (asks, asked) = mpsc::channel(ASKED_AHEAD);
        let (runner, told) = mpsc::unbounded_channel();
        let clock = Clock::default();
        let writer = Writer::new(clock.now(), journal, known, view.clone(), runner, runner::PLACES)?;
        for model in writer.table().models().values() {
            // One that cannot be served any more keeps nobody else from being so.
            if let Err(error) = front.serve(&model.name, &model.path) {
                tracing::error!(model = model.name, %error, "trained_model_not_served");
            }
        }
        let (clock, epoch) = (clock.not_before(writer.last()), writer.epoch());
        // Before any worker joins that has some of it.
        let term = front.expect(writer.table().workers().clone(), writer.under_way());
        let thread = std::thread::Builder::new().name("orion-journal".into());
        thread.spawn(move || writer.run(clock, asked)).map_err(|error| {
            Error::new(Code::Internal, format!("the journal's thread could not be started: {error}"))
        })?;
        let (room, left) = (Arc::new(Semaphore::new(ROOM_KIB)), Arc::new(watch::Sender::new(false)));
        let (inputs, files) = (Inputs::default(), Arc::new(AtomicUsize::new(0)));
        let jobs = Self { asks, view, room, inputs, files, left, epoch, term, runner: Arc::default() };
        let runner = tokio::spawn(runner::run(front, jobs.clone(), term, told));
        *jobs.runner.lock() = Some(runner);
        Ok(jobs)
    }

    /// Takes a job; its number. It is on disk then.
    ///
    /// # Errors
    /// It is wrong in itself, waits for what cannot be waited for, or the journal cannot be written.
    pub async fn submit(&self, spec: JobSpec) -> Result<u64> {
        self.answered(self.submit_ahead(spec).await?).await
    }

    /// The same without waiting for the disk: what comes of it is known when the receiver is.
    ///
    /// # Errors
    /// The writer is gone.
    pub async fn submit_ahead(&self, spec: JobSpec) -> Result<oneshot::Receiver<Result<u64>>> {
        let (reply, answer) = oneshot::channel();
        let (spec, staged) = match self.prepared(spec).await {
            Ok(prepared) => prepared,
            // It is answered like those that the writer refuses; the receiver is there.
            Err(error) => {
                let _ = reply.send(Err(error));
                return Ok(answer);
            }
        };
        let asked = async {
            let room = self.room(spec.encoded_len()).await;
            self.asks.send(Ask::Submit(Box::new(spec), staged, room, reply)).await.map_err(|_| gone())
        };
        self.while_it_leads(asked).await?;
        Ok(answer)
    }

    async fn prepared(&self, mut spec: JobSpec) -> Result<(JobSpec, Option<Staged>)> {
        if let Some(Work::Call(call)) = &mut spec.work {
            calls::complete(call)?;
        }
        terms::check(&spec)?;
        self.inputs_kept(spec).await
    }

    /// The specification as a row has it, and its inputs where they are too large for that.
    async fn inputs_kept(&self, mut spec: JobSpec) -> Result<(JobSpec, Option<Staged>)> {
        if !large::is_large(&spec) {
            return Ok((spec, None));
        }
        let journal = self.view.journal().clone();
        let kept = tokio::task::spawn_blocking(move || {
            let staged = large::taken(&*journal, &mut spec)?;
            large::check_rest(&spec)?;
            Ok((spec, Some(staged)))
        });
        kept.await.map_err(|_| Error::new(Code::Internal, "keeping its inputs failed unexpectedly"))?
    }

    /// What came of what was asked ahead.
    ///
    /// # Errors
    /// As of what was asked; UNAVAILABLE where this scheduler leads no more: whether it was done is not known.
    pub async fn answered<T>(&self, answer: oneshot::Receiver<Result<T>>) -> Result<T> {
        self.while_it_leads(async { answer.await.map_err(|_| gone())? }).await
    }

    /// A journal that cannot be reached keeps nobody waiting for longer than this scheduler leads.
    async fn while_it_leads<T>(&self, done: impl Future<Output = Result<T>>) -> Result<T> {
        let mut left = self.left.subscribe();
        tokio::select! {
            biased;
            done = done => done,
            _ = left.wait_for(|left| *left) => Err(Error::new(
                Code::Unavailable,
                "this scheduler leads no more, and does not know whether it was done: ask again, with the same idempotency key",
            )),
        }
    }

    /// Ends a job that has not ended, and those that wait for it.
    ///
    /// # Errors
    /// NOT_FOUND; FAILED_PRECONDITION where it has ended otherwise.
    pub async fn cancel(&self, id: u64) -> Result<()> {
        self.ask(|reply| Ask::Stop(id, Error::new(Code::Cancelled, "it was cancelled"), reply)).await
    }

    /// Gives a job that failed or was cancelled its attempts anew.
    ///
    /// # Errors
    /// NOT_FOUND; FAILED_PRECONDITION where it succeeded or has not ended.
    pub async fn retry(&self, id: u64) -> Result<()> {
        let room = self.room(LARGE).await;
        self.ask(|reply| Ask::Retry(id, room, reply)).await
    }

    /// Begins no attempt any more: the server stops. What runs may still end.
    pub async fn drain(&self) {
        // A writer that is gone begins nothing either.
        let _ = self.asks.send(Ask::Drain).await;
    }

    /// What workers run goes on, for whoever leads next.
    pub(crate) fn hand_over(&self, front: &Front) {
        front.hand_over(self.term);
    }

    /// Ends for this reason: nothing is accepted any more, and what runs is left to whoever leads next.
    pub(crate) async fn leave(&self, why: Error) {
        self.left.send_replace(true);
        // Whoever leads next, this scheduler too, finds none of its requests.
        let runner = self.runner.lock().take();
        if let Some(runner) = runner {
            // One that panicked has ended.
            let _ = runner.await;
        }
        // A writer that is gone has ended.
        let _ = self.asks.send(Ask::Leave(why)).await;
    }

    /// How many have led before, and this.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What clients see.
    pub fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// Room in memory for so many bytes, at most all there is.
    async fn room(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let kib = bytes.div_ceil(1024).clamp(1, ROOM_KIB);
        self.room.clone().acquire_many_owned(u32::try_from(kib).unwrap_or(u32::MAX)).await.ok()
    }

    async fn ask<T>(&self, ask: impl FnOnce(Reply<T>) -> Ask) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.asks.send(ask(reply)).await.map_err(|_| gone())?;
            answer.await.map_err(|_| gone())?
        };
        self.while_it_leads(asked).await
    }
}

fn gone() -> Error {
    Error::new(Code::Unavailable, "the scheduler is stopping")
}
