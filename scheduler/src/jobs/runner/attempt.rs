//! One attempt of a job, from its begin to its outcome.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use orion_proto::{
    Code, Error, InferRequest, JobAttempt, ModelSpec, Priority, Result,
    inference::ModelInferRequest,
    jobs::{FileCalls, JobResult, JobSpec, job_result, job_spec::Work},
    journal::Published,
};
use prost::Message;

use super::{call::Calls, train::Leaves};
use crate::{
    api::{grpc::response, terms::ForJob},
    front::Front,
    jobs::{
        Jobs,
        ask::{Ask, Outcome, Task},
        calls::inferred,
        decide::Attempt,
        expand::expand,
        large::{self, LARGE, Needed},
        terms::Terms,
        view::View,
    },
    journal::Staged,
};

/// How long an attempt waits before it looks again whether its model, or a place in a queue, is there.
const PATIENCE: Duration = Duration::from_millis(100);
/// Bytes of a result, encoded.
pub(super) const MOST_RESULT_BYTES: usize = 64 << 20;

/// What attempts are made with.
#[derive(Clone)]
pub(super) struct Attempter {
    pub(super) front: Front,
    calls: Calls,
    pub(super) jobs: Jobs,
    pub(super) leaves: Leaves,
}

impl Attempt {
    /// Its name among the requests of the scheduler.
    pub(crate) fn name(self) -> JobAttempt {
        JobAttempt { job: self.job, attempt: self.attempt }
    }
}

/// By which a job's request is known among those of the scheduler.
pub(crate) fn request_id(of: JobAttempt) -> String {
    format!("job-{}.{}", of.job, of.attempt)
}

/// An attempt that was under way when this scheduler came to lead, while somebody waits for it.
struct Expected(Front, JobAttempt);

impl Drop for Expected {
    fn drop(&mut self) {
        self.0.unexpect(self.1);
    }
}

/// A job that waits, of which that is told until it waits no longer or has ended.
pub(super) struct Waits(pub(super) Arc<View>, pub(super) u64);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.waits(self.1, None);
    }
}

impl Attempter {
    pub(super) fn new(front: Front, jobs: Jobs) -> Self {
        Self { calls: Calls::new(&front), front, jobs, leaves: Leaves::default() }
    }

    /// Makes an attempt; the number of its job.
    pub(super) async fn run(self, attempt: Attempt, task: Task) -> u64 {
        let Task { spec, needs, left } = task;
        if let Some(Work::File(calls)) = &spec.work {
            self.take_up(attempt, &spec, calls).await;
            return attempt.job;
        }
        if let Some(Work::Training(training)) = &spec.work {
            let outcome = self.train(attempt, training).await;
            self.settle(attempt, outcome).await;
            return attempt.job;
        }
        let ends = left.and_then(|left| Instant::now().checked_add(left));
        let outcome = match needs {
            None => self.work(attempt, spec, ends).await,
            Some(needs) => self.work_with(needs, attempt, spec, ends).await,
        };
        let outcome = outcome.map(|result| (result, None));
        self.settle(attempt, outcome).await;
        attempt.job
    }

    /// Goes on with an attempt that a worker has; where none has, it is over, and does not count.
    pub(super) async fn resume(self, attempt: Attempt, task: Task) -> u64 {
        // Of a training, workers say how far they are when they are asked.
        if matches!(task.spec.work, Some(Work::File(_) | Work::Training(_))) {
            return self.run(attempt, task).await;
        }
        // Whatever becomes of it, such as an end from outside, what nobody goes on with is called off.
        let _expected = Expected(self.front.clone(), attempt.name());
        if self.front.is_held(attempt.name(), &Terms::of(&task.spec, 0).model).await {
            tracing::debug!(job = attempt.job, attempt = attempt.attempt, "attempt_goes_on");
            // A writer that is gone begins nothing.
            let _ = self.jobs.asks.send(Ask::Found(attempt)).await;
            return self.run(attempt, task).await;
        }
        if let Err(error) = self.jobs.ask(|reply| Ask::Release(attempt, reply)).await {
            tracing::debug!(job = attempt.job, attempt = attempt.attempt, %error, "attempt_not_released");
        }
        attempt.job
    }

    /// Takes up the lines of a file; the job ends with the last of them.
    async fn take_up(&self, attempt: Attempt, spec: &JobSpec, calls: &FileCalls) {
        let taken_up = async {
            let model = self.model_of(attempt, calls).await?;
            expand(&self.jobs, attempt, spec, calls, model).await
        };
        if let Err(error) = taken_up.await {
            self.settle(attempt, Err(error)).await;
        }
    }

    /// The model whose inputs are the columns of a file.
    async fn model_of(&self, attempt: Attempt, calls: &FileCalls) -> Result<Option<Arc<ModelSpec>>> {
        let Some((name, version)) = inferred(calls) else { return Ok(None) };
        self.wait_for_model(attempt, name, version).await?;
        self.front.model_spec(name, version).map(Some)
    }

