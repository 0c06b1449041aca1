//! One worker: what it holds, what it runs, and to whom it answers.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use orion_models::GivenUp;
use orion_net::{AttemptDelta, Batch, BatchResult, CONTROL_BYTES, SchedulerLink, WorkerLink};
use orion_proto::{
    PROTOCOL_MAJOR, PROTOCOL_MINOR, Result,
    session::{Capability, Hello, Measurement, Telemetry, to_scheduler, to_worker},
};
use parking_lot::Mutex;
use prost::Message;

use crate::{
    artifacts::Artifacts,
    device::Device,
    fetched::{self, Fetched},
    held::Held,
    inventory::Inventory,
    outcome::{Done, Outcome, batch_failed, model_request},
    residency::Residency,
    simulate::Simulation,
    training::{self, Trainings},
};

/// Bytes of a message of telemetry, with room for what is written around it and for round trips.
const TELEMETRY_BYTES: usize = CONTROL_BYTES - 256;

/// What a worker is told at its start.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Its name, unique among the scheduler's workers.
    pub name: String,
    /// Where it keeps what it measured.
    pub data_dir: PathBuf,
    /// Where other workers may reach it; advertised, not opened.
    pub peer_address: String,
    /// compute, storage, gateway, sensor or hybrid; empty: compute.
    pub role: String,
    /// Where it stands; empty: nowhere in particular.
    pub zone: String,
    /// What models may ask for.
    pub labels: BTreeMap<String, String>,
    /// Devices that are emulated in place of this machine's own.
    pub simulation: Option<Simulation>,
    /// The folder of what may be trained on here.
    pub datasets: Option<PathBuf>,
    /// The store of this machine's models; none: only models that lie in files.
    pub artifacts: Option<Artifacts>,
}

/// A worker of this machine.
pub struct Worker {
    options: Options,
    incarnation: u64,
    inventory: Inventory,
    capability: Capability,
    held: Mutex<Held>,
    /// Of the scheduler that it joined last.
    epoch: AtomicU64,
    fetched: Fetched,
    busy: Arc<AtomicUsize>,
    residency: Residency,
    trainings: Trainings,
    measurement: Mutex<Option<Measurement>>,
}

