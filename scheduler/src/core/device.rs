//! One device of a worker: its bookings, its memory, and what lives on it.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use orion_proto::session;

use super::{Core, Nanos, claim::Claim, ledger::Ledger, turn::Turn};

/// A device as placement and dispatch see it.
#[derive(Debug)]
pub(super) struct Device {
    pub worker: usize,
    pub name: Arc<str>,
    /// As the worker described it.
    pub info: session::Device,
    /// Of its kind: devices of one class are predicted by one another's curves.
    pub class: usize,
    /// When what it was given will be done, as predicted.
    pub booked_until: Nanos,
    pub batches: Vec<u64>,
    /// A batch stands still there: nothing is given to it until that ends.
    pub stalled: bool,
    /// When it will take another, while it runs some.
    pub alarm: Option<Nanos>,
    /// Batches of inline models and of generators: they run beside the device's batches.
    pub beside: usize,
    /// Replicas that hold or await its memory.
    pub residents: Vec<usize>,
    /// The replica that its copy engine is busy with, or waits to be.
    pub loading: Option<usize>,
    pub ledger: Ledger,
    /// Its share of the predicted work that waits for models it holds.
    pub queued: Nanos,
    /// Time that requests past their objective may claim before others; below 0 they have had more.
    pub overdue_credit: i64,
    /// The same for the loads of models that are nowhere.
    pub turn_credit: i64,
    /// The model that has been brought from it.
    pub turn: Option<Turn>,
    /// The model for whose turn it is being cleared.
    pub claim: Option<Claim>,
    /// Where it goes on to look for one.
    pub claims_from: (Nanos, usize),
    /// Clearing it took too long: until then it is not tried again.
    pub no_turns_until: Nanos,
    /// Until when no other turn is had for nothing: what was pushed out comes back for as long as it was away.
    pub rests_until: Nanos,
    /// The same for the same device of the same worker, whatever the session: balancers remember it.
    pub hash: u64,
}

/// Devices that are told apart by nothing that changes a prediction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct DeviceClass {
    pub fingerprint: String,
    pub kind: String,
    pub model: String,
}

/// A class, with what its workers' processors measured: 0 until one did.
#[derive(Clone, Debug)]
pub(super) struct KnownClass {
    pub class: DeviceClass,
    /// Single-precision operations a second.
    pub flops: f64,
}

impl Device {
    pub(super) fn new(worker: usize, worker_name: &str, info: session::Device, class: usize) -> Self {
        let mut hasher = DefaultHasher::new();
        (worker_name, &info.name).hash(&mut hasher);
        let hash = hasher.finish();
        Self {
            worker,
            name: Arc::from(info.name.as_str()),
            class,
            booked_until: 0,
            batches: Vec::new(),
            stalled: false,
            alarm: None,
            beside: 0,
            residents: Vec::new(),
            loading: None,
            ledger: Ledger::new(info.memory_total_bytes, info.memory_free_bytes),
            queued: 0,
            overdue_credit: 0,
            turn_credit: 0,
            turn: None,
            claim: None,
            claims_from: (0, 0),
            no_turns_until: 0,
            rests_until: 0,
            hash,
            info,
        }
    }

    /// Predicted time until what it runs is done. A batch that is late is expected to take as long again as it is late.
    pub(super) fn remaining(&self, now: Nanos) -> Nanos {
        match self.batches.is_empty() {
            true => 0,
            false => self.booked_until.abs_diff(now).max(1),
        }
    }

    /// All predicted work there: running, booked and waiting.
    pub(super) fn load(&self, now: Nanos) -> Nanos {
        self.remaining(now).saturating_add(self.queued)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.batches.is_empty() && self.beside == 0
    }
}

impl<T, L: Clone> Core<T, L> {
    /// The class of a device, known from now on.
    pub(super) fn class_of(&mut self, fingerprint: &str, device: &session::Device) -> usize {
        let class =
            DeviceClass { fingerprint: fingerprint.to_owned(), kind: device.kind.clone(), model: device.model.clone() };
        let known = self.classes.iter().position(|known| known.class == class);
        known.unwrap_or_else(|| {
            self.classes.push(KnownClass { class, flops: 0.0 });
            self.classes.len() - 1
        })
    }

    /// One-way delay, its jitter and preparation.
    pub(super) fn lead(&self, device: usize) -> Nanos {
        self.workers[self.devices[device].worker].lead
    }

    /// When a batch given to this device now would start there.
    pub(super) fn available(&self, now: Nanos, device: usize) -> Nanos {
        let device = &self.devices[device];
        let lead = self.workers[device.worker].lead;
        now.saturating_add(device.remaining(now).max(lead))
    }
}
