//! Replicas: a model's copies on devices. Loads are single-flight, and memory is taken before and given back after.

use std::{sync::Arc, time::Duration};

use orion_net::{Breaker, Penalty};
use orion_proto::{ModelSpec, ServiceCurve};

use super::{
    Command, Core, ModelState, Nanos,
    curve::{Curve, Line, NEXT_BUCKET},
    nanos,
    peak::Peak,
    prefill,
    queue::Queue,
    tenants::PRIORITIES,
};

/// A model on one device.
#[derive(Debug)]
pub(super) struct Replica {
    pub model: usize,
    pub device: usize,
    pub state: ModelState,
    pub progress: f32,
    /// By length bucket.
    pub(super) curves: Vec<Curve>,
    /// The order that put it there or takes it away; a report of another is out of date.
    pub order: u64,
    pub bytes: u64,
    /// Whether its load was sent, so that the device's memory is taken.
    pub sent: bool,
    pub started: Nanos,
    /// What fetching its files was predicted to take when it was started, and when it last came further.
    pub fetch: Nanos,
    pub moved: Nanos,
    pub peak: Peak,
    /// Batches that run there now.
    pub running: usize,
    /// The same of a generator, by priority.
    pub by_priority: [usize; PRIORITIES],
    /// When a step of one of its generations came last.
    pub spoke: Nanos,
    /// The last batch that was given to it beyond its places: this and those before it may have waited there.
    pub crowded: u64,
    /// A batch of it stands still: nothing more is given to it until that ends.
    pub stalled: bool,
    /// It is to be unloaded, and its worker is not told yet.
    pub untold: bool,
    /// Whether it has run a batch since it was loaded.
    pub ran: bool,
    /// Whether its device counts a share of what waits for its model.
    pub shares: bool,
    /// Rows beyond which a batch ran out of memory, and when that was last so.
    pub rows_limit: Option<(usize, Nanos)>,
    /// Requests that a balancer or their sequences bound to it.
    pub bound: Option<Box<Queue>>,
    /// Requests that were bound to it and are not answered.
    pub outstanding: usize,
    pub prompts: prefill::OfReplica,
    pub breaker: Breaker,
    pub penalty: Penalty,
}

/// A worker's report of a model on one of its devices.
#[derive(Clone, Debug)]
pub struct Report {
    /// The served name.
    pub name: Arc<str>,
    /// The device; empty when the model could not be read.
    pub device: String,
    /// What became of it. Cold: it was inspected.
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
    /// Seconds that a load takes, predicted or measured.
    pub load_seconds: f64,
    /// Memory that the largest warm-up batch took, bytes.
    pub peak_bytes: u64,
}

impl Replica {
    /// What is believed of batches of a length bucket.
    pub(super) fn line(&self, bucket: u8) -> Line {
        let last = self.curves.len() - 1;
        match self.curves.get(bucket as usize) {
            Some(curve) => curve.line(),
            None => self.curves[last].line().stretched(NEXT_BUCKET.powi((bucket as usize - last) as i32)),
        }
    }

    /// The least that batches of a length bucket may be believed to take, where none was seen those of the longest that
    /// was. Nothing is refused for the sake of a guess, or of how far off predictions were: it would never be corrected.
    pub(super) fn least_line(&self, bucket: u8) -> Line {
        let seen = self.curves.iter().take(bucket as usize + 1).rev().find(|curve| curve.was_observed());
        Line { inflation: 1.0, ..seen.unwrap_or(&self.curves[0]).line() }
    }

    /// The curve of the first bucket: of the others it is where they start.
    pub(super) fn curve(&self) -> Curve {
        self.curves[0]
    }

    pub(super) fn observe(&mut self, now: Nanos, bucket: u8, rows: usize, seconds: f64) {
        while self.curves.len() <= bucket as usize {
            let next = self.curves[self.curves.len() - 1].scaled(NEXT_BUCKET);
            self.curves.push(next);
        }
        self.curves[bucket as usize].observe(now, rows, seconds);
    }

    /// Time passes without a batch.
    pub(super) fn fade(&mut self, now: Nanos) {
        self.curves.iter_mut().for_each(|curve| curve.fade(now));
    }

    /// By length bucket.
    pub(super) fn curves(&self) -> &[Curve] {
        &self.curves
    }

    /// Whether it runs batches as far as it is concerned.
    pub(super) fn serves(&self) -> bool {
        self.state == ModelState::Ready
    }
}

