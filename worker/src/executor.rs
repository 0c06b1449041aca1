//! One OS thread per device. Models live on it; kernels use a pool of its own, sized by the cores that it owns.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Instant,
};

use orion_models::Model;
use orion_net::Batch;
use orion_proto::{Code, Error, InferAnswer, Result, ServiceCurve};

use crate::worker::{Worker, batch_result, model_request};

/// Batch sizes that warm-up runs: two points make a line, each run once more than it counts.
const WARM_UP_ROWS: [usize; 2] = [1, 8];

type WarmedUp = Box<dyn FnOnce(Result<ServiceCurve>) + Send>;

enum Job {
    Run(Arc<Worker>, Batch),
    Install(String, u64, Box<dyn Model>, WarmedUp),
    Remove(String, u64),
}

/// A device's thread.
pub(crate) struct Executor {
    pub(crate) device: &'static str,
    jobs: mpsc::Sender<Job>,
}

impl Executor {
    /// Starts the thread, and a pool of `cores` threads for its kernels.
    pub(crate) fn start(device: &'static str, cores: usize, busy: Arc<AtomicUsize>) -> Result<Self> {
        let (jobs, queue) = mpsc::channel();
        let no_thread = |error: &dyn std::fmt::Display| {
            Error::new(Code::Internal, format!("cannot start the executor of {device}: {error}"))
        };
        let thread = std::thread::Builder::new().name(format!("orion-{device}"));
        thread.spawn(move || run(device, cores, &queue, &busy)).map_err(|error| no_thread(&error))?;
        Ok(Self { device, jobs })
    }

    /// Runs a batch; its result is delivered by the worker.
    pub(crate) fn run(&self, worker: &Arc<Worker>, batch: Batch) {
        self.send(Job::Run(worker.clone(), batch));
    }

    /// Takes a loaded model and warms it up; `warmed_up` gets its measured curve.
    pub(crate) fn install(&self, name: String, load: u64, model: Box<dyn Model>, warmed_up: WarmedUp) {
        self.send(Job::Install(name, load, model, warmed_up));
    }

    /// Drops the model of this load, after the batches that came before; one of a later load stays.
    pub(crate) fn remove(&self, name: String, load: u64) {
        self.send(Job::Remove(name, load));
    }

    fn send(&self, job: Job) {
        let Err(mpsc::SendError(job)) = self.jobs.send(job) else { return };
        tracing::error!(device = self.device, "executor_ended");
        let ended = || Error::new(Code::Unavailable, format!("the executor of {} has ended", self.device));
        match job {
            Job::Run(worker, batch) => {
                let outcomes = batch.attempts.iter().map(|_| Err(ended())).collect();
                worker.deliver(batch_result(&batch, outcomes, Instant::now()));
            }
            Job::Install(_, _, _, warmed_up) => warmed_up(Err(ended())),
            Job::Remove(..) => {}
        }
    }
}

fn run(device: &'static str, cores: usize, queue: &mpsc::Receiver<Job>, busy: &AtomicUsize) {
    let mut models: HashMap<String, (u64, Box<dyn Model>)> = HashMap::new();
    // Made with the first model: a worker without one needs no pool.
    let mut pool: Option<rayon::ThreadPool> = None;
    while let Ok(job) = queue.recv() {
        busy.fetch_add(1, Ordering::Relaxed);
        match job {
            Job::Remove(name, load) => {
                let model = models.get(&name).is_some_and(|(of, _)| *of == load).then(|| models.remove(&name));
                // A model whose drop panics must not take the device with it.
                let _ = catch_unwind(AssertUnwindSafe(|| drop(model)));
            }
            Job::Run(worker, batch) => {
                let started = Instant::now();
                let outcomes =
                    run_batch(&worker, &batch, models.get_mut(&*batch.model).map(|(_, model)| model), pool.as_ref());
                // Counted before the result is out: whoever has the answer finds the device idle.
                busy.fetch_sub(1, Ordering::Relaxed);
                worker.deliver(batch_result(&batch, outcomes, started));
                continue;
            }
            Job::Install(name, load, mut model, warmed_up) => {
                let threads = rayon::ThreadPoolBuilder::new().num_threads(cores);
                let threads = threads.thread_name(move |index| format!("orion-{device}-{index}"));
                if pool.is_none() {
                    pool = threads.build().inspect_err(|error| tracing::error!(%error, "no_compute_threads")).ok();
                }
                let curve = warm_up(&mut *model, pool.as_ref());
                if curve.is_ok() {
                    models.insert(name, (load, model));
                }
                warmed_up(curve);
            }
        }
        busy.fetch_sub(1, Ordering::Relaxed);
    }
}

fn guarded<R: Send>(pool: Option<&rayon::ThreadPool>, work: impl FnOnce() -> R + Send) -> Result<R> {
    let work = || match pool {
        Some(pool) => pool.install(work),
        None => work(),
    };
    // A model that panics fails its batch, not its worker.
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| Error::new(Code::Internal, "the model failed on this batch"))
}

fn run_batch(
    worker: &Worker,
    batch: &Batch,
    model: Option<&mut Box<dyn Model>>,
    pool: Option<&rayon::ThreadPool>,
) -> Vec<Result<InferAnswer>> {
    let every = |error: Error| batch.attempts.iter().map(|_| Err(error.clone())).collect();
    let Some(model) = model else {
        return every(Error::new(Code::Unavailable, format!("model '{}' is not loaded on this worker", batch.model)));
    };
    let waited_for: Vec<bool> = batch.attempts.iter().map(|a| !worker.is_cancelled(batch.batch, a.attempt)).collect();
    let requests = batch.attempts.iter().zip(&waited_for).filter(|(_, w)| **w).map(|(a, _)| model_request(a)).collect();
    let mut outcomes = match guarded(pool, || model.run(requests)) {
        Ok(outcomes) => outcomes.into_iter(),
        Err(error) => return every(error),
    };
    let cancelled = || Err(Error::new(Code::Cancelled, "the client went away"));
    let missing = || Err(Error::new(Code::Internal, "the model gave no answer to this request"));
    waited_for.iter().map(|w| if *w { outcomes.next().unwrap_or_else(missing) } else { cancelled() }).collect()
}

/// Runs typical batches and draws the line through what they took.
fn warm_up(model: &mut dyn Model, pool: Option<&rayon::ThreadPool>) -> Result<ServiceCurve> {
    if let Some(curve) = model.known_curve() {
        return Ok(curve);
    }
    let mut seconds = [0.0; 2];
    for (rows, seconds) in WARM_UP_ROWS.iter().zip(&mut seconds) {
        let rows = (*rows).min(model.spec().max_batch_rows);
        let mut run = || {
            let (answers, seconds) = guarded(pool, || {
                let sample = model.sample(rows);
                let started = Instant::now();
                (model.run(vec![sample]), started.elapsed().as_secs_f64())
            })?;
            answers.into_iter().collect::<Result<Vec<_>>>()?;
            Ok(seconds)
        };
        // The first touches memory and fills caches; the faster of the two next is the curve's.
        run()?;
        *seconds = f64::min(run()?, run()?);
    }
    let [one, many] = seconds;
    let rows = (WARM_UP_ROWS[1].min(model.spec().max_batch_rows) - 1).max(1);
    let per_row_seconds = ((many - one) / rows as f64).max(0.0);
    Ok(ServiceCurve { base_seconds: (one - per_row_seconds).max(0.0), per_row_seconds })
}
