//! One worker: what it holds, what it runs, and to whom it answers.

use std::{
    collections::{HashMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use orion_models::ModelRequest;
use orion_net::{Attempt, AttemptResult, Batch, BatchResult, SchedulerLink, WorkerLink};
use orion_proto::{
    Code, Error, InferAnswer, PROTOCOL_MAJOR, PROTOCOL_MINOR, Result,
    session::{Capability, Hello, Measurement, Telemetry, to_scheduler, to_worker},
};
use parking_lot::Mutex;

use crate::{executor::Executor, inventory::Inventory, residency::Residency};

/// Results that are kept for a scheduler that cannot be reached; beyond, the oldest are dropped and tried again there.
/// Their numbers travel in the hello, which is a control message.
const UNDELIVERED: usize = 128;
/// Cancels that are remembered for batches that have not come.
const EARLY_CANCELS: usize = 256;

/// What a worker is told at its start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its name, unique among the scheduler's workers.
    pub name: String,
    /// Where it keeps what it measured.
    pub data_dir: PathBuf,
    /// Where other workers may reach it; advertised, not opened.
    pub peer_address: String,
}

/// A worker of this machine.
pub struct Worker {
    options: Options,
    incarnation: u64,
    inventory: Inventory,
    capability: Capability,
    held: Mutex<Held>,
    busy: Arc<AtomicUsize>,
    residency: Residency,
    measurement: Mutex<Option<Measurement>>,
}

/// The session, and the batches that the scheduler counts on. One lock: a result either goes out on the session that the
/// scheduler believes in, or is among those that the next hello names.
#[derive(Default)]
struct Held {
    link: Option<Arc<dyn SchedulerLink>>,
    /// By batch: its attempts that nobody waits for any more.
    running: HashMap<u64, Vec<u64>>,
    undelivered: VecDeque<BatchResult>,
    /// Cancels that came before their batch, the newest last: batch and attempt. They travel on another connection.
    early_cancels: VecDeque<(u64, u64)>,
}

impl Worker {
    /// Starts the executors and reads the inventory.
    ///
    /// # Errors
    /// INTERNAL when the system gives no thread.
    pub fn start(options: Options) -> Result<Arc<Self>> {
        let inventory = Inventory::open();
        let capability = inventory.capability();
        let busy = Arc::new(AtomicUsize::new(0));
        let cores = capability.logical_cores.max(1) as usize;
        let executor = Executor::start("cpu0", cores, busy.clone())?;
        Ok(Arc::new(Self {
            residency: Residency::new(executor),
            incarnation: std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id()),
            options,
            inventory,
            capability,
            held: Mutex::default(),
            busy,
            measurement: Mutex::new(None),
        }))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// What it was told at its start.
    pub fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) fn residency(&self) -> &Residency {
        &self.residency
    }

    /// What this machine is.
    pub fn capability(&self) -> &Capability {
        &self.capability
    }

    /// Whether a device computes at this moment.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed) > 0
    }

    /// Whether it holds neither a batch nor a result that is not delivered.
    pub fn is_idle(&self) -> bool {
        let held = self.held.lock();
        held.running.is_empty() && held.undelivered.is_empty()
    }

    /// What it says first to a scheduler.
    pub fn hello(&self) -> Hello {
        let held = self.held.lock();
        let undelivered = held.undelivered.iter().map(|result| result.batch);
        Hello {
            protocol_major: PROTOCOL_MAJOR,
            protocol_minor: PROTOCOL_MINOR,
            name: self.options.name.clone(),
            incarnation: self.incarnation,
            capability: Some(self.capability.clone()),
            peer_address: self.options.peer_address.clone(),
            holding: held.running.keys().copied().chain(undelivered).collect(),
        }
    }

    /// From now on it answers to this scheduler: reports what it has, delivers what it could not.
    pub fn attach(&self, link: Arc<dyn SchedulerLink>) {
        let undelivered = {
            let mut held = self.held.lock();
            held.link = Some(link.clone());
            std::mem::take(&mut held.undelivered)
        };
        self.residency.report_all(&*link);
        let measured = *self.measurement.lock();
        if let Some(figures) = measured {
            link.control(to_scheduler::Message::Measurement(figures));
        }
        undelivered.into_iter().for_each(|result| link.result(result));
    }

    /// The scheduler cannot be reached: results wait.
    pub fn detach(&self) {
        self.held.lock().link = None;
    }

    pub(crate) fn tell(&self, message: to_scheduler::Message) {
        let link = self.held.lock().link.clone();
        if let Some(link) = link {
            link.control(message);
        }
    }

    /// How it is now; round trips are the session's to fill in.
    pub fn telemetry(&self) -> Telemetry {
        self.inventory.telemetry()
    }

    /// Tells the scheduler what was measured, now and in every later session. A figure of 0 leaves the known one.
    pub fn publish(&self, figures: Measurement) {
        let merged = {
            let mut known = self.measurement.lock();
            let old = known.unwrap_or_default();
            let newer = |new: f64, old: f64| if new > 0.0 { new } else { old };
            *known.insert(Measurement {
                f32_flops: newer(figures.f32_flops, old.f32_flops),
                bf16_flops: newer(figures.bf16_flops, old.bf16_flops),
                memory_bytes_per_second: newer(figures.memory_bytes_per_second, old.memory_bytes_per_second),
                disk_read_bytes_per_second: newer(figures.disk_read_bytes_per_second, old.disk_read_bytes_per_second),
                scheduler_round_trip_seconds: newer(
                    figures.scheduler_round_trip_seconds,
                    old.scheduler_round_trip_seconds,
                ),
                scheduler_bytes_per_second: newer(figures.scheduler_bytes_per_second, old.scheduler_bytes_per_second),
                cached: figures.cached || old.cached,
            })
        };
        self.residency.believe(merged);
        self.tell(to_scheduler::Message::Measurement(merged));
    }

    pub(crate) fn deliver(&self, result: BatchResult) {
        let link = {
            let mut held = self.held.lock();
            held.running.remove(&result.batch);
            match held.link.clone() {
                Some(link) => link,
                None => {
                    if held.undelivered.len() == UNDELIVERED {
                        held.undelivered.pop_front();
                    }
                    return held.undelivered.push_back(result);
                }
            }
        };
        link.result(result);
    }

    /// A batch has come; cancels that came before it are applied.
    fn take(&self, batch: u64) {
        let mut held = self.held.lock();
        let early = held.early_cancels.iter().filter(|(of, _)| *of == batch).map(|(_, attempt)| *attempt).collect();
        held.early_cancels.retain(|(of, _)| *of != batch);
        held.running.insert(batch, early);
    }

    fn cancel(&self, batch: u64, attempts: Vec<u64>) {
        let mut held = self.held.lock();
        if let Some(cancelled) = held.running.get_mut(&batch) {
            return cancelled.extend(attempts);
        }
        for attempt in attempts {
            if held.early_cancels.len() == EARLY_CANCELS {
                held.early_cancels.pop_front();
            }
            held.early_cancels.push_back((batch, attempt));
        }
    }

    /// Whether nobody waits for this attempt any more.
    pub(crate) fn is_cancelled(&self, batch: u64, attempt: u64) -> bool {
        self.held.lock().running.get(&batch).is_some_and(|cancelled| cancelled.contains(&attempt))
    }

    /// Runs a batch of an inline model where it arrived.
    fn run_inline(&self, batch: Batch) {
        let started = Instant::now();
        let requests = batch.attempts.iter().map(model_request).collect();
        let outcomes = catch_unwind(AssertUnwindSafe(|| orion_models::run_identity(requests)));
        // Without outcomes each attempt is answered INTERNAL.
        let outcomes = outcomes.unwrap_or_default();
        self.deliver(batch_result(&batch, outcomes, started));
    }
}

