//! Workers with bounded memory around a core: they do what they are told, badly where a test wants that.

mod answers;
mod carry_out;
mod memory;

use carry_out::device_number;
pub(super) use carry_out::{Told, model, ticket};

use std::collections::{BTreeMap, HashMap, VecDeque};

use orion_net::Batch;
use orion_proto::{
    Code, Datatype, Error, InferAnswer, InferRequest, ModelName, ModelPolicy, ModelSpec, Parameters, ServiceCurve,
    TensorSpec, session,
};

use super::*;

/// Seconds that each batch is said to have waited on its worker.
pub(super) const WAITED: f64 = 0.0005;

/// A worker, a device of it, and when the model was loaded there.
pub(super) type Whereabouts = (usize, usize, u64);

/// Whether a command goes to the worker of this link.
fn is_for(command: &Command<u64, u64>, at: u64) -> bool {
    match command {
        Command::Settle { .. } | Command::Tell { .. } => false,
        Command::Run { link, .. }
        | Command::Inspect { link, .. }
        | Command::Pull { link, .. }
        | Command::Load { link, .. }
        | Command::Unload { link, .. }
        | Command::Cancel { link, .. }
        | Command::Drained { link, .. }
        | Command::Close { link, .. } => *link == at,
    }
}

/// What a batch holds of jobs, as its worker says it.
fn of_jobs(batch: &Batch) -> session::HeldBatch {
    let attempts = batch.attempts.iter().filter_map(|attempt| {
        let job = attempt.request.parameters.job?;
        let job = Some(session::JobAttempt { job: job.job, attempt: job.attempt });
        Some(session::HeldAttempt { attempt: attempt.attempt, job })
    });
    let device = u32::try_from(device_number(&batch.device)).unwrap();
    session::HeldBatch { batch: batch.batch, epoch: batch.epoch, device, attempts: attempts.collect() }
}

/// A request as a test sends it; it waits for ever unless told otherwise.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) model: usize,
    pub(super) rows: usize,
    pub(super) deadline: Option<Nanos>,
    pub(super) parameters: Parameters,
}

impl Ask {
    pub(super) fn of(model: usize) -> Self {
        Self { model, rows: 1, deadline: None, parameters: Parameters::default() }
    }
}

/// What becomes of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Ok,
    /// Each of its requests fails with this code: a fault of the whole batch.
    All(Code),
    /// The first fails by itself, the others are answered.
    First,
    /// Requests with a routing key of 13 spoil each batch that they are in.
    Poison,
}

/// A model on a device of a worker, as it really is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resident {
    pub(super) bytes: u64,
    pub(super) state: ModelState,
    pub(super) order: u64,
    /// Unique among all loads: a model that is loaded again has no state of before.
    pub(super) born: u64,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) session: u64,
    pub(super) incarnation: u64,
    /// Times that it joined as one that was not there before.
    pub(super) life: u64,
    /// The connection that commands reach it by; none while it is cut.
    pub(super) link: Option<u64>,
    pub(super) devices: Vec<u64>,
    /// Of its devices.
    pub(super) kind: &'static str,
    pub(super) residents: BTreeMap<(usize, usize), Resident>,
    pub(super) orders: HashMap<(usize, usize), u64>,
    pub(super) batches: VecDeque<Batch>,
    pub(super) round_trip: f64,
}

/// What is known of a request from outside of the core.
#[derive(Debug, Default)]
pub(super) struct Sent {
    pub(super) key: Option<RequestKey>,
    pub(super) rows: usize,
    pub(super) idempotent: bool,
    pub(super) deadline: Option<Nanos>,
    /// Runs that reached a worker or were lost on the way, but for those that were bisected.
    pub(super) runs: u32,
    /// Where a worker said that it failed.
    pub(super) failed_on: Vec<(usize, u64, usize)>,
    pub(super) answers: Vec<std::result::Result<(), Code>>,
    pub(super) cancelled: bool,
    pub(super) begun: bool,
}

