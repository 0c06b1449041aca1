//! The scheduler's decisions: admission, queues, placement, dispatch, settlement.
//!
//! Plain synchronous code over `now` (nanoseconds since the scheduler started): no clock, no I/O, no thread. Each input
//! may push [`Command`]s, which the shell carries out after it has let go of the lock.

mod admission;
mod ageing;
mod alarm;
mod arrivals;
mod booking;
mod bound;
mod candidates;
mod catalogue;
mod claim;
mod cluster;
mod command;
mod cordon;
mod cost;
mod course;
mod crowding;
mod curve;
mod decode_time;
mod device;
mod dispatch;
mod drain;
mod evict;
mod explain;
mod fade;
mod failed_load;
mod fetching;
mod filter;
mod fit;
mod fuse;
mod generate;
mod hedge;
mod interrupt;
mod ledger;
mod load_time;
mod memory;
mod order;
mod peak;
mod peers;
mod placement;
mod preempt;
mod prefill;
mod prefix;
mod prefix_cache;
mod prompt_report;
mod queue;
mod readiness;
mod reading;
mod reclaim;
mod refuse;
mod replica;
mod request;
mod rescue;
mod resume;
mod retry;
mod rivals;
mod sequences;
mod settle;
mod stalled;
mod submit;
mod target;
mod telemetry;
mod tenants;
mod trainers;
mod trust;
mod turn;
mod unload;
mod view;
mod work;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use orion_net::RetryBudget;
use orion_proto::Requirements;
use slab::Slab;

pub use catalogue::{ModelState, Statistics};
pub use cluster::{IN_PROCESS, Joined, WorkerState};
pub use command::Command;
pub use cordon::Cordon;
pub use generate::{Listener, Opening};
pub use memory::Remembered;
pub use prefix::Prefix;
pub use reclaim::Reclaimed;
pub use replica::Report;
pub use request::{Admitted, RequestKey};
pub use view::{ModelView, Totals};

use catalogue::Model;
use cluster::Worker;
use device::{Device, KnownClass};
use dispatch::Running;
use explain::Traces;
use replica::Replica;
use request::Request;
use tenants::Tenants;

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
    /// Bytes a second that the scheduler relays between workers; 0: none.
    pub relay_bytes_per_second: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests: 16 * 1024,
            bytes: 2 << 30,
            attempts: 3,
            orphan_grace: Duration::from_secs(10),
            relay_bytes_per_second: 64_000_000,
        }
    }
}

/// Lists that every input needs anew: kept, so that none is allocated.
#[derive(Debug, Default)]
struct Scratch {
    models: Vec<(Nanos, usize)>,
    needs: Vec<(f64, usize)>,
    full: Vec<target::Full>,
    takers: Vec<(Nanos, usize)>,
    left: rivals::LeftLanes,
}

/// Models whose queues are offered again when time passes.
const OFFERED: usize = 256;

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
    devices: Slab<Device>,
    classes: Vec<KnownClass>,
    replicas: Slab<Replica>,
    tenants: Tenants,
    budget: RetryBudget,
    /// For halving failed batches, and for trying elsewhere what failed alone.
    blame_budget: RetryBudget,
    /// Predicted time of everything that waits.
    queued_work: Nanos,
    /// Models that wait and have no copy, by requests for each second of copying.
    homeless: BTreeSet<(u64, usize)>,
    /// Models whose holders drain their queues too late, by the same.
    wanting: BTreeSet<(u64, usize)>,
    /// Models that wait and have no copy, by the time from which on one of their requests is past its objective.
    claims: BTreeSet<(Nanos, usize)>,
    /// Whether any model's balancer binds requests on arrival, or its sequences do.
    binds: bool,
    /// Until then no batch that may be run a second time is late.
    straggles_from: Nanos,
    /// Devices whose copy engine is busy.
    copying: usize,
    /// Models of which a copy is wanted whatever the load.
    unplaced: BTreeSet<usize>,
    /// Devices that pass the filters, by what models need.
    suitable: Vec<(Requirements, bool, Arc<[usize]>)>,
    remembered: memory::Memory,
    traces: Traces,
    /// When busy devices take their next batch.
    alarms: alarm::Alarms,
    cursor: usize,
    offered_from: usize,
    wished_from: usize,
    /// The same for copies that queues need.
    needs_from: usize,
    faded_from: usize,
    /// Models that workers are to be asked about, which have enough to read for now.
    unasked: BTreeSet<usize>,
    fetching: fetching::Fetching,
    reclaim: reclaim::Reclaim,
    /// What operators made of nodes that are not here.
    cordons: BTreeMap<String, Cordon>,
    asked_from: usize,
    scratch: Scratch,
    /// Models of which a sequence's next request waits for its replica, to be given out once the input is dealt with.
    turned: Vec<usize>,
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
            devices: Slab::new(),
            classes: Vec::new(),
            replicas: Slab::new(),
            tenants: Tenants::default(),
            budget: RetryBudget::default(),
            blame_budget: RetryBudget::for_blame(),
            queued_work: 0,
            homeless: BTreeSet::new(),
            wanting: BTreeSet::new(),
            claims: BTreeSet::new(),
            binds: false,
            straggles_from: Nanos::MAX,
            copying: 0,
            unplaced: BTreeSet::new(),
            suitable: Vec::new(),
            remembered: memory::Memory::default(),
            traces: Traces::default(),
            alarms: alarm::Alarms::new(),
            cursor: 0,
            offered_from: 0,
            wished_from: 0,
            needs_from: 0,
            faded_from: 0,
            unasked: BTreeSet::new(),
            fetching: fetching::Fetching::default(),
            reclaim: reclaim::Reclaim::default(),
            cordons: BTreeMap::new(),
            asked_from: 0,
            scratch: Scratch::default(),
            turned: Vec::new(),
            requests: Slab::new(),
            request_bytes: 0,
            batches: BTreeMap::new(),
            // Another range than that of any other epoch: a worker that outlived a scheduler cannot mix their batches up.
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

    /// The same of clients: what jobs ask is asked again by whoever leads next.
    pub fn unsettled_of_clients(&self) -> usize {
        self.requests.iter().filter(|(_, request)| !request.request.parameters.of_job).count()
    }

    /// This scheduler's epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Time passes: leases end, requests whose workers do not come back are answered.
    pub fn tick(&mut self, now: Nanos) {
        self.forget_moves();
        self.end_leases(now);
        self.end_reclaiming(now);
        self.let_go(now);
        self.free_stalled(now);
        self.free_stuck_loads(now);
        self.hedge_stragglers(now);
        self.answer_orphans(now);
        self.fade_beliefs(now);
        self.ask_as_time_passes();
        self.prefetch(now);
        self.settle_wishes(now);
        self.offer_again(now);
        self.clear_generators(now);
        self.take_turns(now);
    }

    /// What was left to busier devices may be better off with an idle one by now.
    fn offer_again(&mut self, now: Nanos) {
        let models = self.models.len();
        let mut offered = 0;
        for step in 0..models {
            let index = (self.offered_from + step) % models;
            if !self.models[index].queue.is_empty() {
                offered += 1;
                self.start_waiting(now, index);
            }
            if offered == OFFERED {
                self.offered_from = index + 1;
                return;
            }
        }
    }

    fn number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }
}

fn nanos(duration: Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX)
}

#[cfg(test)]
mod tests;
