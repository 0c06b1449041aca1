//! The workers: sessions, leases, what each is and has lately done.

use std::{collections::VecDeque, sync::Arc};

use orion_proto::{Code, Error, Result, session};

use super::{Command, Cordon, Core, Nanos, device::Device, placement::Concern};

/// Workers that are known at once, those that are gone included.
const WORKERS: usize = 16_384;
/// Events kept of each worker.
const EVENTS: usize = 64;

/// A worker as placement sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerState {
    /// Said hello and is not welcomed yet: nothing is sent to it.
    Joining,
    /// Takes work.
    Ready,
    /// Silent or disconnected, its lease still running: no new work.
    Suspect,
    /// Finishes what it has and leaves.
    Draining,
    /// Its lease ended.
    Dead,
    /// It left in order.
    Left,
}

impl WorkerState {
    /// As the tables write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Ready => "ready",
            Self::Suspect => "suspect",
            Self::Draining => "draining",
            Self::Dead => "dead",
            Self::Left => "left",
        }
    }
}

#[derive(Debug)]
pub(super) struct Worker<L> {
    pub name: Arc<str>,
    pub incarnation: u64,
    pub session: u64,
    pub sessions_opened: u64,
    pub state: WorkerState,
    /// It asked to leave; silence in between must not make it take work again.
    pub drains: bool,
    /// It was told that it may go.
    pub released: bool,
    pub carrier: &'static str,
    pub link: Option<L>,
    pub lease_ends: Nanos,
    pub connected_at: Nanos,
    pub last_frame: Nanos,
    /// One-way delay and its jitter, and preparation: how much ahead of idleness it is given work.
    pub lead: Nanos,
    /// The same of a usual round trip, without what slow ones add.
    pub least_lead: Nanos,
    /// Its devices' places.
    pub devices: Vec<usize>,
    pub cordon: Cordon,
    pub capability: session::Capability,
    pub telemetry: session::Telemetry,
    pub measurement: Option<session::Measurement>,
    /// Bytes a second that the link to it carried while it was busy; 0: not seen.
    pub carries: f64,
    pub batches_done: u64,
    /// Batches that it said it holds when it joined, until it takes work.
    pub holding: Vec<u64>,
    pub events: VecDeque<(Nanos, String)>,
    pub peer_address: String,
    /// Whether others may fetch from it through the scheduler.
    pub is_relayed: bool,
    /// What it was asked about models and has not answered.
    pub questions: usize,
}

impl<L> Worker<L> {
    pub(super) fn is_connected(&self) -> bool {
        matches!(self.state, WorkerState::Ready | WorkerState::Draining)
    }

    /// Whether it is to be emptied, by an operator or because it leaves.
    pub(super) fn is_draining(&self) -> bool {
        self.drains || self.cordon == Cordon::Draining
    }

    /// Its state, with what an operator made of it.
    pub(super) fn state_name(&self) -> String {
        match (self.state, self.cordon) {
            (state, Cordon::No) => state.name().to_owned(),
            (state, cordon) => format!("{}, {}", state.name(), cordon.name()),
        }
    }

    pub(super) fn note(&mut self, now: Nanos, text: impl Into<String>) {
        if self.events.len() == EVENTS {
            self.events.pop_front();
        }
        self.events.push_back((now, text.into()));
    }
}

/// A session that was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Its number.
    pub session: u64,
    /// Whether the same process was here before and its lease still ran.
    pub resumed: bool,
}

impl<T, L: Clone> Core<T, L> {
    pub(super) fn worker_index(&self, name: &str) -> Option<usize> {
        self.workers.iter().position(|worker| &*worker.name == name)
    }

    pub(super) fn by_session(&self, session: u64) -> Option<usize> {
        let index = *self.sessions.get(&session)?;
        self.workers[index].link.is_some().then_some(index)
    }