impl Worker {
    /// Starts the executors and reads the inventory.
    ///
    /// # Errors
    /// INTERNAL when the system gives no thread.
    pub fn start(options: Options) -> Result<Arc<Self>> {
        training::checkpoint::sweep(&options.data_dir);
        let inventory = Inventory::open();
        let mut capability = inventory.capability();
        capability.role = options.role.clone();
        capability.zone = options.zone.clone();
        capability.labels = options.labels.clone().into_iter().collect();
        let busy = Arc::new(AtomicUsize::new(0));
        let devices = match &options.simulation {
            None => Device::of_this_machine(&capability, &busy)?,
            Some(simulation) => {
                capability.devices = simulation.devices.iter().map(|device| device.described()).collect();
                Device::emulated(simulation, &busy)?
            }
        };
        Ok(Arc::new(Self {
            residency: Residency::new(devices)?,
            incarnation: std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id()),
            options,
            inventory,
            capability,
            held: Mutex::default(),
            epoch: AtomicU64::new(0),
            fetched: Fetched::default(),
            busy,
            trainings: Trainings::default(),
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

    pub(crate) fn fetched(&self) -> &Fetched {
        &self.fetched
    }

    /// The session address of the scheduler that it has joined.
    pub fn joins(&self, scheduler: &str) {
        if let Some(artifacts) = &self.options.artifacts {
            artifacts.node.joins(scheduler);
        }
    }

    /// Tells the scheduler of fetched models that are in the store no more.
    pub fn look_at_store(self: &Arc<Self>) {
        Fetched::look(self);
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
        self.held.lock().is_idle()
    }

    /// What it says first to a scheduler.
    pub fn hello(&self) -> Hello {
        let mut capability = self.capability.clone();
        // What was free when it started may be taken by now: a scheduler that was not there then must not give it away.
        let now = self.telemetry();
        for device in &mut capability.devices {
            if let Some(told) = now.devices.iter().find(|told| told.name == device.name) {
                device.memory_free_bytes = told.memory_free_bytes;
            }
        }
        let mut held = self.held.lock();
        let jobs = held.jobs(&capability.devices);
        Hello {
            protocol_major: PROTOCOL_MAJOR,
            protocol_minor: PROTOCOL_MINOR,
            name: self.options.name.clone(),
            incarnation: self.incarnation,
            capability: Some(capability),
            peer_address: self.options.peer_address.clone(),
            relayed: self.options.artifacts.is_some(),
            holding: held.numbers(),
            jobs,
        }
    }

    /// From now on it answers to the scheduler of this epoch: reports what it has, delivers what it could not.
    /// `hello` is what it said to that.
    pub fn attach(&self, link: Arc<dyn SchedulerLink>, epoch: u64, hello: &Hello) {
        if self.epoch.swap(epoch, Ordering::Relaxed) != epoch {
            self.residency.joins_another();
        }
        let undelivered = self.held.lock().attach(link.clone(), epoch, &hello.jobs);
        self.residency.report_all(self);
        self.trainings.tell_all(self);
        let measured = *self.measurement.lock();
        if let Some(figures) = measured {
            link.control(to_scheduler::Message::Measurement(figures));
        }
        undelivered.into_iter().for_each(|result| link.result(result));
    }

    /// The scheduler cannot be reached: results wait. The number of the session that ended.
    pub fn detach(&self) -> u64 {
        self.held.lock().detach()
    }

    /// No scheduler was reached since that session, for as long as what it gave out lasts.
    pub(crate) fn lapse(&self, session: u64) {
        if self.held.lock().lapse(session) {
            tracing::warn!("work_given_up");
        }
    }

    pub(crate) fn tell(&self, message: to_scheduler::Message) {
        let link = self.held.lock().link();
        if let Some(link) = link {
            link.control(message);
        }
    }

    /// How it is now; round trips are the session's to fill in.
    pub fn telemetry(&self) -> Telemetry {
        let mut telemetry = self.inventory.telemetry();
        let emulated = self.residency.telemetry();
        if !emulated.is_empty() {
            telemetry.devices = emulated;
        }
        for device in &mut telemetry.devices {
            device.generators = self.residency.generators(&device.name);
        }
        if let Some(artifacts) = &self.options.artifacts {
            telemetry.peers = artifacts.links();
        }
        // A message that is too long is not sent, and what is free would not be known either.
        while telemetry.encoded_len() > TELEMETRY_BYTES {
            let fullest = telemetry.devices.iter_mut().max_by_key(|device| device.generators.len());
            if fullest.and_then(|device| device.generators.pop()).is_none() {
                break;
            }
        }
        telemetry
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
        let settled = self.held.lock().settle(result);
        // Not under the lock: in one process the scheduler may answer with a call back.
        if let Some((link, result)) = settled {
            link.result(result);
        }
    }

    /// Generations took a step.
    pub(crate) fn deliver_step(&self, epoch: u64, deltas: Vec<AttemptDelta>) {
        let told = self.held.lock().step(epoch, deltas);
        // Not under the lock: in one process the scheduler may answer with a call back.
        if let Some((link, deltas)) = told {
            link.deltas(epoch, deltas);
        }
    }

    /// A batch's device has it: the marks of its attempts, in order. None if it was answered already.
    pub(crate) fn begin(&self, batch: u64) -> Option<Vec<GivenUp>> {
        self.held.lock().begin(batch)
    }

    fn cancel(&self, batch: u64, attempts: Vec<u64>) {
        let given_up = self.held.lock().cancel(batch, attempts);
        given_up.into_iter().for_each(|result| self.deliver(result));
    }

    /// Runs a batch of an inline model where it arrived.
    fn run_inline(&self, batch: &Batch) {
        let started = Instant::now();
        let requests = batch.attempts.iter().map(|attempt| model_request(attempt, GivenUp::default())).collect();
        let answers = catch_unwind(AssertUnwindSafe(|| orion_models::run_identity(requests)));
        let answers = answers.unwrap_or_else(|_| batch.attempts.iter().map(|_| Err(batch_failed())).collect());
        let outcomes = answers.into_iter().map(Outcome::Ran).collect();
        let service_seconds = started.elapsed().as_secs_f64();
        self.deliver(Done { outcomes, service_seconds, waited_seconds: 0.0, peak_bytes: 0 }.result(batch));
    }
}

/// The in-process carrier's worker end, and what the session agent calls for a remote one.
#[derive(Clone)]
pub struct WorkerHandle(pub Arc<Worker>);

impl WorkerLink for WorkerHandle {
    fn run(&self, batch: Batch) {
        if &*batch.model == orion_models::IDENTITY {
            return self.0.run_inline(&batch);
        }
        let arrived = Instant::now();
        let given_up = self.0.held.lock().take(&batch);
        match given_up {
            Some(result) => self.0.deliver(result),
            None => self.0.residency.run(&self.0, batch, arrived),
        }
    }

    fn control(&self, message: to_worker::Message) {
        match message {
            to_worker::Message::Load(load) => self.0.residency.load(&self.0, load),
            to_worker::Message::Unload(unload) => self.0.residency.unload(&self.0, unload),
            to_worker::Message::Inspect(inspect) => self.0.residency.inspect(&self.0, inspect),
            to_worker::Message::Pull(pull) => fetched::pull(&self.0, pull),
            to_worker::Message::Relayed(relayed) => {
                if let Some(artifacts) = &self.0.options.artifacts {
                    artifacts.serve_relayed(relayed.ticket);
                }
            }
            to_worker::Message::Training(order) => self.0.trainings.order(&self.0, order),
            to_worker::Message::Cancel(cancel) => self.0.cancel(cancel.batch, cancel.attempts),
            // The session's own, handled by its carrier.
            _ => {}
        }
    }

    fn close(&self, _reason: &str) {
        self.0.detach();
    }
}
