//! Virtual time: a heap of events around the core, and devices that take as long as a formula says.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use orion_net::Batch;
use orion_proto::{InferRequest, ModelSpec, Result, session};

use super::{
    memory::Memory,
    messages::{carrier, device_number, digest, hello, report, request, result, rows_of, spec},
};
use crate::core::{Admitted, Command, Core, Limits, ModelState, Nanos, Report, RequestKey};

/// How often time passes for the core.
const TICK: Nanos = 25_000_000;
pub(super) const MS: f64 = 1e6;

/// A model as the world knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct WorldModel {
    pub base_ms: f64,
    pub per_row_ms: f64,
    pub bytes: u64,
    pub load: Nanos,
    pub max_rows: usize,
    pub slo: Duration,
    pub min_replicas: u32,
}

/// A worker with its devices, all alike.
#[derive(Clone, Copy, Debug)]
pub(super) struct WorldWorker {
    pub devices: usize,
    pub memory_bytes: u64,
    /// Its warm-up measures the model's curve divided by this.
    pub speed: f64,
    pub round_trip: Nanos,
}

/// When a batch of `rows` rows of a model, started at a time on a worker, ends: what no policy sees.
pub(super) type Service<'a> = dyn FnMut(usize, usize, usize, Nanos) -> Nanos + 'a;

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A batch comes back from a worker.
    Done {
        worker: usize,
        batch: u64,
        service: Nanos,
    },
    Loaded {
        worker: usize,
        model: usize,
        device: usize,
        order: u64,
        life: u64,
    },
    Unloaded {
        worker: usize,
        model: usize,
        device: usize,
        order: u64,
        life: u64,
    },
    /// A client's time has run out.
    Expired {
        place: usize,
    },
    /// A device will soon be idle.
    Alarm,
    Tick,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    Waiting,
    Answered(Nanos),
    Refused(Nanos),
}

/// The world around one core.
pub(super) struct World<'a> {
    pub core: Core<u32, usize>,
    pub settled: Vec<Settled>,
    waiting: Vec<Option<RequestKey>>,
    /// Nanoseconds that each input took, with all that it triggered.
    pub decisions: Vec<u32>,
    /// The same of each tick.
    pub ticks: Vec<u32>,
    pub loads: u64,
    /// Of every command, in order: equal for equal runs.
    pub digest: u64,
    models: Vec<WorldModel>,
    specs: Vec<Arc<ModelSpec>>,
    /// By rows: requests differ in their ids, and in nothing else that the core reads.
    requests: HashMap<usize, InferRequest>,
    names: HashMap<Arc<str>, usize>,
    workers: Vec<WorldWorker>,
    sessions: Vec<u64>,
    /// Processes that each worker has been.
    lives: Vec<u64>,
    /// What a worker says before this time arrives then.
    silent_until: Vec<Nanos>,
    /// Whether the scheduler has given the worker's session up.
    closed: Vec<bool>,
    busy_until: Vec<Vec<Nanos>>,
    memory: Memory,
    running: HashMap<u64, (usize, Batch)>,
    /// The next alarm that is in the heap.
    alarm: Option<Nanos>,
    heap: BinaryHeap<Reverse<(Nanos, u64, Event)>>,
    sequence: u64,
    now: Nanos,
    service: Box<Service<'a>>,
}

impl<'a> World<'a> {
    /// A cluster whose workers have joined and read every model.
    pub(super) fn new(models: Vec<WorldModel>, workers: Vec<WorldWorker>, service: Box<Service<'a>>) -> Result<Self> {
        let specs: Vec<Arc<ModelSpec>> =
            models.iter().enumerate().map(|(index, model)| spec(index, model).map(Arc::new)).collect::<Result<_>>()?;
        let mut world = Self {
            core: Core::new(1, Limits { requests: usize::MAX, bytes: usize::MAX, ..Limits::default() }),
            settled: Vec::new(),
            waiting: Vec::new(),
            decisions: Vec::new(),
            ticks: Vec::new(),
            loads: 0,
            digest: 0,
            lives: vec![1; workers.len()],
            silent_until: vec![0; workers.len()],
            closed: vec![false; workers.len()],
            requests: HashMap::new(),
            names: specs.iter().enumerate().map(|(index, spec)| (Arc::from(spec.name.as_str()), index)).collect(),
            specs,
            busy_until: workers.iter().map(|worker| vec![0; worker.devices]).collect(),
            memory: Memory::default(),
            sessions: Vec::new(),
            running: HashMap::new(),
            heap: BinaryHeap::new(),
            alarm: None,
            sequence: 0,
            now: 0,
            models,
            workers,
            service,
        };
        world.begin()?;
        Ok(world)
    }