    /// A worker says hello.
    ///
    /// # Errors
    /// FAILED_PRECONDITION when another process holds its name; INVALID_ARGUMENT for a bad name or no device.
    pub fn join(&mut self, now: Nanos, hello: session::Hello, carrier: &'static str, link: L) -> Result<Joined> {
        if !orion_proto::valid_name(&hello.name) {
            return Err(Error::invalid("a worker's name must be 1 to 128 of the characters A-Z a-z 0-9 . _ -"));
        }
        let capability = hello.capability.unwrap_or_default();
        if capability.devices.is_empty() {
            return Err(Error::invalid(format!("worker '{}' reports no device", hello.name)));
        }
        let known = self.worker_index(&hello.name);
        let old = known.map(|index| &self.workers[index]);
        let alive = |old: &&Worker<L>| old.is_connected() || old.state == WorkerState::Joining;
        if let Some(old) = old.filter(alive).filter(|old| old.incarnation != hello.incarnation) {
            let text = format!("a worker named '{}' is connected already, give this one another --name", old.name);
            return Err(Error::new(Code::FailedPrecondition, text));
        }
        let resumed = old.is_some_and(|old| {
            old.incarnation == hello.incarnation && !matches!(old.state, WorkerState::Dead | WorkerState::Left)
        });
        let session = self.number();
        let index = match known {
            Some(index) => index,
            None => self.add_worker(now, &hello.name)?,
        };
        if !resumed {
            self.forget_work(now, index);
            for info in &capability.devices {
                let class = self.class_of(&capability.fingerprint, info);
                let device = self.devices.insert(Device::new(index, &hello.name, info.clone(), class));
                self.workers[index].devices.push(device);
            }
        }
        let worker = &mut self.workers[index];
        if let Some(link) = worker.link.take() {
            self.commands.push(Command::Close { link, reason: "its worker joined anew" });
        }
        self.sessions.remove(&worker.session);
        self.sessions.insert(session, index);
        worker.session = session;
        worker.sessions_opened += 1;
        worker.incarnation = hello.incarnation;
        (worker.state, worker.drains) = (WorkerState::Joining, false);
        worker.carrier = carrier;
        (worker.connected_at, worker.last_frame) = (now, now);
        worker.capability = capability;
        (worker.peer_address, worker.is_relayed, worker.carries) = (hello.peer_address, hello.relayed, 0.0);
        worker.note(now, if resumed { "back within its lease" } else { "joined" });
        self.cluster_changed();
        self.share_again(index);
        if resumed {
            self.retry_what_never_arrived(now, index, &hello.holding);
        }
        // Set last: nothing that was decided above may overtake the welcome.
        self.workers[index].link = Some(link);
        self.workers[index].holding = hello.holding;
        self.hold(now, index, hello.jobs);
        Ok(Joined { session, resumed })
    }

    /// The worker of this session was welcomed: it may be given models and work.
    pub fn start(&mut self, now: Nanos, session: u64) {
        let Some(index) = self.by_session(session) else { return };
        let worker = &mut self.workers[index];
        worker.state = if worker.drains { WorkerState::Draining } else { WorkerState::Ready };
        self.cluster_changed();
        self.repeat_wishes(index);
        self.call_off_unknown(index);
        self.ask_anew(index);
        for model in 0..self.models.len() {
            self.models[model].unreadable.retain(|(at, _)| *at != index);
            self.ask_about(model);
        }
        self.wish_again();
        self.settle_wishes(now);
        self.serve_all(now, index);
    }

    /// What waits may run on a worker that takes work again.
    pub(super) fn serve_all(&mut self, now: Nanos, index: usize) {
        self.is_back(now, index);
        for device in self.workers[index].devices.clone() {
            self.send_load(now, device);
            self.fill(now, device);
            self.place(now, Concern::Device(device));
        }
        for model in 0..self.models.len() {
            match &self.models[model] {
                known if known.queue.is_empty() => {}
                known if known.is_inline() => self.run_inline(now, model),
                known if known.is_generator() => self.run_generator(now, model),
                _ => {}
            }
        }
    }

    fn add_worker(&mut self, now: Nanos, name: &str) -> Result<usize> {
        let worker = Worker {
            name: Arc::from(name),
            incarnation: 0,
            session: 0,
            sessions_opened: 0,
            state: WorkerState::Left,
            drains: false,
            released: false,
            carrier: "",
            link: None,
            lease_ends: now,
            connected_at: now,
            last_frame: now,
            lead: 0,
            least_lead: 0,
            devices: Vec::new(),
            cordon: self.cordons.get(name).copied().unwrap_or_default(),
            capability: session::Capability::default(),
            telemetry: session::Telemetry::default(),
            measurement: None,
            carries: 0.0,
            batches_done: 0,
            holding: Vec::new(),
            events: VecDeque::new(),
            peer_address: String::new(),
            is_relayed: false,
            questions: 0,
        };
        if self.workers.len() < WORKERS {
            self.cordons.remove(name);
            self.workers.push(worker);
            return Ok(self.workers.len() - 1);
        }
        // Nothing refers to one that is gone: its place is taken.
        let gone = |worker: &Worker<L>| matches!(worker.state, WorkerState::Dead | WorkerState::Left);
        let place = self.workers.iter().position(gone).ok_or_else(|| {
            Error::new(Code::ResourceExhausted, format!("{WORKERS} workers are here, no more are taken"))
        })?;
        let before = &self.workers[place];
        self.sessions.remove(&before.session);
        if before.cordon != Cordon::No {
            self.cordons.insert(before.name.to_string(), before.cordon);
        }
        self.cordons.remove(name);
        self.workers[place] = worker;
        Ok(place)
    }

