//! The models that the scheduler knows, and what is known of them before and beside their replicas.

use std::{cell::Cell, collections::BTreeMap, sync::Arc, time::Duration};

use orion_net::{Balancer, Strategy};
use orion_proto::{Code, Error, ModelName, ModelSpec, Result};

use super::{
    Core, Nanos,
    arrivals::Arrivals,
    curve::{Curve, LONGEST},
    failed_load::Failure,
    load_time::LoadTime,
    nanos,
    peak::Peak,
    prefill,
    queue::Queue,
    sequences::Sequences,
    work::Rank,
};

/// Batch sizes of which a model keeps statistics.
const BATCH_SIZES: usize = 64;
/// Reasons kept of workers that cannot read a model.
const REASONS: usize = 16;
/// Objective of a model that has none: so many times what one row takes.
const OBJECTIVE_ROWS: f64 = 10.0;
/// And at least this.
const OBJECTIVE: Duration = Duration::from_millis(100);

/// A replica's or a model's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub enum ModelState {
    Loading,
    Ready,
    /// Evicted, or not needed yet: the next request brings it back.
    Cold,
    Failed,
    Unloading,
    Unloaded,
}

impl ModelState {
    /// As Triton's repository index writes it.
    pub fn triton(self) -> &'static str {
        match self {
            Self::Ready | Self::Cold => "READY",
            Self::Loading => "LOADING",
            Self::Unloading => "UNLOADING",
            Self::Failed | Self::Unloaded => "UNAVAILABLE",
        }
    }

    /// As Orion's own tables write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Cold => "cold",
            Self::Loading => "loading",
            Self::Failed => "failed",
            Self::Unloading => "unloading",
            Self::Unloaded => "unloaded",
        }
    }

    /// Whether a client may send: the model answers now or after a load.
    pub fn answers(self) -> bool {
        matches!(self, Self::Ready | Self::Cold)
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
    /// Not admitted.
    pub refused: u64,
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

/// What is known of a model on devices of one class.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub class: usize,
    /// Of the first length bucket.
    pub curve: Curve,
    /// Of the others, as far as they were seen.
    pub longer: Vec<Curve>,
    /// Whether batches have taught what is not written down yet.
    pub unsaved: bool,
    /// Predicted time of a load, as decisions read it.
    pub load: Nanos,
    pub load_time: LoadTime,
    pub peak: Peak,
}

impl Known {
    /// By length bucket.
    pub(super) fn curves(&self) -> impl Iterator<Item = &Curve> {
        std::iter::once(&self.curve).chain(&self.longer)
    }

    /// Time passes without a batch or a load.
    pub(super) fn fade(&mut self, now: Nanos) {
        self.curve.fade(now);
        self.longer.iter_mut().for_each(|curve| curve.fade(now));
        self.load = self.load_time.predict(now);
    }
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
    /// Workers that were asked what it is and have not answered.
    pub asked: Vec<usize>,
    /// Workers that cannot read it, and why.
    pub unreadable: Vec<(usize, String)>,
    pub known: Vec<Known>,
    pub replicas: Vec<usize>,
    /// Replicas that are being unloaded.
    pub leaving: usize,
    /// A first copy found no device or no room, or left with its worker: another worker may bring it.
    pub unmet: bool,
    /// Whether any device could take it, as it was last seen.
    pub could_move: Cell<Option<bool>>,
    /// What it was before it was unloaded, until a worker has read it again.
    pub replaced: Option<Arc<ModelSpec>>,
    /// Devices on which it could not be loaded: why, how often, and when to try again.
    pub failures: Vec<Failure>,
    pub queue: Queue,
    /// Predicted time of what waits, in the largest batches.
    pub work: Nanos,
    /// What of it is counted on each device that holds the model.
    pub share: Nanos,
    /// Its place among the models that a copy would help.
    pub rank: Option<Rank>,
    /// From when on it is past its objective, while it waits and has no copy.
    pub claim: Option<Nanos>,
    /// Share of its queue that its holders drain too late.
    pub want: f64,
    pub arrivals: Arrivals,
    /// Somebody asks for it by name: it may evict others.
    pub demanded: bool,
    pub balancer: Option<Box<dyn Balancer>>,
    pub sequences: Sequences,
    pub prompts: prefill::OfModel,
    /// Since when nothing could run it.
    pub orphaned: Option<Nanos>,
    pub statistics: Statistics,
}

