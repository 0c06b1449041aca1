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
    session::{LoadModel, Measurement, ModelReport, model_report::State, to_scheduler},
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
}

struct Resident {
    path: String,
    /// The load's number: tells one that was given up from the one that followed it.
    load: u64,
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

    /// Loads a model on a thread of its own; once, however often it is asked for.
    pub(crate) fn load(&self, worker: &Arc<Worker>, request: LoadModel) {
        let LoadModel { name, path } = request;
        let there = |resident: &&Resident| resident.path == path && resident.report.state() != State::Failed;
        let known = self.models.lock().get(&name).filter(there).map(|resident| resident.report.clone());
        if let Some(report) = known {
            return worker.tell(to_scheduler::Message::Model(report));
        }
        let load = self.loads.fetch_add(1, Ordering::Relaxed);
        let report = self.report(&name, State::Loading);
        self.models.lock().insert(name.clone(), Resident { path: path.clone(), load, report });
        let (owner, thread_name) = (worker.clone(), name.clone());
        let spawned = std::thread::Builder::new().name("orion-load".into()).spawn(move || {
            let result = owner.residency().open(&owner, &name, &path, load);
            if let Err(error) = result {
                owner.residency().failed(&owner, &name, load, &error);
            }
        });
        if let Err(error) = spawned {
            let error = Error::new(Code::Unavailable, format!("cannot start a loading thread: {error}"));
            self.failed(worker, &thread_name, load, &error);
        }
    }

    fn open(&self, worker: &Arc<Worker>, name: &str, path: &str, load: u64) -> Result<()> {
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
                        residency.executor.remove(served);
                    }
                }
            }
        };
        self.executor.install(name.to_owned(), model, Box::new(warmed_up));
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

    pub(crate) fn unload(&self, worker: &Worker, name: &str) {
        if name == orion_models::IDENTITY || self.models.lock().remove(name).is_none() {
            return;
        }
        self.executor.remove(name.to_owned());
        worker.tell(to_scheduler::Message::Model(self.report(name, State::Unloaded)));
    }

    fn failed(&self, worker: &Worker, name: &str, load: u64, error: &Error) {
        tracing::warn!(model = name, %error, "model_load_failed");
        let mut reason = error.message.clone();
        reason.truncate((0..=REASON_BYTES).rev().find(|at| reason.is_char_boundary(*at)).unwrap_or(0));
        let report = ModelReport { error: reason, ..self.report(name, State::Failed) };
        self.update(worker, name, load, report);
    }

    /// Puts a report in place and sends it, unless this load was given up. Says whether it was sent.
    fn update(&self, worker: &Worker, name: &str, load: u64, report: ModelReport) -> bool {
        let mut models = self.models.lock();
        let Some(resident) = models.get_mut(name).filter(|resident| resident.load == load) else { return false };
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
