//! One OS thread per device. Models live on it; kernels use a pool of its own, sized by the cores that it owns.

mod kept;
mod shelf;
mod spare;

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Instant,
};

use orion_models::{GeneratorLoad, Loaded as InMemory};
use orion_net::Batch;
use orion_net::store::Pin;
use orion_proto::{Code, Error, Result, ServiceCurve};
use parking_lot::Mutex;

pub(crate) use kept::known_figures;
use kept::{Held, Kept, on_pool};
use shelf::Shelf;
use spare::Spare;
pub(crate) use spare::SpareWork;

use crate::{
    outcome::{self, Done, Outcome, model_request, rows_of},
    peak::{Moves, PeakMeter},
    sequences::Sequences,
    simulate::Reservation,
    worker::Worker,
};

/// What warm-up measured.
#[derive(Clone, Copy)]
pub(crate) struct WarmedUp {
    pub(crate) curve: ServiceCurve,
    pub(crate) peak_bytes: u64,
}

/// A model in memory, on its way to its device.
pub(crate) struct Loaded {
    pub(crate) name: String,
    /// This worker's number of the load.
    pub(crate) load: u64,
    pub(crate) model: InMemory,
    /// What it holds of an emulated device's memory; given back when the model is dropped.
    pub(crate) memory: Option<Reservation>,
    /// Keeps its files in the store.
    pub(crate) pin: Option<Pin>,
}

type Told = Box<dyn FnOnce(Result<WarmedUp>) + Send>;
type Gone = Box<dyn FnOnce() + Send>;

enum Job {
    Run(Arc<Worker>, Batch, Instant),
    Install(Loaded, Told),
    Remove(String, u64, Gone),
    /// Spare work is there.
    Look,
}

/// A device's threads: one runs batches, one drops models beside them.
pub(crate) struct Executor {
    device: Arc<str>,
    jobs: mpsc::Sender<Job>,
    discards: mpsc::Sender<(Option<Held>, Gone)>,
    spare: mpsc::Sender<SpareWork>,
    shelf: Arc<Mutex<Shelf>>,
}

impl Executor {
    /// Starts the thread, and a pool of `cores` threads for its kernels; none where nothing is computed.
    /// `moves`: what comes to this process's memory and leaves it beside the batches.
    pub(crate) fn start(device: Arc<str>, cores: usize, busy: Arc<AtomicUsize>, moves: Arc<Moves>) -> Result<Self> {
        let (jobs, queue) = mpsc::channel();
        let (spare, spare_queue) = mpsc::channel();
        let no_thread = |error: &dyn std::fmt::Display| {
            Error::new(Code::Internal, format!("cannot start the executor of {device}: {error}"))
        };
        let thread = std::thread::Builder::new().name(format!("orion-{device}"));
        let shelf: Arc<Mutex<Shelf>> = Arc::default();
        let mut state = Thread {
            device: device.clone(),
            cores,
            pool: None,
            shelf: shelf.clone(),
            generating: Vec::new(),
            moves: moves.clone(),
            spare: Spare::new(spare_queue),
        };
        thread.spawn(move || state.work(&queue, &busy)).map_err(|error| no_thread(&error))?;
        let (discards, discarded) = mpsc::channel::<(Option<Held>, Gone)>();
        let thread = std::thread::Builder::new().name(format!("orion-{device}-unload"));
        let empty = move || {
            for (model, gone) in discarded {
                let moving = moves.begin();
                discard(model, || drop(moving));
                gone();
            }
        };
        thread.spawn(empty).map_err(|error| no_thread(&error))?;
        Ok(Self { device, jobs, discards, spare, shelf })
    }

    /// Runs a batch that arrived then; its result is delivered by the worker.
    pub(crate) fn run(&self, worker: &Arc<Worker>, batch: Batch, arrived: Instant) {
        self.shelf.lock().begun(&batch.model);
        self.send(Job::Run(worker.clone(), batch, arrived));
    }

    /// Takes a loaded model and warms it up; `told` gets what was measured.
    pub(crate) fn install(&self, loaded: Loaded, told: Told) {
        self.shelf.lock().begun(&loaded.name);
        self.send(Job::Install(loaded, told));
    }

    /// Drops the model of this load, after its batches that came before, whatever other models' batches do; one of a
    /// later load stays. `gone` is called when its memory is free.
    pub(crate) fn remove(&self, name: String, load: u64, gone: Gone) {
        let mut shelf = self.shelf.lock();
        if shelf.pending.contains_key(&name) {
            return self.send(Job::Remove(name, load, gone));
        }
        // Off the shelf at once, so that no later batch finds it; freeing much memory takes its time elsewhere.
        let model = shelf.take(&name, load);
        drop(shelf);
        if let Err(mpsc::SendError((model, gone))) = self.discards.send((model, gone)) {
            discard(model, gone);
        }
    }

