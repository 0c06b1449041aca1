//! The models that the scheduler knows, and where they can run.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use orion_proto::{Code, Error, ModelName, ModelSpec, Result, ServiceCurve};

use super::{Command, Core, Nanos, RequestKey, cluster::Worker, curve::Curve};

/// Batch sizes of which a model keeps statistics.
const BATCH_SIZES: usize = 64;

/// A replica's or a model's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub enum ModelState {
    Loading,
    Ready,
    Failed,
    Unloaded,
}

impl ModelState {
    /// As Triton's repository index writes it.
    pub fn triton(self) -> &'static str {
        match self {
            Self::Ready => "READY",
            Self::Loading => "LOADING",
            Self::Failed | Self::Unloaded => "UNAVAILABLE",
        }
    }

    /// As Orion's own tables write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Loading => "loading",
            Self::Failed => "failed",
            Self::Unloaded => "unloaded",
        }
    }
}

/// What a model has done; times in nanoseconds.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)] // Triton's names
pub struct Statistics {
    pub succeeded: u64,
    pub succeeded_ns: u64,
    pub failed: u64,
    pub failed_ns: u64,
    pub queue_ns: u64,
    /// Between scheduler and device: encoding, the network, waiting for the executor.
    pub carriage_ns: u64,
    pub compute_ns: u64,
    pub rows: u64,
    pub batches: u64,
    pub last: Nanos,
    /// By rows in the batch: batches and their time on the device.
    pub by_rows: BTreeMap<u64, (u64, u64)>,
}

impl Statistics {
    pub(super) fn batch(&mut self, rows: u64, service: Nanos) {
        self.batches += 1;
        if self.by_rows.len() < BATCH_SIZES || self.by_rows.contains_key(&rows) {
            let entry = self.by_rows.entry(rows).or_default();
            entry.0 += 1;
            entry.1 += service;
        }
    }
}

/// A model on one device of one worker.
#[derive(Clone, Debug)]
pub(super) struct Replica {
    pub worker: usize,
    pub device: usize,
    pub state: ModelState,
    pub error: String,
    pub progress: f32,
    pub curve: Curve,
    /// The order that put it there; a report of another is out of date.
    pub order: u64,
}

/// A model by its served name.
#[derive(Debug)]
pub(super) struct Model {
    pub name: Arc<str>,
    /// Where it lies; none for a built-in one.
    pub path: Option<String>,
    pub wanted: bool,
    /// Every worker has it, and it cannot be unloaded.
    pub built_in: bool,
    pub spec: Option<Arc<ModelSpec>>,
    pub replicas: Vec<Replica>,
    pub queue: VecDeque<RequestKey>,
    /// Since when no replica that could run it has been there.
    pub orphaned: Option<Nanos>,
    pub statistics: Statistics,
}

/// A worker's report of a model on one of its devices.
#[derive(Clone, Debug)]
pub struct Report {
    /// The served name.
    pub name: Arc<str>,
    /// The device.
    pub device: String,
    /// What became of it.
    pub state: ModelState,
    /// Why it failed.
    pub error: String,
    /// Share loaded.
    pub progress: f32,
    /// Its declaration, once known.
    pub spec: Option<ModelSpec>,
    /// Its predicted seconds.
    pub curve: ServiceCurve,
    /// Of the load or unload that it answers; 0 for a built-in model.
    pub order: u64,
}

impl Model {
    pub(super) fn state(&self) -> ModelState {
        let any = |state| self.replicas.iter().any(|replica| replica.state == state);
        [ModelState::Ready, ModelState::Loading, ModelState::Failed]
            .into_iter()
            .find(|state| any(*state))
            .unwrap_or(ModelState::Unloaded)
    }

    /// The reason why it is not ready, as far as it is known.
    pub(super) fn reason<L>(&self, workers: &[Worker<L>]) -> String {
        let failed = self.replicas.iter().find(|replica| replica.state == ModelState::Failed);
        match (self.state(), failed) {
            (ModelState::Ready, _) => String::new(),
            (ModelState::Loading, _) => "loading".into(),
            (_, Some(replica)) => format!("worker '{}': {}", workers[replica.worker].name, replica.error),
            _ if !self.wanted => "unloaded".into(),
            _ => "no worker has it, start one with: orion worker --join <session address>".into(),
        }
    }

    pub(super) fn not_ready<L>(&self, workers: &[Worker<L>]) -> Error {
        // Why it failed names files of a worker: that is for whoever runs the server.
        let reason = match self.state() {
            ModelState::Failed => "it could not be loaded, `orion models` says why".into(),
            _ => self.reason(workers),
        };
        let error = Error::new(Code::Unavailable, format!("model '{}' is not ready: {reason}", self.name));
        if self.wanted { error.retry_after(Duration::from_secs(1)) } else { error }
    }
}

impl<T, L: Clone> Core<T, L> {
    pub(super) fn know(&mut self, name: &Arc<str>) -> usize {
        if let Some(&index) = self.model_names.get(name) {
            return index;
        }
        let index = self.models.len();
        self.models.push(Model {
            name: name.clone(),
            path: None,
            wanted: true,
            built_in: false,
            spec: None,
            replicas: Vec::new(),
            queue: VecDeque::new(),
            orphaned: None,
            statistics: Statistics::default(),
        });
        self.model_names.insert(name.clone(), index);
        index
    }

    /// A model is to be served from this path, on every worker that can hold it.
    pub fn want(&mut self, name: &ModelName, path: String) {
        let index = self.know(&Arc::from(name.as_str()));
        let model = &mut self.models[index];
        (model.wanted, model.path) = (true, Some(path));
        self.changed = true;
        for worker in 0..self.workers.len() {
            if self.workers[worker].is_connected() {
                self.load_on(index, worker);
            }
        }
    }