pub(super) struct World {
    pub(super) core: TestCore,
    pub(super) now: Nanos,
    pub(super) specs: Vec<Arc<ModelSpec>>,
    pub(super) curves: Vec<ServiceCurve>,
    /// Bytes that each row of a batch takes beside the weights.
    pub(super) peaks: Vec<u64>,
    pub(super) nodes: Vec<Node>,
    pub(super) sent: BTreeMap<u64, Sent>,
    /// Loads and unloads are answered at once.
    pub(super) prompt: bool,
    pub(super) loads: u64,
    /// Of the devices of the workers to come.
    pub(super) next_kind: &'static str,
    pub(super) ran: Vec<(usize, usize, Vec<u64>)>,
    /// Bytes of a request's row.
    pub(super) row_bytes: usize,
    /// What batches take beside the weights, as workers tell it.
    pub(super) peak_bytes: u64,
    /// What loads take, as workers tell it.
    pub(super) load_seconds: f64,
    /// Where each sequence of a model went on last, and its last request.
    pub(super) states: HashMap<(usize, u64), (Whereabouts, u64)>,
    /// Every command, in order.
    pub(super) told: Vec<Told>,
    links: u64,
    /// Who could have run a request instead, before the input.
    holders: Vec<Vec<(usize, usize)>>,
}

impl World {
    /// Models that are wanted, and workers (the bytes of each of their devices) that have joined.
    pub(super) fn new(specs: Vec<ModelSpec>, workers: &[&[u64]]) -> Self {
        let mut world = Self {
            core: TestCore::new(7, Limits::default()),
            now: MS,
            curves: vec![ServiceCurve { base_seconds: 0.004, per_row_seconds: 0.001 }; specs.len()],
            peaks: vec![0; specs.len()],
            specs: specs.into_iter().map(Arc::new).collect(),
            nodes: Vec::new(),
            sent: BTreeMap::new(),
            prompt: true,
            loads: 0,
            next_kind: "cpu",
            ran: Vec::new(),
            row_bytes: 8,
            peak_bytes: 0,
            load_seconds: 0.1,
            states: HashMap::new(),
            told: Vec::new(),
            links: 0,
            holders: Vec::new(),
        };
        for spec in world.specs.clone() {
            if !spec.inline {
                world.core.want(world.now, &spec.name, format!("/{}", spec.name), false);
            }
        }
        for devices in workers {
            world.add(devices, 0.0);
        }
        world
    }

    /// One more worker.
    pub(super) fn add(&mut self, devices: &[u64], round_trip: f64) -> usize {
        let at = self.nodes.len();
        self.nodes.push(Node {
            name: format!("w{at}"),
            session: 0,
            incarnation: 1,
            life: 0,
            link: None,
            devices: devices.to_vec(),
            kind: self.next_kind,
            residents: BTreeMap::new(),
            orders: HashMap::new(),
            batches: VecDeque::new(),
            round_trip,
        });
        assert!(self.join(at), "a new worker may join");
        at
    }

    pub(super) fn hello(&self, at: usize) -> session::Hello {
        let node = &self.nodes[at];
        let device = |(device, total): (usize, &u64)| session::Device {
            name: format!("d{device}"),
            kind: node.kind.into(),
            usable: true,
            memory_total_bytes: *total,
            // 0 would say that it is not known.
            memory_free_bytes: (total - self.held(at, device)).max(1),
            ..Default::default()
        };
        session::Hello {
            name: node.name.clone(),
            incarnation: node.incarnation,
            capability: Some(session::Capability {
                devices: node.devices.iter().enumerate().map(device).collect(),
                ..Default::default()
            }),
            holding: node.batches.iter().map(|batch| batch.batch).collect(),
            jobs: node.batches.iter().map(of_jobs).collect(),
            ..Default::default()
        }
    }

    /// The scheduler is gone, and another begins: workers have to join that. Nobody waits for what was asked before.
    pub(super) fn next_scheduler(&mut self) {
        self.core = TestCore::new(self.core.epoch() + 1, Limits::default());
        self.nodes.iter_mut().for_each(|node| node.link = None);
        for spec in self.specs.clone().iter().filter(|spec| !spec.inline) {
            self.core.want(self.now, &spec.name, format!("/{}", spec.name), false);
        }
    }

    /// A worker says hello, and what it holds. Says whether it was let in.
    pub(super) fn join(&mut self, at: usize) -> bool {
        self.links += 1;
        let link = self.links;
        let Ok(joined) = self.core.join(self.now, self.hello(at), "grpc", link) else { return false };
        assert!(self.core.commands.iter().all(|told| !is_for(told, link)), "nothing overtakes the welcome");
        self.nodes[at].link = Some(link);
        self.nodes[at].session = joined.session;
        self.nodes[at].life += u64::from(!joined.resumed);
        self.collect();
        self.tell_telemetry(at);
        self.core.start(self.now, joined.session);
        self.collect();
        for (index, spec) in self.specs.clone().iter().enumerate() {
            if spec.inline {
                let report = self.report(at, index, 0, ModelState::Ready, 0);
                self.tell(at, report);
            }
        }
        let places: Vec<_> = self.nodes[at].residents.iter().map(|(place, resident)| (*place, *resident)).collect();
        let gone = self.nodes[at].orders.iter().filter(|(place, _)| !self.nodes[at].residents.contains_key(place));
        let gone: Vec<_> = gone.map(|(place, order)| (*place, *order)).collect();
        for ((model, device), resident) in places {
            if resident.state != ModelState::Unloading {
                let report = self.report(at, model, device, resident.state, resident.order);
                self.tell(at, report);
            }
        }
        for ((model, device), order) in gone {
            let report = self.report(at, model, device, ModelState::Unloaded, order);
            self.tell(at, report);
        }
        true
    }