    /// Does this when nobody waits for the device, or for so long that a tenth of its time is owed to it.
    pub(crate) fn spare(&self, work: SpareWork) {
        // The thread lives as long as this does; what it drops tells whoever waits that it was not done.
        let _ = self.spare.send(work);
        self.send(Job::Look);
    }

    /// How each generator is filled, by its model's name.
    pub(crate) fn loads(&self) -> BTreeMap<String, GeneratorLoad> {
        self.shelf.lock().loads.clone()
    }

    /// Bytes that batches may still take beside what is held now.
    pub(crate) fn room(&self) -> u64 {
        self.shelf.lock().room()
    }

    fn send(&self, job: Job) {
        let Err(mpsc::SendError(job)) = self.jobs.send(job) else { return };
        tracing::error!(device = &*self.device, "executor_ended");
        let ended = || Error::new(Code::Unavailable, format!("the executor of {} has ended", self.device));
        match job {
            Job::Run(worker, batch, _) => worker.deliver(outcome::refused(&batch, &ended())),
            Job::Install(_, told) => told(Err(ended())),
            Job::Remove(_, _, gone) => gone(),
            Job::Look => {}
        }
    }
}

struct Thread {
    device: Arc<str>,
    cores: usize,
    /// Made with the first model that computes: a worker without one needs no pool.
    pool: Option<rayon::ThreadPool>,
    shelf: Arc<Mutex<Shelf>>,
    /// Generators that have sequences under way, and removals that wait for their end.
    generating: Vec<Generating>,
    moves: Arc<Moves>,
    spare: Spare,
}

struct Generating {
    name: String,
    removals: Vec<(u64, Gone)>,
}

fn discard(model: Option<Held>, gone: impl FnOnce()) {
    // A model whose drop panics must not take the device with it.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(model)));
    gone();
}

impl Thread {
    fn work(&mut self, queue: &mpsc::Receiver<Job>, busy: &AtomicUsize) {
        loop {
            // Generations that begin share the very next step; of batches and loads, one goes between two steps.
            self.spare.look();
            if self.spare.is_owed() {
                self.do_spare(busy);
            }
            let job = match queue.try_recv() {
                Ok(job) => Some(job),
                Err(mpsc::TryRecvError::Empty) if !self.generating.is_empty() => {
                    let started = Instant::now();
                    self.step(busy);
                    self.spare.waited(started.elapsed());
                    continue;
                }
                Err(mpsc::TryRecvError::Empty) if self.spare.is_there() => {
                    self.do_spare(busy);
                    continue;
                }
                Err(mpsc::TryRecvError::Empty) => queue.recv().ok(),
                Err(mpsc::TryRecvError::Disconnected) => None,
            };
            let Some(job) = job else { return };
            if let Job::Look = job {
                continue;
            }
            let started = Instant::now();
            busy.fetch_add(1, Ordering::Relaxed);
            match job {
                Job::Remove(name, load, gone) => self.remove(name, load, gone),
                Job::Run(worker, batch, arrived) if self.generates(&batch.model) => {
                    // Busy until it ends.
                    if self.begin(&worker, batch, arrived) {
                        continue;
                    }
                }
                Job::Run(worker, batch, arrived) => {
                    let result = self.run(&worker, &batch, arrived).map(|done| done.result(&batch));
                    self.shelf.lock().ended(&batch.model);
                    // Counted before the result is out: whoever has the answer finds the device idle.
                    busy.fetch_sub(1, Ordering::Relaxed);
                    result.into_iter().for_each(|result| worker.deliver(result));
                    self.step(busy);
                    self.spare.waited(started.elapsed());
                    continue;
                }
                Job::Install(loaded, told) => {
                    let name = loaded.name.clone();
                    let measured = self.install(loaded);
                    self.shelf.lock().ended(&name);
                    told(measured);
                }
                Job::Look => {}
            }
            busy.fetch_sub(1, Ordering::Relaxed);
            self.spare.waited(started.elapsed());
        }
    }

    fn do_spare(&mut self, busy: &AtomicUsize) {
        self.make_pool();
        busy.fetch_add(1, Ordering::Relaxed);
        self.spare.run(self.pool.as_ref());
        busy.fetch_sub(1, Ordering::Relaxed);
    }

    fn make_pool(&mut self) {
        if self.pool.is_none() {
            let device = self.device.clone();
            let threads = rayon::ThreadPoolBuilder::new().num_threads(self.cores);
            let threads = threads.thread_name(move |index| format!("orion-{device}-{index}"));
            self.pool = threads.build().inspect_err(|error| tracing::error!(%error, "no_compute_threads")).ok();
        }
    }

    fn generates(&self, name: &str) -> bool {
        self.shelf.lock().models.get(name).is_some_and(|held| matches!(held.kept, Kept::Generator(_)))
    }