    fn begin(&mut self) -> Result<()> {
        for spec in self.specs.clone() {
            self.core.want(0, &spec.name, format!("/{}", spec.name), false);
        }
        self.sessions = vec![0; self.workers.len()];
        for index in 0..self.workers.len() {
            self.join(index)?;
        }
        self.at(TICK, Event::Tick);
        Ok(())
    }

    /// A worker says hello, and how far it is.
    pub(super) fn join(&mut self, index: usize) -> Result<()> {
        let now = self.now;
        let holding = self.running.iter().filter(|(_, (worker, _))| *worker == index).map(|(number, _)| *number);
        let hello = session::Hello {
            incarnation: self.lives[index],
            holding: holding.collect(),
            ..hello(index, &self.workers[index], |device| self.memory.held(index, device))
        };
        let joined = self.core.join(now, hello, carrier(&self.workers[index]), index)?;
        self.closed[index] = false;
        self.sessions[index] = joined.session;
        let seconds = self.workers[index].round_trip as f64 / 1e9;
        let telemetry = session::Telemetry {
            round_trip_p50_seconds: seconds,
            round_trip_p99_seconds: seconds,
            ..session::Telemetry::default()
        };
        self.core.telemetry(now, joined.session, telemetry);
        self.core.start(now, joined.session);
        self.carry_out();
        for (device, model, resident) in self.memory.residents(index) {
            if resident.state != ModelState::Unloading {
                let report = self.report(index, model, device, resident.order, resident.state);
                self.core.report(now, joined.session, report);
                self.carry_out();
            }
        }
        Ok(())
    }

    /// A worker's process ends and is noticed at once; its lease runs on for `lease`.
    pub(super) fn crash(&mut self, worker: usize, lease: Nanos) {
        self.lives[worker] += 1;
        self.memory.lost(worker);
        self.running.retain(|_, (at, _)| *at != worker);
        self.busy_until[worker].fill(self.now);
        self.core.suspect(self.now, self.sessions[worker], "it crashed", lease, true);
        self.carry_out();
    }

    /// Nothing of a worker arrives until a time; its lease runs on for `lease`.
    pub(super) fn silence(&mut self, worker: usize, until: Nanos, lease: Nanos) {
        self.silent_until[worker] = until;
        self.core.suspect(self.now, self.sessions[worker], "silent", lease, false);
        self.carry_out();
    }

    /// A silent worker is heard again; it joins anew where its session was given up.
    ///
    /// # Errors
    /// When the core refuses it.
    pub(super) fn heard(&mut self, worker: usize) -> Result<()> {
        if self.closed[worker] {
            return self.join(worker);
        }
        self.core.alive(self.now, self.sessions[worker]);
        self.carry_out();
        Ok(())
    }

    fn at(&mut self, time: Nanos, event: Event) {
        self.sequence += 1;
        self.heap.push(Reverse((time, self.sequence, event)));
    }

    /// Lets everything happen that happens before `time`.
    pub(super) fn run_until(&mut self, time: Nanos) {
        while let Some(Reverse((at, _, _))) = self.heap.peek() {
            if *at >= time {
                break;
            }
            if let Some(Reverse((at, _, event))) = self.heap.pop() {
                self.now = at;
                self.happen(event);
            }
        }
        self.now = self.now.max(time);
    }

    /// A request arrives now. Its number is its place in [`World::settled`].
    pub(super) fn arrive(&mut self, model: usize, rows: usize, deadline: Option<Nanos>) {
        let ticket = self.settled.len() as u32;
        self.settled.push(Settled::Waiting);
        let like = self.requests.entry(rows).or_insert_with(|| request(rows));
        let admitted = Admitted {
            spec: self.specs[model].clone(),
            request: Arc::new(InferRequest { id: format!("request-{ticket}"), ..like.clone() }),
            rows,
            bytes: rows * 4,
            deadline,
            generation: None,
        };
        let now = self.now;
        let submitted = self.timed(|core| core.submit(now, admitted, ticket));
        if submitted.is_err() {
            self.settled[ticket as usize] = Settled::Refused(now);
        }
        let place = self.waiting.len();
        self.waiting.push(submitted.ok());
        if let Some(deadline) = deadline {
            self.at(deadline + 1, Event::Expired { place });
        }
        self.carry_out();
    }

    fn timed<R>(&mut self, input: impl FnOnce(&mut Core<u32, usize>) -> R) -> R {
        let (result, nanos) = time(&mut self.core, input);
        self.decisions.push(nanos);
        result
    }

