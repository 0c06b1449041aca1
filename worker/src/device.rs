//! A device on which this worker runs models: its executor, its memory, and how models are brought to it.

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicUsize},
};

use orion_models::{GeneratorLoad, Manifest, Pace, Timing};
use orion_proto::{
    Code, Error, ModelName, Result, ServiceCurve,
    session::{Capability, DeviceTelemetry, GeneratorTelemetry, Measurement},
};

use crate::{
    executor::Executor,
    inventory::Memory,
    lane::Lane,
    peak::Moves,
    simulate::{Ledger, Reservation, Simulation},
};

/// A usable device.
pub(crate) struct Device {
    pub(crate) name: Arc<str>,
    pub(crate) executor: Executor,
    /// Where its loads are done, one at a time. Real devices of a worker share one: two loads that see the same free
    /// memory would together take more than there is.
    pub(crate) loads: Lane,
    /// Models that come to this process's memory or leave it.
    pub(crate) moves: Arc<Moves>,
    /// The speed that simulated models follow.
    pub(crate) pace: Arc<Pace>,
    /// Its memory, if it is emulated.
    ledger: Option<Arc<Ledger>>,
}

impl Device {
    /// The devices of this machine that this build can run models on.
    pub(crate) fn of_this_machine(capability: &Capability, busy: &Arc<AtomicUsize>) -> Result<Vec<Self>> {
        let cores = capability.logical_cores.max(1) as usize;
        let (loads, moves) = (Lane::start("orion-load")?, Arc::<Moves>::default());
        let usable = capability.devices.iter().filter(|device| device.usable);
        let start = |device: &orion_proto::session::Device| {
            let name: Arc<str> = Arc::from(device.name.as_str());
            let executor = Executor::start(name.clone(), cores, busy.clone(), moves.clone())?;
            let (loads, moves) = (loads.clone(), moves.clone());
            Ok(Self { name, executor, loads, moves, pace: Arc::default(), ledger: None })
        };
        usable.map(start).collect()
    }

    /// Emulated devices; each has a copy engine of its own.
    pub(crate) fn emulated(simulation: &Simulation, busy: &Arc<AtomicUsize>) -> Result<Vec<Self>> {
        let start = |device: &crate::simulate::SimulatedDevice| {
            let name: Arc<str> = Arc::from(device.name.as_str());
            let moves = Arc::<Moves>::default();
            Ok(Self {
                executor: Executor::start(name.clone(), 1, busy.clone(), moves.clone())?,
                moves,
                loads: Lane::start(&format!("orion-copy-{name}"))?,
                name,
                pace: Arc::new(device.pace.clone()),
                ledger: Some(Ledger::new(device.memory_bytes)),
            })
        };
        simulation.devices.iter().map(start).collect()
    }

    /// What a model will take here, as far as it is known before it ran.
    ///
    /// # Errors
    /// FAILED_PRECONDITION for a model that computes on a device that cannot.
    pub(crate) fn expect(&self, manifest: &Manifest, measured: &Measurement) -> Result<Timing> {
        match manifest.timing(&self.pace) {
            Some(timing) => Ok(timing),
            None if self.ledger.is_some() => Err(Error::new(
                Code::FailedPrecondition,
                format!(
                    "model '{}' computes, device {} is emulated and runs only models of kind = \"simulated\"",
                    manifest.spec.name, self.name
                ),
            )),
            None => Ok(seed(manifest, measured)),
        }
    }

    /// Sees that a model fits, and holds its place on an emulated device.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED naming what it needs and what is free.
    pub(crate) fn reserve(&self, manifest: &Manifest) -> Result<Option<Reservation>> {
        let (name, needed) = (&manifest.spec.name, manifest.spec.memory_bytes);
        let reserved = match &self.ledger {
            Some(ledger) => ledger.reserve(needed).map(Some),
            // What batches take is held only while they run.
            None => match Memory::read().free_bytes.saturating_sub(self.executor.room()) {
                free if needed > free => Err(free),
                _ => Ok(None),
            },
        };
        reserved.map_err(|free| {
            let text = format!("model '{name}' needs {needed} bytes of memory on {}, {free} are free", self.name);
            Error::new(Code::ResourceExhausted, text)
        })
    }

    /// How its generators are filled.
    pub(crate) fn generators(&self) -> Vec<GeneratorTelemetry> {
        let count = |sequences: usize| u32::try_from(sequences).unwrap_or(u32::MAX);
        let told = |(model, load): (String, GeneratorLoad)| GeneratorTelemetry {
            model,
            running: count(load.running),
            waiting: count(load.waiting),
            cache_bytes: load.cache_bytes,
            held_bytes: load.held_bytes,
            kept_bytes: load.kept_bytes,
        };
        self.executor.loads().into_iter().map(told).collect()
    }

    /// How an emulated device is now; of a real one the inventory tells.
    pub(crate) fn telemetry(&self) -> Option<DeviceTelemetry> {
        self.ledger.as_ref().map(|ledger| DeviceTelemetry {
            name: self.name.to_string(),
            // 0 would say that it is not known.
            memory_free_bytes: ledger.free_bytes().max(1),
            ..DeviceTelemetry::default()
        })
    }
}

/// Reads a model's headers.
pub(crate) fn inspect(name: &str, path: &Path) -> Result<Manifest> {
    orion_models::inspect(&ModelName::new(name)?, path)
}

/// Before the first batch: the weights are read once, the arithmetic is done at the measured rate.
fn seed(manifest: &Manifest, measured: &Measurement) -> Timing {
    let per = |amount: f64, rate: f64| if rate > 0.0 { amount / rate } else { 0.0 };
    let weights = manifest.weight_bytes as f64;
    Timing {
        curve: ServiceCurve {
            base_seconds: per(weights, measured.memory_bytes_per_second),
            per_row_seconds: per(manifest.flops_per_row, measured.f32_flops),
        },
        load_seconds: per(weights, measured.disk_read_bytes_per_second),
    }
}

#[cfg(test)]
mod tests {
    use orion_proto::session::Device as Described;

    use super::*;
    use crate::executor::Loaded;

    #[test]
    fn room_is_kept_for_the_batches_of_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let text = "kind = \"simulated\"\n[simulated]\nmemory_bytes = 1\npeak_bytes = 1152921504606846976";
        std::fs::write(folder.path().join("orion.toml"), text).unwrap();
        let manifest = inspect("m", folder.path()).unwrap();
        let described = Described { name: "cpu0".into(), usable: true, ..Described::default() };
        let capability = Capability { devices: vec![described], ..Capability::default() };
        let device = Device::of_this_machine(&capability, &Arc::default()).unwrap().remove(0);
        assert!(device.reserve(&manifest).is_ok());
        let model = orion_models::load_at(&manifest, &device.pace, &|_| {}).unwrap();
        let (told, installed) = std::sync::mpsc::channel();
        let loaded = Loaded { name: "m".into(), load: 1, model, memory: None, pin: None };
        device.executor.install(loaded, Box::new(move |warm| told.send(warm.is_ok()).unwrap()));
        assert!(installed.recv().unwrap());
        let refused = device.reserve(&manifest).unwrap_err();
        assert_eq!(refused.code, Code::ResourceExhausted);
        assert!(refused.message.ends_with("needs 1 bytes of memory on cpu0, 0 are free"), "{refused}");
    }
}
