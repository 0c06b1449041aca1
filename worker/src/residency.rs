//! Which models this worker holds, loads or failed to load.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use orion_models::Manifest;
use orion_net::{Batch, SchedulerLink};
use orion_proto::{
    Code, Error, ModelName, ModelSpec, Result, ServiceCurve,
    session::{LoadModel, Measurement, ModelReport, UnloadModel, model_report::State, to_scheduler},
};
use parking_lot::Mutex;

use crate::{executor::Executor, worker::Worker};

/// Bytes of a reason: control messages are small.
const REASON_BYTES: usize = 1024;
/// Seconds that `identity` takes: a few hundred nanoseconds, whatever the rows, since it hands its input back.
const IDENTITY_SECONDS: f64 = 1e-6;

/// The models of one device.
pub(crate) struct Residency {
    executor: Executor,
    models: Mutex<HashMap<String, Resident>>,
    measured: Mutex<Measurement>,
    loads: AtomicU64,
    /// By model: the newest wish of a scheduler. Its names are the scheduler's, so they are few.
    orders: Mutex<HashMap<String, u64>>,
    turn: Mutex<()>,
}

struct Resident {
    path: String,
    /// This worker's number of the load: tells one that was given up from the one that followed it.
    load: u64,
    /// As it was last told; its order is the scheduler's number of the wish that it answers.
    report: ModelReport,
}

impl Residency {
    pub(crate) fn new(executor: Executor) -> Self {
        let spec = orion_models::identity_spec();
        let curve = ServiceCurve { base_seconds: IDENTITY_SECONDS, per_row_seconds: 0.0 };
        let report = ready(executor.device, &spec, curve);
        let identity = Resident { path: String::new(), load: 0, report };
        Self {
            executor,
            models: Mutex::new(HashMap::from([(orion_models::IDENTITY.to_owned(), identity)])),
            measured: Mutex::default(),
            loads: AtomicU64::new(1),
            orders: Mutex::default(),
            turn: Mutex::default(),
        }
    }

    /// Figures of this machine from which curves are seeded.
    pub(crate) fn believe(&self, figures: Measurement) {
        *self.measured.lock() = figures;
    }

    /// Tells a scheduler of every model.
    pub(crate) fn report_all(&self, link: &dyn SchedulerLink) {
        // Not under the lock: in one process the scheduler may answer with a call back.
        let reports: Vec<ModelReport> = self.models.lock().values().map(|resident| resident.report.clone()).collect();
        for report in reports {
            link.control(to_scheduler::Message::Model(report));
        }
    }

    pub(crate) fn run(&self, worker: &Arc<Worker>, batch: Batch) {
        self.executor.run(worker, batch);
    }

    /// Loads a model on a thread of its own; once, however often it is asked for. What is older than the newest wish for
    /// that model is ignored: messages of two threads may come out of turn.
    pub(crate) fn load(&self, worker: &Arc<Worker>, request: LoadModel) {
        let LoadModel { name, path, order, .. } = request;
        let load = self.loads.fetch_add(1, Ordering::Relaxed);
        let known = {
            let mut models = self.models.lock();
            if !self.newest(&name, order) {
                return;
            }
            match models.get_mut(&name) {
                Some(resident) if resident.path == path && resident.report.state() != State::Failed => {
                    resident.report.order = order;
                    Some(resident.report.clone())
                }
                _ => {
                    let mut report = self.report(&name, State::Loading);
                    report.order = order;
                    models.insert(name.clone(), Resident { path: path.clone(), load, report });
                    None
                }
            }
        };
        if let Some(report) = known {
            return worker.tell(to_scheduler::Message::Model(report));
        }
        let (owner, served) = (worker.clone(), name.clone());
        let spawned = std::thread::Builder::new().name("orion-load".into()).spawn(move || {
            let result = owner.residency().open(&owner, &served, &path, load);
            if let Err(error) = result {
                owner.residency().failed(&owner, &served, load, &error);
            }
        });
        if let Err(error) = spawned {
            let error = Error::new(Code::Unavailable, format!("cannot start a loading thread: {error}"));
            self.failed(worker, &name, load, &error);
        }
    }

    /// Remembers the newest wish for a model; says whether this one is it.
    fn newest(&self, name: &str, order: u64) -> bool {
        let mut orders = self.orders.lock();
        let newest = orders.entry(name.to_owned()).or_default();
        let is_newest = order > *newest;
        *newest = order.max(*newest);
        is_newest
    }