impl<T, L: Clone> Core<T, L> {
    /// Puts a replica on a device, whose memory is free or is being freed.
    pub(super) fn add_replica(&mut self, now: Nanos, model: usize, device: usize) -> usize {
        let order = self.number();
        let curves = self.predicted_curves(model, device);
        let bytes = self.models[model].spec.as_ref().map_or(0, |spec| spec.memory_bytes);
        let replica = self.replicas.insert(Replica {
            model,
            device,
            state: ModelState::Loading,
            progress: 0.0,
            curves,
            order,
            bytes,
            sent: false,
            started: now,
            fetch: 0,
            moved: now,
            peak: self.known_peak(model, device),
            running: 0,
            by_priority: [0; PRIORITIES],
            spoke: 0,
            crowded: 0,
            stalled: false,
            untold: false,
            ran: false,
            shares: false,
            rows_limit: None,
            bound: None,
            outstanding: 0,
            prompts: prefill::OfReplica::default(),
            breaker: Breaker::new(order),
            penalty: Penalty::default(),
        });
        self.unshare(model);
        self.devices[device].residents.push(replica);
        self.models[model].replicas.push(replica);
        self.reserve_activations(device);
        self.share_work(model);
        self.changed = true;
        replica
    }

    /// Sends the load that a device's copy engine waits for, once its memory is there.
    pub(super) fn send_load(&mut self, now: Nanos, device: usize) {
        let Some(id) = self.devices[device].loading else { return };
        let (model, bytes, order, sent) = {
            let replica = &self.replicas[id];
            (replica.model, replica.bytes, replica.order, replica.sent)
        };
        let leaving = |id: &usize| self.replicas[*id].state == ModelState::Unloading;
        let fits = bytes <= self.devices[device].ledger.free();
        if sent || (!fits && self.devices[device].residents.iter().any(leaving)) {
            return;
        }
        let link = self.workers[self.devices[device].worker].link.clone();
        let (Some(link), Some(path)) = (link, self.models[model].path.clone()) else { return };
        if !fits {
            // Somebody else took the memory meanwhile: the models that wait choose again.
            return self.forget_replica(now, id);
        }
        let peers = self.peers_of(model, self.devices[device].worker);
        self.devices[device].ledger.take(bytes);
        self.replicas[id].sent = true;
        let fetch = self.fetch_time(model, self.devices[device].worker);
        let replica = &mut self.replicas[id];
        (replica.started, replica.moved, replica.fetch) = (now, now, fetch);
        let (name, device) = (self.models[model].name.clone(), self.devices[device].name.clone());
        self.commands.push(Command::Load { link, name, device, path, peers, order });
    }

    /// A worker says what became of a model on one of its devices.
    pub fn report(&mut self, now: Nanos, session: u64, report: Report) {
        let Some(worker) = self.by_session(session) else { return };
        let Some(&index) = self.model_names.get(&report.name) else { return self.unload_stray(worker, report) };
        if report.device.is_empty() {
            return self.inspected(now, worker, index, Err(report.error));
        }
        let Some(device) = self.device_named(worker, &report.device) else { return };
        match report.state {
            ModelState::Cold => self.take_inspection(now, worker, index, device, report),
            _ => self.take_report(now, worker, index, device, report),
        }
    }

    fn take_inspection(&mut self, now: Nanos, worker: usize, index: usize, device: usize, report: Report) {
        if let Some(spec) = &report.spec {
            self.models[index].read_again(spec);
        }
        let class = self.devices[device].class;
        let load = nanos(Duration::try_from_secs_f64(report.load_seconds).unwrap_or_default());
        if self.models[index].known.iter().all(|known| known.class != class) {
            let curves = self.seeded(now, index, class, report.curve);
            self.models[index].meet(class, load);
            self.models[index].believe(class, &curves);
        }
        match report.spec {
            Some(spec) => self.inspected(now, worker, index, Ok(Arc::new(spec))),
            None => self.inspected(now, worker, index, Err("it was read without a declaration".into())),
        }
    }