    /// Has a generator take a generation in. Says whether it began.
    fn begin(&mut self, worker: &Arc<Worker>, batch: Batch, arrived: Instant) -> bool {
        let name = batch.model.to_string();
        let mut shelf = self.shelf.lock();
        let held = shelf.models.remove(&name);
        drop(shelf);
        let Some(mut held) = held else { return false };
        let began = match &mut held.kept {
            Kept::Generator(sequences) => on_pool(self.pool.as_ref(), || sequences.add(worker, batch, arrived)),
            Kept::Model(..) => false,
        };
        let mut shelf = self.shelf.lock();
        shelf.put(name.clone(), held);
        if !began {
            shelf.ended(&name);
        } else if self.generating.iter().all(|other| other.name != name) {
            self.generating.push(Generating { name, removals: Vec::new() });
        }
        began
    }

    /// Each generator that has sequences takes a step.
    fn step(&mut self, busy: &AtomicUsize) {
        for mut generating in std::mem::take(&mut self.generating) {
            let held = self.shelf.lock().models.remove(&generating.name);
            let Some(mut held) = held else { continue };
            let (mut ended, mut idle) = (0, true);
            if let Kept::Generator(sequences) = &mut held.kept {
                ended = on_pool(self.pool.as_ref(), || sequences.step());
                idle = sequences.are_idle();
            }
            let mut shelf = self.shelf.lock();
            shelf.put(generating.name.clone(), held);
            (0..ended).for_each(|_| shelf.ended(&generating.name));
            drop(shelf);
            busy.fetch_sub(ended, Ordering::Relaxed);
            if !idle {
                self.generating.push(generating);
                continue;
            }
            for (load, gone) in generating.removals.drain(..) {
                self.remove(generating.name.clone(), load, gone);
            }
        }
    }

    /// Drops the model of this load once its batches have ended.
    fn remove(&mut self, name: String, load: u64, gone: Gone) {
        if let Some(generating) = self.generating.iter_mut().find(|generating| generating.name == name) {
            return generating.removals.push((load, gone));
        }
        let model = self.shelf.lock().take(&name, load);
        discard(model, gone);
    }

    fn install(&mut self, loaded: Loaded) -> Result<WarmedUp> {
        let Loaded { name, load, model, memory, pin } = loaded;
        let kept = match model {
            InMemory::Model(model) => Kept::Model(model, PeakMeter::default()),
            InMemory::Generator(generator) => Kept::Generator(Sequences::new(generator)),
        };
        let mut held = Held { load, kept, _memory: memory, _pin: pin };
        if held.computes() {
            self.make_pool();
        }
        let measured = held.warm_up(self.pool.as_ref(), &self.moves);
        if measured.is_ok() {
            self.shelf.lock().put(name, held);
        }
        measured
    }

    /// None if the batch was answered meanwhile, because nobody waits for it any more.
    fn run(&mut self, worker: &Worker, batch: &Batch, arrived: Instant) -> Option<Done> {
        let marks = worker.begin(batch.batch)?;
        let started = Instant::now();
        let wanted: Vec<bool> = marks.iter().map(|given_up| !given_up.is_set()).collect();
        let asked = batch.attempts.iter().zip(&marks).zip(&wanted).filter(|(_, wanted)| **wanted);
        let asked = asked.map(|((attempt, given_up), _)| (attempt, given_up));
        // Off the shelf while it runs: the lock is not held meanwhile, and what is pending cannot be removed.
        let held = {
            let mut shelf = self.shelf.lock();
            let held = shelf.models.remove(&*batch.model);
            shelf.running = held.as_ref().map_or(0, Held::room);
            held
        };
        let (mut answers, peak_bytes) = match held {
            None => (Vec::new().into_iter(), 0),
            Some(mut held) => {
                let rows = asked.clone().map(|(attempt, _)| rows_of(attempt)).fold(0, usize::saturating_add);
                let requests = asked.map(|(attempt, given_up)| model_request(attempt, given_up.clone())).collect();
                let (answers, peak_bytes) = held.run(rows, requests, self.pool.as_ref(), &self.moves);
                let mut shelf = self.shelf.lock();
                shelf.running = 0;
                shelf.models.insert(batch.model.to_string(), held);
                (answers.into_iter(), peak_bytes)
            }
        };
        let outcome = |wanted: &bool| match wanted {
            false => Outcome::cancelled(),
            true => match answers.next() {
                // Given up while it ran: its rows were not computed to their end.
                Some(Err(error)) if error.code == Code::Cancelled => Outcome::cancelled(),
                Some(outcome) => Outcome::Ran(outcome),
                None => Outcome::NotStarted(Error::new(
                    Code::Unavailable,
                    format!("model '{}' is not loaded on {} of this worker", batch.model, self.device),
                )),
            },
        };
        let outcomes = wanted.iter().map(outcome).collect();
        let service_seconds = started.elapsed().as_secs_f64();
        let waited_seconds = started.saturating_duration_since(arrived).as_secs_f64();
        Some(Done { outcomes, service_seconds, waited_seconds, peak_bytes })
    }
}