    /// Says how an attempt ended.
    pub(super) async fn settle(&self, attempt: Attempt, outcome: Result<(Bytes, Option<Published>)>) {
        let made = outcome.as_ref().ok().and_then(|(_, model)| model.clone());
        let outcome = match outcome {
            Ok((result, model)) => self.kept(result).await.map(|(row, staged)| Outcome { row, staged, model }),
            Err(error) => Err(error),
        };
        if let Err(error) = self.jobs.ask(|reply| Ask::Settle(attempt, outcome, reply)).await {
            tracing::warn!(job = attempt.job, attempt = attempt.attempt, %error, "outcome_dropped");
        } else if let Some(model) = made
            && let Err(error) = self.front.serve(&model.name, &model.path)
        {
            tracing::error!(job = attempt.job, %error, "trained_model_not_served");
        }
    }

    /// A result as its row has it, and the content that it is where that is too large.
    async fn kept(&self, result: Bytes) -> Result<(Bytes, Option<Staged>)> {
        if result.len() <= LARGE {
            return Ok((result, None));
        }
        let journal = self.jobs.view().journal().clone();
        let kept = tokio::task::spawn_blocking(move || large::row(&*journal, result)).await;
        kept.map_err(|_| Error::new(Code::Internal, "keeping its result failed unexpectedly"))?
    }

    /// Does the work of a job whose inputs are a content.
    async fn work_with(&self, needs: Needed, attempt: Attempt, spec: JobSpec, ends: Option<Instant>) -> Result<Bytes> {
        // What cannot begin has none of them in memory.
        let model = Terms::of(&spec, 0).model;
        self.wait_for_model(attempt, &model, "").await?;
        let _room = self.jobs.inputs.room(&model, needs.bytes()).await;
        let journal = self.jobs.view().journal().clone();
        let read = tokio::task::spawn_blocking(move || needs.complete(&*journal, spec)).await;
        let spec = read.map_err(|_| Error::new(Code::Internal, "reading its inputs failed unexpectedly"))??;
        self.work(attempt, spec, ends).await
    }

    async fn work(&self, attempt: Attempt, spec: JobSpec, ends: Option<Instant>) -> Result<Bytes> {
        let Terms { model, priority, .. } = Terms::of(&spec, 0);
        let outcome = match spec.work {
            Some(Work::Inference(request)) => self.infer(attempt, request, priority, ends).await?,
            Some(Work::Call(call)) => {
                let once = |left| self.calls.call(&call, ForJob { attempt: attempt.name(), priority, left });
                job_result::Outcome::Call(self.until_begun(attempt, (&model, ""), ends, once).await?)
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
        &self,
        attempt: Attempt,
        request: ModelInferRequest,
        priority: Priority,
        ends: Option<Instant>,
    ) -> Result<job_result::Outcome> {
        let mut request = InferRequest::try_from(request)?;
        request.id = request_id(attempt.name());
        request.parameters.priority = priority;
        (request.parameters.job, request.parameters.of_job) = (Some(attempt.name()), true);
        let once = |left: Option<Duration>| {
            let mut request = request.clone();
            request.parameters.timeout = left.into_iter().chain(request.parameters.timeout).min();
            self.front.infer(request)
        };
        let answered = self.until_begun(attempt, (&request.model, &request.version), ends, once).await?;
        Ok(job_result::Outcome::Inference(response(answered, request.id)))
    }

    /// Asks, within what is left of its time, until what is asked has begun: before that it is no attempt.
    async fn until_begun<T, F: Future<Output = Result<T>>>(
        &self,
        attempt: Attempt,
        (model, version): (&str, &str),
        ends: Option<Instant>,
        once: impl Fn(Option<Duration>) -> F,
    ) -> Result<T> {
        loop {
            self.wait_for_model(attempt, model, version).await?;
            let left = ends.map(|ends| ends.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)));
            match once(left).await {
                Err(Error { code: Code::ResourceExhausted, retry_after: Some(after), .. }) => {
                    tokio::time::sleep(after.min(Duration::from_secs(1))).await;
                }
                // The server stops: whoever leads next finds the attempt as it is.
                Err(_) if self.front.draining() => std::future::pending().await,
                answered => return answered,
            }
        }
    }

    /// Returns when the model can answer: after a start its workers have yet to come back.
    async fn wait_for_model(&self, attempt: Attempt, model: &str, version: &str) -> Result<()> {
        if self.front.model_ready(model, version)? {
            return Ok(());
        }
        let waits = Waits(self.jobs.view().clone(), attempt.job);
        while !self.front.model_ready(model, version)? {
            waits.0.waits(attempt.job, self.front.not_ready(model));
            tokio::time::sleep(PATIENCE).await;
        }
        Ok(())
    }
}