    fn take_report(&mut self, now: Nanos, worker: usize, index: usize, device: usize, report: Report) {
        let model = &self.models[index];
        let there = |id: &usize| self.replicas[*id].model == index;
        let Some(id) = self.devices[device].residents.iter().copied().find(there) else {
            return self.adopt(now, worker, index, device, report);
        };
        let (order, leaving) = (self.replicas[id].order, self.replicas[id].state == ModelState::Unloading);
        let unloaded = report.state == ModelState::Unloaded;
        // Of several unloads a worker answers the newest.
        let answers = report.order == order || model.built_in || (leaving && unloaded && report.order > order);
        if !answers || (leaving && !unloaded) {
            return;
        }
        let news = report.state != self.replicas[id].state;
        match report.state {
            ModelState::Loading => {
                let replica = &mut self.replicas[id];
                if replica.progress != report.progress {
                    (replica.progress, replica.moved) = (report.progress, now);
                }
                if let Some(spec) = report.spec.filter(|_| self.models[index].spec.is_none()) {
                    self.declare(index, Arc::new(spec));
                }
                self.changed = true;
            }
            ModelState::Ready => self.loaded(now, id, report),
            ModelState::Failed => self.load_failed(now, id, report.error),
            _ => {
                self.forget_replica(now, id);
                self.send_load(now, device);
                if !self.models[index].wanted {
                    // The memory that its owner gave back is for others.
                    self.wish_again();
                }
            }
        }
        if news {
            self.settle_wishes(now);
            self.after_load(now, device, index);
        }
    }

    /// A model that a worker holds and that was not asked for in this session.
    fn adopt(&mut self, now: Nanos, worker: usize, index: usize, device: usize, report: Report) {
        if !matches!(report.state, ModelState::Ready | ModelState::Loading) {
            return;
        }
        let order = self.number();
        let model = &self.models[index];
        let Some(link) = self.workers[worker].link.clone() else { return };
        if model.built_in {
            let id = self.add_replica(now, index, device);
            return self.loaded(now, id, report);
        }
        let full = model.max_replicas().is_some_and(|most| model.replicas.len() >= most);
        let (bytes, peak) = self.needs(index, device);
        // What it was given before it told of this copy may leave no room for the copy's batches.
        let full = full || !self.devices[device].ledger.has_room_for(bytes, peak);
        let (name, at) = (model.name.clone(), self.devices[device].name.clone());
        let (true, false, Some(path)) = (model.wanted, full, model.path.clone()) else {
            return self.commands.push(Command::Unload { link, name, device: at, order });
        };
        // It has the weights: asked for the same path, it answers at once.
        let id = self.add_replica(now, index, device);
        let replica = &mut self.replicas[id];
        (replica.order, replica.sent) = (order, true);
        self.devices[device].ledger.take(self.replicas[id].bytes);
        let peers = Vec::new();
        self.commands.push(Command::Load { link, name, device: at, path, peers, order });
    }

    fn loaded(&mut self, now: Nanos, id: usize, report: Report) {
        let (index, device) = (self.replicas[id].model, self.replicas[id].device);
        let served = |other: &usize| *other != id && self.replicas[*other].serves();
        let others = self.models[index].replicas.iter().any(served);
        if let (Some(known), Some(declared)) = (&self.models[index].spec, &report.spec)
            && others
            && **known != *declared
        {
            let reason = "it declares other tensors or settings than the replicas that serve";
            self.note_failure(now, index, device, reason.to_owned());
            return self.unload(now, id);
        }
        if let Some(spec) = report.spec {
            let bytes = spec.memory_bytes;
            self.correct_bytes(id, bytes);
            if self.models[index].spec.as_deref() != Some(&spec) {
                self.declare(index, Arc::new(spec));
            }
        }
        let class = self.devices[device].class;
        let again = self.replicas[id].serves();
        if !again {
            self.note_load(now, device, id);
            let curves = self.measured_curves(now, index, class, report.curve);
            let took = nanos(Duration::try_from_secs_f64(report.load_seconds).unwrap_or_default());
            let model = &mut self.models[index];
            if model.known.iter().all(|known| known.class != class) {
                let promised = model.known.first().map_or(took, |known| known.load_time.promised());
                model.meet(class, promised);
            }
            model.believe(class, &curves);
            self.replicas[id].curves = curves;
            if took > 0 {
                model.learn_load(now, class, took);
            }
            self.learn_first_peak(id, report.peak_bytes);
        }
        let replica = &mut self.replicas[id];
        (replica.state, replica.progress) = (ModelState::Ready, 1.0);
        if self.devices[device].loading == Some(id) {
            self.set_loading(device, None);
        }
        self.models[index].failures.retain(|failure| failure.device != device);
        self.models[index].demanded &= !self.stays(id);
        self.reserve_activations(device);
        self.changed = true;
    }

    /// What the ledger holds follows what the worker says that the model takes.
    fn correct_bytes(&mut self, id: usize, bytes: u64) {
        let replica = &mut self.replicas[id];
        let (device, old) = (replica.device, replica.bytes);
        if replica.sent && old != bytes {
            replica.bytes = bytes;
            self.devices[device].ledger.give_back(old);
            self.devices[device].ledger.take(bytes);
        }
    }
}
