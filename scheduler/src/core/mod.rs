//! The scheduler's decisions: admission, queues, placement, dispatch, settlement.
//!
//! Plain synchronous code over `now` (nanoseconds since the scheduler started): no clock, no I/O, no thread. Each input
//! may push [`Command`]s, which the shell carries out after it has let go of the lock.

mod catalogue;
mod cluster;
mod curve;
mod dispatch;
mod queue;
mod settle;
mod view;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use orion_net::Batch;
use orion_proto::{Error, InferAnswer, ModelSpec, Result};
use slab::Slab;

pub use catalogue::{ModelState, Report, Statistics};
pub use cluster::{IN_PROCESS, Joined, WorkerState};
pub use queue::{Admitted, RequestKey};
pub use view::{ModelView, Totals};

use catalogue::Model;
use cluster::Worker;
use dispatch::Running;
use queue::Request;

/// Nanoseconds since the scheduler started.
pub type Nanos = u64;

/// The limits that the core keeps.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Requests that may wait or run at once.
    pub requests: usize,
    /// Bytes of their tensors.
    pub bytes: usize,
    /// Tries that a request gets.
    pub attempts: u32,
    /// How long accepted requests wait for a lost worker to come back when no other can run them.
    pub orphan_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { requests: 16 * 1024, bytes: 2 << 30, attempts: 3, orphan_grace: Duration::from_secs(10) }
    }
}

/// What the shell is to do. `T` is whatever answers a request, `L` whatever reaches a worker.
#[derive(Debug)]
pub enum Command<T, L> {
    /// Hand a batch to a worker.
    Run {
        /// The worker.
        link: L,
        /// The batch.
        batch: Batch,
    },
    /// Answer a request.
    Settle {
        /// Who waits for it.
        ticket: T,
        /// The model that was asked.
        spec: Arc<ModelSpec>,
        /// The answer.
        outcome: Result<InferAnswer>,
    },
    /// Have a worker load a model from a path.
    Load {
        /// The worker.
        link: L,
        /// The served name.
        name: Arc<str>,
        /// Where it lies.
        path: String,
        /// Grows with every load and unload.
        order: u64,
    },
    /// Have a worker unload a model.
    Unload {
        /// The worker.
        link: L,
        /// The served name.
        name: Arc<str>,
        /// Grows with every load and unload.
        order: u64,
    },
    /// End a session that this scheduler has given up, so that its worker joins anew.
    Close {
        /// The worker.
        link: L,
        /// Why.
        reason: &'static str,
    },
    /// Tell a worker that nobody waits for an attempt any more.
    Cancel {
        /// The worker.
        link: L,
        /// The batch.
        batch: u64,
        /// The attempt.
        attempt: u64,
    },
    /// Tell a draining worker that it has nothing left to do.
    Drained {
        /// The worker.
        link: L,
    },
}

/// Bits of a number below its epoch, which counts milliseconds since 1970: four million a millisecond.
const EPOCH_BITS: u32 = 22;

/// The scheduler's state.
#[derive(Debug)]
pub struct Core<T, L> {
    epoch: u64,
    limits: Limits,
    draining: bool,
    models: Vec<Model>,
    model_names: HashMap<Arc<str>, usize>,
    workers: Vec<Worker<L>>,
    requests: Slab<Request<T>>,
    request_bytes: usize,
    batches: BTreeMap<u64, Running>,
    next_number: u64,
    totals: Totals,
    /// Whether a model or a worker changed its state since this was last asked.
    changed: bool,
    sessions: HashMap<u64, usize>,
    commands: Vec<Command<T, L>>,
}

impl<T, L: Clone> Core<T, L> {
    /// A scheduler without workers, which knows the built-in model `identity`.
    pub fn new(epoch: u64, limits: Limits) -> Self {
        let mut core = Self {
            epoch,
            limits,
            draining: false,
            models: Vec::new(),
            model_names: HashMap::new(),
            workers: Vec::new(),
            requests: Slab::new(),
            request_bytes: 0,
            batches: BTreeMap::new(),
            // Above every number of an earlier epoch: a worker that outlived a scheduler cannot mix their batches up.
            next_number: (epoch << EPOCH_BITS) | 1,
            totals: Totals::default(),
            changed: false,
            sessions: HashMap::new(),
            commands: Vec::new(),
        };
        let identity = core.know(&Arc::from("identity"));
        core.models[identity].built_in = true;
        core
    }

    /// Takes the commands that inputs have left, in order.
    pub fn take_commands(&mut self) -> Vec<Command<T, L>> {
        std::mem::take(&mut self.commands)
    }

    /// Whether a model or a worker changed its state since this was last asked.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// New requests are refused from now on; those that were accepted are finished.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Whether [`Core::drain`] was called.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Requests that wait or run.
    pub fn unsettled(&self) -> usize {
        self.requests.len()
    }

    /// This scheduler's epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Time passes: leases end, requests whose workers do not come back are answered.
    pub fn tick(&mut self, now: Nanos) {
        self.end_leases(now);
        self.answer_orphans(now);
        self.dispatch(now);
    }

    fn number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }

    fn not_ready(&self, index: usize) -> Error {
        self.models[index].not_ready(&self.workers)
    }
}

fn nanos(duration: Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX)
}

#[cfg(test)]
mod tests;