    /// A model is not to be served any more. Its running batches end; nothing new is taken.
    ///
    /// # Errors
    /// NOT_FOUND for an unknown name; INVALID_ARGUMENT for a built-in one.
    pub fn unwant(&mut self, name: &str) -> Result<()> {
        let index = self.index(name)?;
        if self.models[index].built_in {
            return Err(Error::invalid(format!("model '{name}' is built in and cannot be unloaded")));
        }
        self.models[index].wanted = false;
        self.changed = true;
        let replicas = std::mem::take(&mut self.models[index].replicas);
        for replica in replicas {
            self.unload_on(index, replica.worker);
        }
        self.refuse_queue(index);
        Ok(())
    }

    fn unload_on(&mut self, index: usize, worker: usize) {
        let (order, name) = (self.number(), self.models[index].name.clone());
        if let Some(link) = self.workers[worker].link.clone() {
            self.commands.push(Command::Unload { link, name, order });
        }
    }

    /// Loads what is wanted on a worker that has just come.
    pub(super) fn load_wanted(&mut self, worker: usize) {
        for index in 0..self.models.len() {
            if self.models[index].wanted {
                self.load_on(index, worker);
            }
        }
    }

    fn load_on(&mut self, index: usize, worker: usize) {
        let order = self.number();
        let model = &mut self.models[index];
        let (Some(path), Some(link)) = (model.path.clone(), self.workers[worker].link.clone()) else { return };
        let there = model.replicas.iter().find(|replica| replica.worker == worker);
        // Loading twice would hold the weights twice.
        if there.is_some_and(|replica| matches!(replica.state, ModelState::Loading | ModelState::Ready)) {
            return;
        }
        model.replicas.retain(|replica| replica.worker != worker);
        model.replicas.push(Replica {
            worker,
            device: 0,
            state: ModelState::Loading,
            error: String::new(),
            progress: 0.0,
            curve: Curve::default(),
            order,
        });
        self.commands.push(Command::Load { link, name: model.name.clone(), path, order });
    }

    /// A worker says what became of a model on one of its devices.
    pub fn report(&mut self, now: Nanos, session: u64, mut report: Report) {
        let Some(worker) = self.by_session(session) else { return };
        let Some(device) = self.workers[worker].device_index(&report.device) else { return };
        let Some(&index) = self.model_names.get(&report.name) else {
            // Of an earlier scheduler, or invented: a worker does not decide what is served.
            let order = self.number();
            if let Some(link) = self.workers[worker].link.clone().filter(|_| report.state != ModelState::Unloaded) {
                self.commands.push(Command::Unload { link, name: report.name, order });
            }
            return;
        };
        // Unloaded while this worker was away, or a load that ended after its unload.
        if !self.models[index].wanted {
            if report.state != ModelState::Unloaded {
                self.unload_on(index, worker);
            }
            return;
        }
        let model = &mut self.models[index];
        let old = model.replicas.iter().position(|replica| replica.worker == worker);
        let expected = old.map_or(0, |at| model.replicas[at].order);
        if report.order != expected || (old.is_none() && !model.built_in) {
            return;
        }
        let old = old.map(|at| model.replicas.swap_remove(at));
        let others_serve = model.replicas.iter().any(|replica| replica.state == ModelState::Ready);
        if let (Some(served), Some(declared)) = (&model.spec, &report.spec)
            && others_serve
            && **served != *declared
        {
            report.state = ModelState::Failed;
            report.error = "it declares other tensors or settings than the replicas that serve".into();
        }
        self.changed = true;
        if report.state == ModelState::Unloaded {
            return;
        }
        // What batches have taught is kept when the same replica only says again that it is there.
        let same = old.filter(|old| old.state == ModelState::Ready && report.state == ModelState::Ready);
        model.replicas.push(Replica {
            worker,
            device,
            state: report.state,
            error: report.error,
            progress: report.progress,
            curve: same.map_or_else(|| Curve::new(report.curve), |old| old.curve),
            order: report.order,
        });
        // The declaration is the ready replicas': one that only loads is believed until there is another.
        let ready = report.state == ModelState::Ready;
        if let Some(spec) =
            report.spec.filter(|_| ready || (model.spec.is_none() && report.state == ModelState::Loading))
        {
            model.spec = Some(Arc::new(spec));
        }
        self.dispatch(now);
    }

    pub(super) fn index(&self, name: &str) -> Result<usize> {
        if let Some(&index) = self.model_names.get(name) {
            return Ok(index);
        }
        ModelName::new(name)?;
        let mut known: Vec<&str> = self.models.iter().filter(|m| m.wanted).map(|m| &*m.name).collect();
        known.sort_unstable();
        Err(Error::new(Code::NotFound, format!("model '{name}' is unknown, the models are: {}", known.join(", "))))
    }

    /// The declaration of a model that was loaded at least once.
    ///
    /// # Errors
    /// NOT_FOUND for an unknown name or version; UNAVAILABLE while no worker has loaded it.
    pub fn spec(&self, name: &str, version: &str) -> Result<Arc<ModelSpec>> {
        let index = self.index(name)?;
        let spec = self.models[index].spec.as_ref().ok_or_else(|| self.not_ready(index))?;
        if version.is_empty() || version == spec.version {
            return Ok(spec.clone());
        }
        let known = &spec.version;
        Err(Error::new(Code::NotFound, format!("model '{name}' has the version '{known}', not '{version}'")))
    }
}