impl Model {
    fn new(name: &Arc<str>) -> Self {
        Self {
            name: name.clone(),
            path: None,
            wanted: true,
            built_in: false,
            spec: None,
            asked: Vec::new(),
            unreadable: Vec::new(),
            known: Vec::new(),
            replicas: Vec::new(),
            leaving: 0,
            unmet: false,
            could_move: Cell::new(None),
            replaced: None,
            failures: Vec::new(),
            queue: Queue::default(),
            work: 0,
            share: 0,
            rank: None,
            claim: None,
            want: 0.0,
            arrivals: Arrivals::default(),
            demanded: false,
            balancer: None,
            sequences: Sequences::default(),
            prompts: prefill::OfModel::default(),
            orphaned: None,
            statistics: Statistics::default(),
        }
    }

    /// The curve on a device of this class; scaled from another where it was never measured.
    pub(super) fn known(&self, class: usize) -> Option<&Known> {
        self.known.iter().find(|known| known.class == class).or(self.known.first())
    }

    /// A model was read, or loaded, on a device of this class for the first time. `load`: what a load is expected to take.
    pub(super) fn meet(&mut self, class: usize, load: Nanos) {
        let load_time = LoadTime::new(load);
        let (curve, longer) = (Curve::default(), Vec::new());
        self.known.push(Known { class, curve, longer, unsaved: false, load, load_time, peak: Peak::default() });
    }

    /// Curves by length bucket, of devices of this class.
    pub(super) fn believe(&mut self, class: usize, curves: &[Curve]) {
        let known = self.known.iter_mut().find(|known| known.class == class);
        if let (Some(known), Some((first, longer))) = (known, curves.split_first()) {
            known.curve = *first;
            known.longer.clear();
            known.longer.extend_from_slice(longer);
        }
    }

    /// The same, taught by a batch. Says whether there was nothing to be written down before.
    pub(super) fn learn(&mut self, class: usize, curves: &[Curve]) -> bool {
        self.believe(class, curves);
        let known = self.known.iter_mut().find(|known| known.class == class);
        known.is_some_and(|known| !std::mem::replace(&mut known.unsaved, true))
    }

    /// A load on a device of this class took so long.
    pub(super) fn learn_load(&mut self, now: Nanos, class: usize, took: Nanos) {
        if let Some(known) = self.known.iter_mut().find(|known| known.class == class) {
            known.load_time.observe(now, took);
            known.load = took;
        }
    }

    /// Replicas that its owner allows.
    pub(super) fn max_replicas(&self) -> Option<usize> {
        self.spec.as_ref().and_then(|spec| spec.policy.max_replicas).map(|most| most as usize)
    }

    pub(super) fn max_rows(&self) -> usize {
        self.spec.as_ref().map_or(1, |spec| spec.max_batch_rows)
    }

    pub(super) fn is_generator(&self) -> bool {
        self.spec.as_ref().is_some_and(|spec| spec.generator.is_some())
    }

    pub(super) fn is_inline(&self) -> bool {
        self.spec.as_ref().is_some_and(|spec| spec.inline)
    }
}

impl<T, L: Clone> Core<T, L> {
    /// The objective of requests without a deadline: stated, or so many times what one row takes where it is fastest.
    pub(super) fn objective(&self, index: usize) -> Nanos {
        if let Some(stated) = self.models[index].spec.as_ref().and_then(|spec| spec.policy.slo) {
            return nanos(stated);
        }
        let row = self.least_row_time(index, 1);
        ((row * OBJECTIVE_ROWS).min(LONGEST) as Nanos).max(nanos(OBJECTIVE))
    }