    pub(super) fn tell_telemetry(&mut self, at: usize) {
        let seconds = self.nodes[at].round_trip;
        let figures = |device: usize| session::DeviceTelemetry {
            name: format!("d{device}"),
            memory_free_bytes: (self.nodes[at].devices[device] - self.held(at, device)).max(1),
            ..Default::default()
        };
        let telemetry = session::Telemetry {
            round_trip_p50_seconds: seconds,
            round_trip_p99_seconds: seconds,
            devices: (0..self.nodes[at].devices.len()).map(figures).collect(),
            ..Default::default()
        };
        if self.nodes[at].link.is_some() {
            self.core.telemetry(self.now, self.nodes[at].session, telemetry);
            self.collect();
        }
    }

    pub(super) fn report(&self, at: usize, model: usize, device: usize, state: ModelState, order: u64) -> Report {
        Report {
            name: Arc::from(self.specs[model].name.as_str()),
            device: format!("d{device}"),
            state,
            error: if state == ModelState::Failed { "the file is torn".into() } else { String::new() },
            progress: 1.0,
            spec: Some((*self.specs[model]).clone()),
            curve: self.curves[model],
            order,
            load_seconds: self.load_seconds,
            peak_bytes: if state == ModelState::Ready { self.warm_up_peak(at, model, device) } else { 0 },
        }
    }

    /// A report goes to the scheduler, unless the connection is cut.
    pub(super) fn tell(&mut self, at: usize, report: Report) {
        if self.nodes[at].link.is_some() {
            self.core.report(self.now, self.nodes[at].session, report);
            self.collect();
        }
    }

    /// The worker's process ends and another begins: all is lost.
    pub(super) fn restart(&mut self, at: usize) -> bool {
        let node = &mut self.nodes[at];
        let old = (node.incarnation, std::mem::take(&mut node.residents), std::mem::take(&mut node.orders));
        let batches = std::mem::take(&mut node.batches);
        node.incarnation += 1;
        if self.join(at) {
            return true;
        }
        // Its name is held by itself: in truth it would wait until the scheduler noticed.
        let node = &mut self.nodes[at];
        (node.incarnation, node.residents, node.orders) = old;
        node.batches = batches;
        false
    }

    pub(super) fn submit(&mut self, ask: Ask) -> Result<u64> {
        let ticket = self.sent.len() as u64 + 1;
        let deadline = ask.deadline.map(|after| self.now + after);
        let parameters = ask.parameters;
        let idempotent = parameters.idempotent;
        let request = InferRequest { id: ticket.to_string(), parameters, ..InferRequest::default() };
        let spec = self.specs[ask.model].clone();
        let admitted = Admitted {
            spec,
            request: Arc::new(request),
            rows: ask.rows,
            bytes: ask.rows * self.row_bytes,
            deadline,
            generation: None,
        };
        // It may run before the call is over.
        self.sent.insert(ticket, Sent { rows: ask.rows, idempotent, deadline, ..Sent::default() });
        match self.core.submit(self.now, admitted, ticket) {
            Ok(key) => {
                self.sent.get_mut(&ticket).unwrap().key = Some(key);
                self.collect();
                Ok(ticket)
            }
            Err(error) => {
                self.collect();
                self.sent.get_mut(&ticket).unwrap().cancelled = true;
                Err(error)
            }
        }
    }

    pub(super) fn ask(&mut self, model: usize) -> u64 {
        self.submit(Ask::of(model)).unwrap()
    }

    pub(super) fn pass(&mut self, time: Nanos) {
        let end = self.now + time;
        while let Some(at) = self.core.next_alarm().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.core.wake(self.now);
            self.collect();
        }
        self.now = end;
        self.core.tick(self.now);
        self.collect();
    }

    fn number(&self, name: &str) -> usize {
        self.specs.iter().position(|spec| spec.name.as_str() == name).unwrap()
    }
}
