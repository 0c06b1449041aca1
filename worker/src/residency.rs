//! Which models this worker holds, loads or failed to load, on each of its devices.

use std::{path::Path, sync::Arc, time::Instant};

use orion_models::{Loaded as InMemory, Timing};
use orion_net::{Batch, transfer::is_fetched};
use orion_proto::{
    Code, Error, ModelSpec, Result, ServiceCurve,
    session::{
        DeviceTelemetry, GeneratorTelemetry, InspectModel, LoadModel, Measurement, ModelReport, UnloadModel,
        model_report::State, to_scheduler::Message,
    },
};
use parking_lot::Mutex;

use crate::{
    artifacts::Local,
    device::{Device, inspect},
    executor::{Loaded, SpareWork, WarmedUp, known_figures},
    fetched::local,
    inventory::Memory,
    lane::Lane,
    outcome,
    worker::Worker,
};

mod table;

use table::{Load, Place, Table, Unload};

/// Bytes of a reason: control messages are small.
const REASON_BYTES: usize = 1024;
/// Seconds that `identity` takes: a few hundred nanoseconds, whatever the rows, since it hands its input back.
const IDENTITY_SECONDS: f64 = 1e-6;

/// The models of this worker's devices.
pub(crate) struct Residency {
    devices: Vec<Device>,
    table: Mutex<Table>,
    measured: Mutex<Measurement>,
    inspections: Lane,
}

impl Residency {
    /// # Errors
    /// INTERNAL when the system gives no thread, or there is no device.
    pub(crate) fn new(devices: Vec<Device>) -> Result<Self> {
        let first = devices.first().ok_or_else(|| Error::new(Code::Internal, "this machine has no usable device"))?;
        let mut table = Table::default();
        let curve = ServiceCurve { base_seconds: IDENTITY_SECONDS, per_row_seconds: 0.0 };
        let mut report = report(orion_models::IDENTITY, &first.name, State::Ready);
        (report.spec, report.curve) = (Some((&orion_models::identity_spec()).into()), Some(curve.into()));
        report.progress = 1.0;
        table.keep(Place { model: orion_models::IDENTITY.to_owned(), device: 0 }, report);
        let inspections = Lane::start("orion-inspect")?;
        Ok(Self { devices, table: Mutex::new(table), measured: Mutex::default(), inspections })
    }

    /// Figures of this machine from which curves are seeded.
    pub(crate) fn believe(&self, figures: Measurement) {
        *self.measured.lock() = figures;
    }

    /// How emulated devices are now.
    pub(crate) fn telemetry(&self) -> Vec<DeviceTelemetry> {
        self.devices.iter().filter_map(Device::telemetry).collect()
    }

    /// How the generators of a device of this name are filled.
    pub(crate) fn generators(&self, device: &str) -> Vec<GeneratorTelemetry> {
        self.devices.iter().find(|known| *known.name == *device).map(Device::generators).unwrap_or_default()
    }

    /// Another scheduler than the one before is joined.
    pub(crate) fn joins_another(&self) {
        self.table.lock().forget_orders();
    }

    /// Tells a new scheduler of every model.
    pub(crate) fn report_all(&self, worker: &Worker) {
        let unloaded = |place: &Place| report(&place.model, &self.devices[place.device].name, State::Unloaded);
        self.table.lock().say_all(unloaded);
        self.tell(worker);
    }

    /// Tells what is to be told. Not under the lock: in one process the scheduler may answer with a call back.
    fn tell(&self, worker: &Worker) {
        if !self.table.lock().begin_telling() {
            return;
        }
        loop {
            let report = self.table.lock().next_report();
            let Some(report) = report else { return };
            let moved = matches!(report.state(), State::Ready | State::Failed | State::Unloaded);
            worker.tell(Message::Model(report));
            if moved {
                // What is free changed at once, and the next load should not wait for the next beat to know it.
                worker.tell(Message::Telemetry(worker.telemetry()));
            }
        }
    }

    fn say(&self, worker: &Worker, report: ModelReport) {
        self.table.lock().say(report);
        self.tell(worker);
    }

    /// The index of a device of this name; the first for no name.
    fn device(&self, name: &str) -> Result<usize> {
        let index = self.devices.iter().position(|device| name.is_empty() || *device.name == *name);
        index.ok_or_else(|| {
            let known: Vec<&str> = self.devices.iter().map(|device| &*device.name).collect();
            let text = format!("device '{name}' is unknown to this worker, its devices are: {}", known.join(", "));
            Error::new(Code::NotFound, text)
        })
    }

    /// Memory of this machine that is not taken, nor left for batches of what is on the first device, bytes.
    pub(crate) fn free_bytes(&self) -> u64 {
        let room = self.devices.first().map_or(0, |device| device.executor.room());
        Memory::read().free_bytes.saturating_sub(room)
    }