    pub(super) fn know(&mut self, name: &Arc<str>) -> usize {
        if let Some(&index) = self.model_names.get(name) {
            return index;
        }
        let index = self.models.len();
        self.models.push(Model::new(name));
        self.model_names.insert(name.clone(), index);
        index
    }

    /// A model is to be served from this path. `demanded`: somebody waits for it, so it may evict what waits for nothing.
    pub fn want(&mut self, now: Nanos, name: &ModelName, path: String, demanded: bool) {
        let index = self.know(&Arc::from(name.as_str()));
        let model = &mut self.models[index];
        let moved = model.path.as_ref().is_some_and(|known| *known != path);
        // Its files may have changed since it was unloaded.
        let anew = !model.wanted && !moved && model.path.is_some();
        (model.wanted, model.demanded) = (true, demanded);
        model.path = Some(path);
        model.failures.clear();
        model.unreadable.clear();
        if moved {
            self.drop_replicas(now, index);
            self.models[index].known.clear();
            self.models[index].spec = None;
        }
        if anew {
            self.models[index].replaced = self.models[index].spec.take();
        }
        self.changed = true;
        self.unplaced.insert(index);
        self.ask_about(index);
        self.settle_wishes(now);
    }

    /// A model is not to be served any more. Its running batches end; nothing new is taken.
    ///
    /// # Errors
    /// NOT_FOUND for an unknown name; INVALID_ARGUMENT for a built-in one.
    pub fn unwant(&mut self, now: Nanos, name: &str) -> Result<()> {
        let index = self.index(name)?;
        if self.models[index].built_in {
            return Err(Error::invalid(format!("model '{name}' is built in and cannot be unloaded")));
        }
        self.models[index].wanted = false;
        self.models[index].demanded = false;
        self.changed = true;
        self.unplaced.remove(&index);
        self.refuse_queue(now, index);
        self.drop_replicas(now, index);
        self.settle_wishes(now);
        Ok(())
    }

    /// A worker says what a model is, or that it cannot read it.
    pub(super) fn inspected(
        &mut self,
        now: Nanos,
        worker: usize,
        index: usize,
        found: std::result::Result<Arc<ModelSpec>, String>,
    ) {
        self.unask(index, worker);
        let model = &mut self.models[index];
        self.changed = true;
        match found {
            Ok(spec) if model.spec.is_none() => {
                self.declare(index, spec);
                self.unplaced.insert(index);
            }
            Ok(_) => {}
            Err(reason) => {
                model.unreadable.retain(|(at, _)| *at != worker);
                // Who answered is kept of all, or it would be asked again; the reasons are much the same.
                let reason = if model.unreadable.len() < REASONS { reason } else { String::new() };
                model.unreadable.push((worker, reason));
                self.ask_about(index);
            }
        }
        self.ask_more(worker);
        self.settle_wishes(now);
    }

    pub(super) fn declare(&mut self, index: usize, spec: Arc<ModelSpec>) {
        // A strategy's name was checked when the report came in.
        let strategy = spec.policy.balancer.parse::<Strategy>().unwrap_or_default();
        let seed = self.epoch ^ index as u64;
        // A generation begins where that is predicted to be soonest, whatever is asked for: its prompt may be kept there.
        let binds = strategy != Strategy::default() && spec.generator.is_none();
        self.models[index].balancer = binds.then(|| strategy.balancer(seed));
        self.binds |= self.models[index].balancer.is_some() || spec.policy.sequences;
        self.models[index].spec = Some(spec);
        self.changed = true;
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

    /// The declaration of a model.
    ///
    /// # Errors
    /// NOT_FOUND for an unknown name or version; UNAVAILABLE while no worker has read it.
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