    /// A session fell silent or broke: no new work goes there, and what it runs is tried elsewhere if it can be.
    /// `lease` is what is left of its lease.
    pub fn suspect(&mut self, now: Nanos, session: u64, reason: &str, lease: Nanos, broken: bool) {
        let Some(index) = self.by_session(session) else { return };
        let worker = &mut self.workers[index];
        if broken {
            worker.link = None;
        }
        if matches!(worker.state, WorkerState::Joining | WorkerState::Ready | WorkerState::Draining) {
            self.changed = true;
            worker.state = WorkerState::Suspect;
            worker.lease_ends = now.saturating_add(lease);
            worker.note(now, format!("suspect: {reason}"));
            self.cluster_changed();
            for device in self.workers[index].devices.clone() {
                for id in self.devices[device].residents.clone() {
                    self.rebind(now, id);
                }
            }
            self.retry_elsewhere(now, index);
        }
    }

    /// A suspect's frames come again on the same session.
    pub fn alive(&mut self, now: Nanos, session: u64) {
        let Some(index) = self.by_session(session) else { return };
        let worker = &mut self.workers[index];
        worker.last_frame = now;
        if worker.state == WorkerState::Suspect {
            worker.state = if worker.drains { WorkerState::Draining } else { WorkerState::Ready };
            worker.note(now, "heard again");
            self.cluster_changed();
            self.let_go_if_drained(index);
            self.wish_again();
            self.settle_wishes(now);
            self.serve_all(now, index);
        }
    }

    /// A worker will finish what it has and leave.
    pub fn worker_drains(&mut self, now: Nanos, session: u64) {
        let Some(index) = self.by_session(session) else { return };
        let worker = &mut self.workers[index];
        (worker.state, worker.drains, worker.released) = (WorkerState::Draining, true, false);
        self.workers[index].note(now, "draining");
        self.cluster_changed();
        self.move_elsewhere(now, index);
        self.let_go_if_drained(index);
    }

    pub(super) fn let_go_if_drained(&mut self, index: usize) {
        let worker = &self.workers[index];
        if worker.state == WorkerState::Draining
            && self.is_idle(index)
            && !worker.released
            && !self.is_awaited(index)
            && let Some(link) = worker.link.clone()
        {
            self.workers[index].released = true;
            self.commands.push(Command::Drained { link });
        }
    }

    /// A worker left in order.
    pub fn worker_left(&mut self, now: Nanos, session: u64) {
        let Some(index) = self.by_session(session) else { return };
        self.end(now, index, WorkerState::Left, "left");
    }

    pub(super) fn end_leases(&mut self, now: Nanos) {
        for index in 0..self.workers.len() {
            if self.workers[index].state == WorkerState::Suspect && self.workers[index].lease_ends <= now {
                self.end(now, index, WorkerState::Dead, "dead: its lease ended");
            }
        }
    }

    fn end(&mut self, now: Nanos, index: usize, state: WorkerState, text: &'static str) {
        self.cluster_changed();
        let worker = &mut self.workers[index];
        worker.state = state;
        worker.note(now, text);
        // Its carrier may still be open: a worker that is given up must notice, and join anew.
        if let Some(link) = worker.link.take() {
            self.commands.push(Command::Close { link, reason: text });
        }
        self.forget_work(now, index);
        self.settle_wishes(now);
    }

    /// The worker's devices, models and batches are gone; what it ran is tried again.
    fn forget_work(&mut self, now: Nanos, index: usize) {
        let mut lost = Vec::new();
        for device in self.workers[index].devices.clone() {
            for id in self.devices[device].residents.clone() {
                lost.push(self.replicas[id].model);
                self.forget_replica(now, id);
            }
        }
        self.retry_all(now, index);
        for device in std::mem::take(&mut self.workers[index].devices) {
            self.clear_alarm(device);
            let gone = self.devices.remove(device);
            self.models.iter_mut().filter_map(|model| model.balancer.as_mut()).for_each(|b| b.forget(gone.hash));
        }
        self.ask_anew(index);
        for model in &mut self.models {
            model.failures.retain(|failure| failure.worker != index);
        }
        self.cluster_changed();
        // What was there is wanted again, elsewhere.
        for model in lost {
            if self.models[model].wanted {
                self.unplaced.insert(model);
                self.models[model].unmet = true;
            }
            self.ask_about(model);
            self.start_waiting(now, model);
        }
    }
}

/// The carrier of a worker in the scheduler's own process.
pub const IN_PROCESS: &str = "in-process";