    /// Does this on the first device, when it has nothing else to do.
    pub(crate) fn spare(&self, work: SpareWork) {
        // There is one: `new` refuses to be without.
        if let Some(device) = self.devices.first() {
            device.executor.spare(work);
        }
    }

    pub(crate) fn run(&self, worker: &Arc<Worker>, batch: Batch, arrived: Instant) {
        match self.device(&batch.device) {
            Ok(device) => self.devices[device].executor.run(worker, batch, arrived),
            Err(error) => worker.deliver(outcome::refused(&batch, &error)),
        }
    }

    /// Loads a model where loads are done; once, however often it is asked for. What is older than the newest wish for
    /// that model there is ignored: messages of two threads may come out of turn.
    pub(crate) fn load(&self, worker: &Arc<Worker>, request: LoadModel) {
        let LoadModel { name, path, order, device, peers } = request;
        let index = match self.device(&device) {
            Ok(index) => index,
            Err(error) => {
                let failed = ModelReport { error: reason(&error), order, ..report(&name, &device, State::Failed) };
                return self.say(worker, failed);
            }
        };
        let device = &self.devices[index];
        let place = Place { model: name, device: index };
        let loading = ModelReport { order, ..report(&place.model, &device.name, State::Loading) };
        let wish = self.table.lock().load(&place, &path, loading);
        match wish {
            Load::Stale => {}
            Load::Known => self.tell(worker),
            Load::Start(load, replaced) => {
                if let Some(old) = replaced {
                    device.executor.remove(place.model.clone(), old, Box::new(|| {}));
                }
                let owner = worker.clone();
                if is_fetched(&path) {
                    // Other loads must not wait for what comes over a link.
                    let fetch = move || owner.residency().fetch(&owner, place, &path, &peers, load);
                    return crate::lane::aside("orion-fetch", fetch);
                }
                device
                    .loads
                    .put(move || owner.residency().open(&owner, &place, Local { path: path.into(), pin: None }, load));
            }
        }
    }

    /// Brings a model of the store to this machine, then to its device.
    fn fetch(&self, worker: &Arc<Worker>, place: Place, path: &str, peers: &[String], load: u64) {
        let device = &self.devices[place.device];
        let progress = |share: f32| {
            let loading = report(&place.model, &device.name, State::Loading);
            self.update(worker, &place, load, ModelReport { progress: share / 2.0, ..loading });
        };
        match local(worker, path, peers, &progress) {
            Ok(local) => {
                let owner = worker.clone();
                device.loads.put(move || owner.residency().open(&owner, &place, local, load));
            }
            Err(error) => self.failed(worker, &place, load, &error),
        }
    }

    fn open(&self, worker: &Arc<Worker>, place: &Place, local: Local, load: u64) {
        // Given up while it waited: the next in line must not wait for it.
        if !self.table.lock().wants(place, load) {
            return self.gone(worker, place, load);
        }
        // A loader that panics must not leave the model loading for ever.
        let bring = || self.bring(worker, place, local, load);
        let brought = std::panic::catch_unwind(std::panic::AssertUnwindSafe(bring));
        let panicked =
            |_| Err(Error::new(Code::Internal, "loading it failed unexpectedly, the worker's log says where"));
        if let Err(error) = brought.unwrap_or_else(panicked) {
            self.failed(worker, place, load, &error);
        }
    }

    /// Brings a model to its device.
    fn bring(&self, worker: &Arc<Worker>, place: &Place, local: Local, load: u64) -> Result<()> {
        let (started, device) = (Instant::now(), &self.devices[place.device]);
        let manifest = inspect(&place.model, &local.path)?;
        let expected = device.expect(&manifest, &self.measured.lock())?;
        let memory = device.reserve(&manifest)?;
        let loading = told(report(&place.model, &device.name, State::Loading), &manifest.spec, expected);
        self.update(worker, place, load, loading.clone());
        let progress = |share: f32| {
            self.update(worker, place, load, ModelReport { progress: share, ..loading.clone() });
        };
        let moving = device.moves.begin();
        let model = orion_models::load_at(&manifest, &device.pace, &progress)?;
        drop(moving);
        let load_seconds = started.elapsed().as_secs_f64();
        let ready = move |device: &Device, warm: WarmedUp| ModelReport {
            progress: 1.0,
            peak_bytes: warm.peak_bytes,
            ..told(
                report(manifest.spec.name.as_str(), &device.name, State::Ready),
                &manifest.spec,
                Timing { curve: warm.curve, load_seconds },
            )
        };
        let known = match &model {
            InMemory::Model(model) => known_figures(&**model),
            InMemory::Generator(_) => None,
        };
        let loaded = Loaded { name: place.model.clone(), load, model, memory, pin: local.pin };
        let Some(warm) = known else {
            let (owner, place) = (worker.clone(), place.clone());
            let installed = move |measured: Result<WarmedUp>| {
                let residency = owner.residency();
                match measured {
                    Ok(warm) => residency.ready(&owner, &place, load, ready(&residency.devices[place.device], warm)),
                    Err(error) => residency.failed(&owner, &place, load, &error),
                }
            };
            device.executor.install(loaded, Box::new(installed));
            return Ok(());
        };
        // Nothing to be measured: whatever is sent from now on comes after it in the executor's queue.
        device.executor.install(loaded, Box::new(|_| {}));
        self.ready(worker, place, load, ready(device, warm));
        Ok(())
    }