    fn open(&self, worker: &Arc<Worker>, name: &str, path: &str, load: u64) -> Result<()> {
        // One at a time: two loads that each see the same free memory would together take more than there is.
        let _turn = self.turn.lock();
        // Given up while it waited: the next in line must not wait for it.
        if self.models.lock().get(name).is_none_or(|resident| resident.load != load) {
            return Ok(());
        }
        let manifest = orion_models::inspect(&ModelName::new(name)?, &PathBuf::from(path))?;
        let free = worker.telemetry().memory_free_bytes;
        let needed = manifest.spec.memory_bytes;
        if needed > free {
            let text = format!("model '{name}' needs {needed} bytes of memory, {free} are free");
            return Err(Error::new(Code::ResourceExhausted, text));
        }
        let seed = self.seed(&manifest);
        let mut loading = self.report(name, State::Loading);
        (loading.spec, loading.curve) = (Some((&manifest.spec).into()), Some(seed.into()));
        self.update(worker, name, load, loading.clone());
        let progress = |share: f32| {
            let report = ModelReport { progress: share, ..loading.clone() };
            self.update(worker, name, load, report);
        };
        let model = orion_models::load(&manifest, &progress)?;
        let (owner, spec, served) = (worker.clone(), manifest.spec, name.to_owned());
        let warmed_up = move |curve: Result<ServiceCurve>| {
            let residency = owner.residency();
            match curve {
                Err(error) => residency.failed(&owner, &served, load, &error),
                Ok(curve) => {
                    let report = ready(residency.executor.device, &spec, curve);
                    // Unloaded meanwhile: what was just put on the device leaves it again.
                    if !residency.update(&owner, &served, load, report) {
                        residency.executor.remove(served, load);
                    }
                }
            }
        };
        self.executor.install(name.to_owned(), load, model, Box::new(warmed_up));
        Ok(())
    }

    /// Predicted seconds before the first batch: the weights are read once, the arithmetic done at the measured rate.
    fn seed(&self, manifest: &Manifest) -> ServiceCurve {
        let figures = *self.measured.lock();
        let per = |amount: f64, rate: f64| if rate > 0.0 { amount / rate } else { 0.0 };
        ServiceCurve {
            base_seconds: per(manifest.weight_bytes as f64, figures.memory_bytes_per_second),
            per_row_seconds: per(manifest.flops_per_row, figures.f32_flops),
        }
    }

    pub(crate) fn unload(&self, worker: &Worker, request: UnloadModel) {
        let UnloadModel { name, order, .. } = request;
        if name == orion_models::IDENTITY {
            return;
        }
        let resident = {
            let mut models = self.models.lock();
            if !self.newest(&name, order) {
                return;
            }
            models.remove(&name)
        };
        let Some(resident) = resident else { return };
        self.executor.remove(name.clone(), resident.load);
        let mut report = self.report(&name, State::Unloaded);
        report.order = resident.report.order;
        worker.tell(to_scheduler::Message::Model(report));
    }

    fn failed(&self, worker: &Worker, name: &str, load: u64, error: &Error) {
        tracing::warn!(model = name, %error, "model_load_failed");
        let mut reason = error.message.clone();
        reason.truncate((0..=REASON_BYTES).rev().find(|at| reason.is_char_boundary(*at)).unwrap_or(0));
        let report = ModelReport { error: reason, ..self.report(name, State::Failed) };
        self.update(worker, name, load, report);
    }

    /// Puts a report in place and sends it, unless this load was given up. Says whether it was sent.
    fn update(&self, worker: &Worker, name: &str, load: u64, mut report: ModelReport) -> bool {
        let mut models = self.models.lock();
        let Some(resident) = models.get_mut(name).filter(|resident| resident.load == load) else { return false };
        report.order = resident.report.order;
        resident.report = report.clone();
        drop(models);
        worker.tell(to_scheduler::Message::Model(report));
        true
    }

    fn report(&self, name: &str, state: State) -> ModelReport {
        let mut report = ModelReport { name: name.into(), device: self.executor.device.into(), ..Default::default() };
        report.set_state(state);
        report
    }
}

fn ready(device: &str, spec: &ModelSpec, curve: ServiceCurve) -> ModelReport {
    let mut report = ModelReport {
        name: spec.name.to_string(),
        device: device.into(),
        spec: Some(spec.into()),
        curve: Some(curve.into()),
        progress: 1.0,
        ..Default::default()
    };
    report.set_state(State::Ready);
    report
}
