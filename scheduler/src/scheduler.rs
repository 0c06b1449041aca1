//! The shell around the core: the lock, the clock, and carrying out what the core commands.

use std::{
    cell::RefCell,
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use orion_net::WorkerLink;
use orion_proto::{Result, session::to_worker};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{oneshot, watch};

use crate::{
    alarm_clock::AlarmClock,
    core::{Command, Cordon, Core, Limits, Nanos},
    curve_file::CurveFile,
    data_folder::{CURVES, NodeFile},
    ensembles::Ensembles,
    front::{Answered, Front},
    repository::Repository,
    session::Traffic,
    training::reports::Reports,
};

pub(crate) type Ticket = oneshot::Sender<Result<Answered>>;
pub(crate) type Link = Arc<dyn WorkerLink>;
type SchedulerCore = Core<Ticket, Link>;
type SchedulerCommand = Command<Ticket, Link>;

/// How often leases and orphans are looked at.
const TICK: Duration = Duration::from_millis(25);
/// Curves that are taken from the core at once: its lock is held for microseconds.
const CURVES_AT_ONCE: usize = 32;
/// How often what batches have taught is written down.
const SAVED_EVERY: Duration = Duration::from_secs(10);

/// A scheduler: one core and what surrounds it.
pub struct Scheduler {
    core: Mutex<SchedulerCore>,
    started: Instant,
    started_unix: Duration,
    repository: Repository,
    curves: Option<Mutex<CurveFile>>,
    nodes: Option<Mutex<NodeFile>>,
    changed: watch::Sender<u64>,
    drained: watch::Sender<bool>,
    alarm: Arc<AlarmClock>,
    relayed: Traffic,
    trainings: Arc<Reports>,
    ensembles: Ensembles,
}

thread_local! {
    /// Commands that this thread has yet to carry out. An inline model's result commands more while its batch is still
    /// being handed over: they wait here, so that the stack stays flat.
    static PENDING: RefCell<Option<VecDeque<SchedulerCommand>>> = const { RefCell::new(None) };
}

impl Scheduler {
    /// A scheduler that serves these models.
    /// `data`: the folder in which what batches have taught and what operators made of nodes is kept.
    pub fn new(limits: Limits, repository: Repository, data: Option<&Path>) -> Arc<Self> {
        let started_unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let scheduler = Arc::new(Self {
            // Another than any that was given out before, if not a later one: the clock may have been set.
            core: Mutex::new(Core::new(u64::try_from(started_unix.as_millis()).unwrap_or(1), limits)),
            started: Instant::now(),
            started_unix,
            repository,
            curves: data.map(|folder| Mutex::new(CurveFile::new(folder.join(CURVES)))),
            nodes: data.map(|folder| Mutex::new(NodeFile::new(folder))),
            changed: watch::Sender::new(0),
            drained: watch::Sender::new(false),
            alarm: AlarmClock::new(),
            relayed: Traffic::default(),
            trainings: Arc::default(),
            ensembles: Ensembles::default(),
        });
        let remembered = scheduler.curves.as_ref().map(|file| file.lock().read()).unwrap_or_default();
        let nodes = scheduler.nodes.as_ref().map(|file| file.lock().read()).unwrap_or_default();
        scheduler.with_core(|core, _| {
            core.remember(remembered);
            core.remember_nodes(nodes);
        });
        for (name, path) in scheduler.repository.served() {
            // One that cannot be served says so wherever models are shown.
            if let Ok(false) = scheduler.front().serve_ensemble(&name, &path) {
                scheduler.with_core(|core, now| core.want(now, &name, path, false));
            }
        }
        scheduler
    }

    /// The door for API shells.
    pub fn front(self: &Arc<Self>) -> Front {
        Front(self.clone())
    }

    /// Lets time pass until the scheduler is dropped.
    pub async fn run_clock(self: Arc<Self>) {
        // Without it, devices take batches a little late.
        let alarm = self.alarm.clone().run(self.started, Arc::downgrade(&self));
        let _alarm = alarm.inspect_err(|error| tracing::error!(%error, "alarm_clock_failed"));
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut saved = Instant::now();
        loop {
            ticks.tick().await;
            self.with_core(|core, now| core.tick(now));
            if saved.elapsed() >= SAVED_EVERY {
                saved = Instant::now();
                let scheduler = self.clone();
                tokio::task::spawn_blocking(move || scheduler.save_curves());
            }
        }
    }

    /// Takes a node out of placement, empties it, or takes it back; a scheduler that is started anew knows it.
    ///
    /// # Errors
    /// NOT_FOUND for an unknown name; INTERNAL where it is done, but could not be kept.
    pub(crate) fn cordon(&self, name: &str, cordon: Cordon) -> Result<String> {
        // Held over both: the file of two changes must be that of the later.
        let file = self.nodes.as_ref().map(|file| file.lock());
        let name = self.with_core(|core, now| core.cordon(now, name, cordon))?;
        if let Some(file) = file {
            file.write(&self.core().cordons())?;
        }
        Ok(name)
    }

    /// Writes what batches have taught to its file.
    pub(crate) fn save_curves(&self) {
        let Some(file) = &self.curves else { return };
        let mut file = file.lock();
        loop {
            let taught = self.core().take_taught(CURVES_AT_ONCE);
            if taught.is_empty() {
                return file.write();
            }
            file.keep(taught);
        }
    }

    /// Takes no new requests; returns when those that were accepted are answered, or after `limit`.
    /// Says how many of clients' were not.
    pub async fn drain(&self, limit: Duration) -> usize {
        self.core().drain();
        let deadline = Instant::now() + limit;
        loop {
            let left = self.core().unsettled();
            if left == 0 || Instant::now() >= deadline {
                self.drained.send_replace(true);
                return self.core().unsettled_of_clients();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Completes when draining has ended: streams that clients keep open may end.
    pub(crate) fn drained(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut drained = self.drained.subscribe();
        async move {
            // An error means that the scheduler is gone.
            let _ = drained.wait_for(|drained| *drained).await;
        }
    }

    pub(crate) fn now(&self) -> Nanos {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(Nanos::MAX)
    }

    pub(crate) fn unix_millis(&self, at: Nanos) -> u64 {
        u64::try_from((self.started_unix + Duration::from_nanos(at)).as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn core(&self) -> MutexGuard<'_, SchedulerCore> {
        self.core.lock()
    }

    /// What was relayed between workers.
    pub(crate) fn relayed(&self) -> &Traffic {
        &self.relayed
    }

    /// What workers say of trainings.
    pub(crate) fn trainings(&self) -> &Arc<Reports> {
        &self.trainings
    }

    /// Models that several answer as one.
    pub(crate) fn ensembles(&self) -> &Ensembles {
        &self.ensembles
    }

    pub(crate) fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Changes whenever a model or worker changed its state.
    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// How many such changes there were.
    pub(crate) fn changes(&self) -> u64 {
        *self.changed.borrow()
    }

    /// What several models answer as one has changed.
    pub(crate) fn has_changed(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// One input to the core under its lock; what it commands is carried out afterwards, without the lock.
    pub(crate) fn with_core<R>(&self, input: impl FnOnce(&mut SchedulerCore, Nanos) -> R) -> R {
        let (result, commands, changed, alarm) = {
            let mut core = self.core.lock();
            let now = self.now();
            let result = input(&mut core, now);
            (result, core.take_commands(), core.take_changed(), core.next_alarm())
        };
        if let Some(alarm) = alarm {
            self.alarm.set(alarm);
        }
        if changed {
            self.changed.send_modify(|count| *count += 1);
        }
        if !commands.is_empty() {
            carry_out(commands);
        }
        result
    }
}

fn carry_out(commands: Vec<SchedulerCommand>) {
    let nested = PENDING.with_borrow_mut(|pending| match pending {
        Some(queue) => {
            queue.extend(commands);
            true
        }
        None => {
            *pending = Some(commands.into());
            false
        }
    });
    if nested {
        return;
    }
    while let Some(command) = PENDING.with_borrow_mut(|pending| pending.as_mut().and_then(VecDeque::pop_front)) {
        // A panic must not leave this thread's queue behind, nor what is in it undone.
        if catch_unwind(AssertUnwindSafe(|| carry_out_one(command))).is_err() {
            tracing::error!("command_panicked");
        }
    }
    PENDING.set(None);
}

fn carry_out_one(command: SchedulerCommand) {
    use orion_proto::session;
    match command {
        Command::Run { link, batch } => link.run(batch),
        Command::Settle { ticket, spec, outcome } => {
            // The client may have gone: then nobody wants the answer.
            let _ = ticket.send(outcome.map(|answer| Answered { spec, answer }));
        }
        Command::Tell { listener, delta } => listener.tell(delta),
        Command::Inspect { link, name, path, peers, order } => {
            let name = name.to_string();
            link.control(to_worker::Message::Inspect(session::InspectModel { name, path, order, peers }));
        }
        Command::Pull { link, path, peers, fetch } => {
            link.control(to_worker::Message::Pull(session::PullModel { path, peers, fetch }));
        }
        Command::Load { link, name, device, path, peers, order } => {
            let (name, device) = (name.to_string(), device.to_string());
            link.control(to_worker::Message::Load(session::LoadModel { name, path, order, device, peers }));
        }
        Command::Unload { link, name, device, order } => {
            let (name, device) = (name.to_string(), device.to_string());
            link.control(to_worker::Message::Unload(session::UnloadModel { name, order, device }));
        }
        Command::Close { link, reason } => link.close(reason),
        Command::Cancel { link, batch, attempts } => {
            link.control(to_worker::Message::Cancel(session::CancelBatch { batch, attempts }));
        }
        Command::Drained { link } => link.control(to_worker::Message::Drain(session::Drain {})),
    }
}