    fn happen(&mut self, event: Event) {
        let now = self.now;
        if let Event::Done { worker, .. } | Event::Loaded { worker, .. } | Event::Unloaded { worker, .. } = &event
            && self.silent_until[*worker] > now
        {
            return self.at(self.silent_until[*worker], event);
        }
        match event {
            Event::Alarm => {
                self.alarm = self.alarm.filter(|at| *at > now);
                self.timed(|core| core.wake(now));
            }
            Event::Tick => {
                let ((), nanos) = time(&mut self.core, |core| core.tick(now));
                self.ticks.push(nanos);
                self.at(now + TICK, Event::Tick);
            }
            Event::Expired { place } => {
                if let (Settled::Waiting, Some(key)) = (self.settled[place], self.waiting[place]) {
                    self.timed(|core| core.expire(now, key));
                }
            }
            Event::Done { worker, batch, service } => {
                let Some((_, batch)) = self.running.remove(&batch) else { return };
                let result = result(&batch, service);
                let session = self.sessions[worker];
                self.timed(|core| core.result(now, session, result));
            }
            Event::Loaded { worker, model, device, order, life } => {
                if life != self.lives[worker] || !self.memory.loaded((worker, device, model), order) {
                    return;
                }
                let report = self.report(worker, model, device, order, ModelState::Ready);
                let session = self.sessions[worker];
                self.timed(|core| core.report(now, session, report));
            }
            Event::Unloaded { worker, model, device, order, life } => {
                if life != self.lives[worker] || !self.memory.unloaded((worker, device, model), order) {
                    return;
                }
                let report = self.report(worker, model, device, order, ModelState::Unloaded);
                let session = self.sessions[worker];
                self.timed(|core| core.report(now, session, report));
            }
        }
        self.carry_out();
    }

    fn report(&self, worker: usize, model: usize, device: usize, order: u64, state: ModelState) -> Report {
        report(&self.specs[model], &self.models[model], &self.workers[worker], device, order, state)
    }

    fn carry_out(&mut self) {
        for command in self.core.take_commands() {
            self.digest = digest(self.digest, &command);
            match command {
                Command::Run { link, batch } => self.run(link, batch),
                Command::Settle { ticket, outcome, .. } => {
                    let settled =
                        if outcome.is_ok() { Settled::Answered(self.now) } else { Settled::Refused(self.now) };
                    assert_eq!(self.settled[ticket as usize], Settled::Waiting, "request {ticket} was settled twice");
                    self.settled[ticket as usize] = settled;
                }
                Command::Inspect { link, name, order, .. } => {
                    let model = self.names[&name];
                    let report = self.report(link, model, 0, order, ModelState::Cold);
                    self.core.report(self.now, self.sessions[link], report);
                    self.carry_out();
                }
                // A simulated worker has all models.
                Command::Pull { .. } => {}
                Command::Load { link, name, device, order, .. } => {
                    self.loads += 1;
                    let (model, device) = (self.names[&name], device_number(&device));
                    let (known, most) = (self.models[model], self.workers[link].memory_bytes);
                    let is_there = self.memory.load((link, device, model), known.bytes, most, order);
                    let ready = self.now + if is_there { 0 } else { known.load };
                    self.at(ready, Event::Loaded { worker: link, model, device, order, life: self.lives[link] });
                }
                Command::Unload { link, name, device, order } => {
                    let (model, device) = (self.names[&name], device_number(&device));
                    self.memory.unload((link, device, model), order);
                    self.at(self.now, Event::Unloaded { worker: link, model, device, order, life: self.lives[link] });
                }
                Command::Close { link, .. } => self.closed[link] = true,
                Command::Cancel { .. } | Command::Drained { .. } | Command::Tell { .. } => {}
            }
        }
        if let Some(at) = self.core.next_alarm().filter(|at| self.alarm.is_none_or(|set| *at < set)) {
            self.alarm = Some(at);
            self.at(at.max(self.now), Event::Alarm);
        }
    }

    fn run(&mut self, worker: usize, batch: Batch) {
        let one_way = self.workers[worker].round_trip / 2;
        let (model, device) = (self.names[&batch.model], device_number(&batch.device));
        let start = self.busy_until[worker][device].max(self.now + one_way);
        let rows = rows_of(&batch);
        let end = (self.service)(worker, model, rows, start).max(start);
        self.busy_until[worker][device] = end;
        let number = batch.batch;
        self.running.insert(number, (worker, batch));
        self.at(end + one_way, Event::Done { worker, batch: number, service: end - start });
    }
}

/// An input, and the nanoseconds that it took.
fn time<R>(core: &mut Core<u32, usize>, input: impl FnOnce(&mut Core<u32, usize>) -> R) -> (R, u32) {
    let started = Instant::now();
    let result = input(core);
    (result, u32::try_from(started.elapsed().as_nanos()).unwrap_or(u32::MAX))
}