    /// A model is on its device. Unloaded meanwhile: what was just put there leaves it again.
    fn ready(&self, worker: &Arc<Worker>, place: &Place, load: u64, report: ModelReport) {
        if !self.update(worker, place, load, report) {
            self.remove(worker, place, load);
        }
    }

    fn remove(&self, worker: &Arc<Worker>, place: &Place, load: u64) {
        let (owner, left) = (worker.clone(), place.clone());
        let gone = move || owner.residency().gone(&owner, &left, load);
        self.devices[place.device].executor.remove(place.model.clone(), load, Box::new(gone));
    }

    pub(crate) fn unload(&self, worker: &Arc<Worker>, request: UnloadModel) {
        let UnloadModel { name, order, device } = request;
        if name == orion_models::IDENTITY {
            return;
        }
        let Ok(device) = self.device(&device) else {
            let unloaded = ModelReport { order, ..report(&name, &device, State::Unloaded) };
            return self.say(worker, unloaded);
        };
        let unloaded = ModelReport { order, ..report(&name, &self.devices[device].name, State::Unloaded) };
        let place = Place { model: name, device };
        let wish = self.table.lock().unload(&place, unloaded);
        match wish {
            Unload::Stale | Unload::Underway => {}
            Unload::Nothing => self.tell(worker),
            Unload::Drop(load) => self.remove(worker, &place, load),
        }
    }

    /// Says what a model is and what it would take on each device; reads headers alone, on a thread of its own.
    pub(crate) fn inspect(&self, worker: &Arc<Worker>, request: InspectModel) {
        let owner = worker.clone();
        let is_stored = is_fetched(&request.path);
        let inspect = move || {
            let InspectModel { name, path, order, peers } = request;
            let local = local(&owner, &path, &peers, &|_| {});
            let found =
                local.and_then(|local| owner.residency().inspected(&name, &local.path)).unwrap_or_else(|error| {
                    vec![ModelReport { error: reason(&error), ..report(&name, "", State::Failed) }]
                });
            for report in found {
                owner.residency().say(&owner, ModelReport { order, ..report });
            }
        };
        match is_stored {
            true => crate::lane::aside("orion-fetch", inspect),
            false => self.inspections.put(inspect),
        }
    }

    fn inspected(&self, name: &str, path: &Path) -> Result<Vec<ModelReport>> {
        let manifest = inspect(name, path)?;
        let measured = *self.measured.lock();
        let on = |device: &Device| {
            let timing = device.expect(&manifest, &measured)?;
            Ok(told(report(name, &device.name, State::Inspected), &manifest.spec, timing))
        };
        let (mut reports, mut refusal) = (Vec::new(), None);
        for device in &self.devices {
            match on(device) {
                Ok(report) => reports.push(report),
                Err(error) => refusal = Some(error),
            }
        }
        match refusal {
            Some(error) if reports.is_empty() => Err(error),
            _ => Ok(reports),
        }
    }

    fn failed(&self, worker: &Worker, place: &Place, load: u64, error: &Error) {
        tracing::warn!(model = place.model, %error, "model_load_failed");
        let failed = report(&place.model, &self.devices[place.device].name, State::Failed);
        if !self.update(worker, place, load, ModelReport { error: reason(error), ..failed }) {
            self.gone(worker, place, load);
        }
    }

    /// The memory of a load is free, which is told if somebody waits for it.
    fn gone(&self, worker: &Worker, place: &Place, load: u64) {
        self.table.lock().gone(place, load);
        self.tell(worker);
    }

    /// Puts a report in place and tells it, unless this load was given up. Says whether it was told.
    fn update(&self, worker: &Worker, place: &Place, load: u64, report: ModelReport) -> bool {
        let wanted = self.table.lock().update(place, load, report);
        self.tell(worker);
        wanted
    }
}

fn report(name: &str, device: &str, state: State) -> ModelReport {
    let mut report = ModelReport { name: name.into(), device: device.into(), ..Default::default() };
    report.set_state(state);
    report
}

fn told(report: ModelReport, spec: &ModelSpec, timing: Timing) -> ModelReport {
    let Timing { curve, load_seconds } = timing;
    ModelReport { spec: Some(spec.into()), curve: Some(curve.into()), load_seconds, ..report }
}

fn reason(error: &Error) -> String {
    let mut reason = error.message.clone();
    reason.truncate((0..=REASON_BYTES).rev().find(|at| reason.is_char_boundary(*at)).unwrap_or(0));
    reason
}