pub(crate) fn model_request(attempt: &Attempt) -> ModelRequest {
    let request = &attempt.request;
    ModelRequest { inputs: request.inputs.clone(), truncate: request.parameters.truncate }
}

pub(crate) fn batch_result(batch: &Batch, outcomes: Vec<Result<InferAnswer>>, started: Instant) -> BatchResult {
    let service_seconds = started.elapsed().as_secs_f64();
    let rows_of = |attempt: &Attempt| attempt.request.inputs.first().map_or(1, |tensor| tensor.rows()) as u64;
    let rows = batch.attempts.iter().map(rows_of).fold(0, u64::saturating_add);
    let mut outcomes = outcomes.into_iter();
    let missing = || Err(Error::new(Code::Internal, "the model gave no answer to this request"));
    let results = batch.attempts.iter().map(|attempt| AttemptResult {
        attempt: attempt.attempt,
        outcome: outcomes.next().unwrap_or_else(missing),
        not_started: false,
    });
    BatchResult {
        results: results.collect(),
        batch: batch.batch,
        epoch: batch.epoch,
        service_seconds,
        rows,
        waited_seconds: 0.0,
        peak_bytes: 0,
    }
}

/// The in-process carrier's worker end, and what the session agent calls for a remote one.
#[derive(Clone)]
pub struct WorkerHandle(pub Arc<Worker>);

impl WorkerLink for WorkerHandle {
    fn run(&self, batch: Batch) {
        if &*batch.model == orion_models::IDENTITY {
            return self.0.run_inline(batch);
        }
        self.0.take(batch.batch);
        self.0.residency.run(&self.0, batch);
    }

    fn control(&self, message: to_worker::Message) {
        match message {
            to_worker::Message::Load(load) => self.0.residency.load(&self.0, load),
            to_worker::Message::Unload(unload) => self.0.residency.unload(&self.0, unload),
            to_worker::Message::Cancel(cancel) => self.0.cancel(cancel.batch, cancel.attempts),
            // The session's own, handled by its carrier.
            _ => {}
        }
    }

    fn close(&self, _reason: &str) {
        self.0.detach();
    }
}
