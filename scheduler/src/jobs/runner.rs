//! Runs jobs: each attempt is a request of this scheduler.

mod call;

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use bytes::Bytes;
use orion_proto::{
    Code, Error, InferRequest, JobAttempt, Priority, Result,
    inference::ModelInferRequest,
    jobs::{JobResult, JobSpec, job_result::Outcome, job_spec::Work},
};
use prost::Message;
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
};

use super::{
    Jobs,
    ask::{Ask, Told},
    decide::Attempt,
    expand::expand,
    terms::Terms,
};
use crate::{
    api::{grpc::response, terms::ForJob},
    front::Front,
};
use call::Calls;

/// Attempts that are under way at once, half of them of one model: enough to fill every device's batches, few enough that what is
/// more urgent comes soon.
pub(super) const PLACES: usize = 512;
/// How often the writer looks at what time brought.
const TICK: Duration = Duration::from_millis(20);
/// How long an attempt waits before it looks again whether its model, or a place in a queue, is there.
const PATIENCE: Duration = Duration::from_millis(100);
/// Bytes of a result, encoded.
const MOST_RESULT_BYTES: usize = 4 << 20;

/// Runs what it is told until the writer is gone.
pub(super) async fn run(front: Front, jobs: Jobs, term: u64, mut told: mpsc::UnboundedReceiver<Told>) {
    let mut running: HashMap<u64, (Attempt, AbortHandle)> = HashMap::new();
    let mut attempts = JoinSet::new();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let calls = Calls::new(&front);
    let (mut workers, mut left) = (Workers::new(&front), jobs.left.subscribe());
    loop {
        tokio::select! {
            _ = left.wait_for(|left| *left) => break,
            next = told.recv() => match next {
                None => break,
                Some(Told::Begin(attempt, spec, _) | Told::Resume(attempt, spec, _)) if is_file(&spec) => {
                    running.insert(attempt.job, (attempt, attempts.spawn(run_file(jobs.clone(), attempt, *spec))));
                }
                Some(Told::Begin(attempt, spec, left)) => {
                    let one = run_attempt(front.clone(), calls.clone(), jobs.clone(), attempt, *spec, left);
                    running.insert(attempt.job, (attempt, attempts.spawn(one)));
                }
                Some(Told::Resume(attempt, spec, left)) => {
                    let one = resume_attempt(front.clone(), calls.clone(), jobs.clone(), attempt, *spec, left);
                    running.insert(attempt.job, (attempt, attempts.spawn(one)));
                }
                Some(Told::Stop(id)) => {
                    if let Some((_, handle)) = running.remove(&id) {
                        handle.abort();
                    }
                }
            },
            Some(ended) = attempts.join_next_with_id() => {
                let task = ended.as_ref().map_or_else(|error| error.id(), |(task, _)| *task);
                // One that was aborted is not in the map any more.
                let job = match &ended {
                    Ok((_, job)) => Some(*job),
                    Err(_) => running.iter().find(|(_, (_, handle))| handle.id() == task).map(|(job, _)| *job),
                };
                let was = job.filter(|job| running.get(job).is_some_and(|(_, handle)| handle.id() == task));
                let attempt = was.and_then(|job| running.remove(&job)).map(|(attempt, _)| attempt);
                if let (Some(attempt), Err(error)) = (attempt, ended) {
                    tracing::error!(job = attempt.job, attempt = attempt.attempt, %error, "attempt_panicked");
                    let outcome = Err(Error::new(Code::Internal, "its attempt ended unexpectedly, the scheduler's log says where"));
                    tokio::spawn(settle(jobs.clone(), attempt, outcome));
                }
            }
            _ = ticks.tick() => {
                // With a full channel it looks without being asked.
                let _ = jobs.asks.try_send(Ask::Tick);
                workers.tell(&front, &jobs);
            }
        }
    }
    // Whoever leads next goes on with what runs.
    front.hand_over(term);
    attempts.shutdown().await;
}

/// The workers that the writer knows of.
struct Workers {
    changed: watch::Receiver<u64>,
    told: Option<BTreeSet<String>>,
}

impl Workers {
    fn new(front: &Front) -> Self {
        Self { changed: front.changed(), told: None }
    }

    /// Tells the writer where there are others than before.
    fn tell(&mut self, front: &Front, jobs: &Jobs) {
        if self.told.is_some() && !self.changed.has_changed().unwrap_or(false) {
            return;
        }
        self.changed.mark_unchanged();
        let workers = front.workers();
        // With a full channel they are told at the next tick.
        if self.told.as_ref() != Some(&workers) {
            self.told = jobs.asks.try_send(Ask::Workers(workers.clone())).is_ok().then_some(workers);
        }
    }
}

/// Goes on with an attempt that a worker has; where none has, it is over, and does not count.
async fn resume_attempt(
    front: Front,
    calls: Calls,
    jobs: Jobs,
    attempt: Attempt,
    spec: JobSpec,
    left: Option<Duration>,
) -> u64 {
    // Whatever becomes of it, such as an end from outside, what nobody goes on with is called off.
    let _expected = Expected(front.clone(), attempt.name());
    if front.is_held(attempt.name(), &Terms::of(&spec, 0).model).await {
        tracing::debug!(job = attempt.job, attempt = attempt.attempt, "attempt_goes_on");
        // A writer that is gone begins nothing.
        let _ = jobs.asks.send(Ask::Found(attempt)).await;
        return run_attempt(front, calls, jobs, attempt, spec, left).await;
    }
    if let Err(error) = jobs.ask(|reply| Ask::Release(attempt, reply)).await {
        tracing::debug!(job = attempt.job, attempt = attempt.attempt, %error, "attempt_not_released");
    }
    attempt.job
}

/// An attempt that was under way when this scheduler came to lead, while somebody waits for it.
struct Expected(Front, JobAttempt);

impl Drop for Expected {
    fn drop(&mut self) {
        self.0.unexpect(self.1);
    }
}

impl Attempt {
    /// Its name among the requests of the scheduler.
    pub(crate) fn name(self) -> JobAttempt {
        JobAttempt { job: self.job, attempt: self.attempt }
    }
}

async fn run_attempt(
    front: Front,
    calls: Calls,
    jobs: Jobs,
    attempt: Attempt,
    spec: JobSpec,
    left: Option<Duration>,
) -> u64 {
    let outcome = work(&front, &calls, attempt, spec, left).await;
    settle(jobs, attempt, outcome).await;
    attempt.job
}

fn is_file(spec: &JobSpec) -> bool {
    matches!(spec.work, Some(Work::File(_)))
}

/// Takes up the lines of a file; the job ends with the last of them.
async fn run_file(jobs: Jobs, attempt: Attempt, spec: JobSpec) -> u64 {
    let Some(Work::File(calls)) = &spec.work else { return attempt.job };
    if let Err(error) = expand(&jobs, attempt, &spec, calls).await {
        settle(jobs, attempt, Err(error)).await;
    }
    attempt.job
}

async fn settle(jobs: Jobs, attempt: Attempt, outcome: Result<Bytes>) {
    if let Err(error) = jobs.ask(|reply| Ask::Settle(attempt, outcome, reply)).await {
        tracing::warn!(job = attempt.job, attempt = attempt.attempt, %error, "outcome_dropped");
    }
}

async fn work(front: &Front, calls: &Calls, attempt: Attempt, spec: JobSpec, left: Option<Duration>) -> Result<Bytes> {
    let terms = Terms::of(&spec, 0);
    let ends = left.and_then(|left| Instant::now().checked_add(left));
    let outcome = match spec.work {
        Some(Work::Inference(request)) => infer(front, attempt, request, terms.priority, ends).await?,
        Some(Work::Call(call)) => {
            let once = |left| calls.call(&call, ForJob { attempt: attempt.name(), priority: terms.priority, left });
            Outcome::Call(until_begun(front, &terms.model, "", ends, once).await?)
        }
        _ => return Err(Error::new(Code::Unimplemented, "this scheduler cannot run work of this kind")),
    };
    let result = JobResult { outcome: Some(outcome) };
    let bytes = result.encoded_len();
    if bytes > MOST_RESULT_BYTES {
        let text = format!("the result has {bytes} bytes, {MOST_RESULT_BYTES} are kept at most");
        return Err(Error::new(Code::FailedPrecondition, text));
    }
    Ok(result.encode_to_vec().into())
}

async fn infer(
    front: &Front,
    attempt: Attempt,
    request: ModelInferRequest,
    priority: Priority,
    ends: Option<Instant>,
) -> Result<Outcome> {
    let mut request = InferRequest::try_from(request)?;
    request.id = request_id(attempt.name());
    request.parameters.priority = priority;
    request.parameters.job = Some(attempt.name());
    let once = |left: Option<Duration>| {
        let mut request = request.clone();
        request.parameters.timeout = left.into_iter().chain(request.parameters.timeout).min();
        front.infer(request)
    };
    let answered = until_begun(front, &request.model, &request.version, ends, once).await?;
    Ok(Outcome::Inference(response(answered, request.id)))
}

/// By which a job's request is known among those of the scheduler.
pub(crate) fn request_id(of: JobAttempt) -> String {
    format!("job-{}.{}", of.job, of.attempt)
}

/// Asks, within what is left of its time, until what is asked has begun: before that it is no attempt.
async fn until_begun<T, F: Future<Output = Result<T>>>(
    front: &Front,
    model: &str,
    version: &str,
    ends: Option<Instant>,
    once: impl Fn(Option<Duration>) -> F,
) -> Result<T> {
    loop {
        wait_for_model(front, model, version).await?;
        let left = ends.map(|ends| ends.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)));
        match once(left).await {
            Err(Error { code: Code::ResourceExhausted, retry_after: Some(after), .. }) => {
                tokio::time::sleep(after.min(Duration::from_secs(1))).await;
            }
            // The server stops: whoever leads next finds the attempt as it is.
            Err(_) if front.draining() => std::future::pending().await,
            answered => return answered,
        }
    }
}

/// Returns when the model can answer: after a start its workers have yet to come back.
async fn wait_for_model(front: &Front, model: &str, version: &str) -> Result<()> {
    while !front.model_ready(model, version)? {
        tokio::time::sleep(PATIENCE).await;
    }
    Ok(())
}
