//! The one door through which every API shell reaches the scheduler. Shells parse and render; they decide nothing.

mod ensembles;
mod generating;
mod generation_tensors;
mod partial;
mod reclaiming;
mod training;

use std::sync::Arc;

use orion_proto::{Code, Error, InferAnswer, InferRequest, ModelName, ModelSpec, Result, cluster, inference};
use tokio::sync::oneshot;

use crate::{
    core::{Admitted, Cordon, ModelState, ModelView, RequestKey, Statistics, Totals},
    scheduler::Scheduler,
    session::Traffic,
};

pub use generating::Generating;

/// A handle on the scheduler, cheap to clone.
#[derive(Clone)]
pub struct Front(pub(crate) Arc<Scheduler>);

/// An answered request, with the model that answered it.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The model as it is served.
    pub spec: Arc<ModelSpec>,
    /// What it answered.
    pub answer: InferAnswer,
}

/// Takes the request out of the scheduler when the client's future is dropped.
struct CancelOnDrop<'a> {
    scheduler: &'a Scheduler,
    key: Option<RequestKey>,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.scheduler.with_core(|core, now| core.cancel(now, key));
        }
    }
}

impl Front {
    /// Validates, queues, runs and answers one request. Dropping the future cancels it.
    ///
    /// # Errors
    /// INVALID_ARGUMENT or NOT_FOUND before anything is queued; UNAVAILABLE, RESOURCE_EXHAUSTED or DEADLINE_EXCEEDED
    /// when it cannot be run; whatever the model answers.
    pub async fn infer(&self, request: InferRequest) -> Result<Answered> {
        let scheduler = &*self.0;
        if let Some(ensemble) = scheduler.ensembles().find(&request.model) {
            return self.infer_ensemble(ensemble, request, None).await;
        }
        let spec = scheduler.core().spec(&request.model, &request.version)?;
        if spec.generator.is_some() {
            return self.generate_whole(request).await;
        }
        self.infer_as(spec, request).await
    }

    /// Answers a request to a model that is declared so.
    async fn infer_as(&self, spec: Arc<ModelSpec>, request: InferRequest) -> Result<Answered> {
        let scheduler = &*self.0;
        let rows = spec.check_inputs(&request.inputs)?;
        spec.check_outputs(&request.outputs)?;
        let wanted = request.outputs.clone();
        let timeout = request.parameters.timeout;
        let bytes = request.bytes();
        let (ticket, mut answer) = oneshot::channel();
        let key = scheduler.with_core(|core, now| {
            let deadline = timeout.map(|t| now.saturating_add(u64::try_from(t.as_nanos()).unwrap_or(u64::MAX)));
            let request = Arc::new(request);
            core.submit(now, Admitted { spec, request, rows, bytes, deadline, generation: None }, ticket)
        })?;
        // An inline model has answered by now: no waiting, no guard.
        let outcome = match answer.try_recv() {
            Ok(outcome) => outcome,
            Err(_) => {
                let mut guard = CancelOnDrop { scheduler, key: Some(key) };
                let outcome = wait(answer, timeout, || scheduler.with_core(|core, now| core.expire(now, key))).await;
                guard.key = None;
                outcome
            }
        };
        let mut answered = outcome?;
        if !wanted.is_empty() {
            answered.answer.outputs.retain(|tensor| wanted.contains(&tensor.name));
        }
        Ok(answered)
    }

    /// Whether the server takes inference: it is not draining, and every served model is ready or has failed for good.
    pub fn ready(&self) -> bool {
        let core = self.0.core();
        let settled = |model: &ModelView| model.state.answers() || model.state == ModelState::Failed;
        !core.is_draining() && core.models().iter().filter(|model| model.wanted).all(settled)
    }

    /// Whether new requests are refused because the server stops.
    pub fn draining(&self) -> bool {
        self.0.core().is_draining()
    }

    /// Completes when every accepted request was answered and the server stops.
    pub fn drained(&self) -> impl Future<Output = ()> + Send + 'static {
        self.0.drained()
    }

    /// The model's declaration.
    ///
    /// # Errors
    /// NOT_FOUND for an unknown name or version, UNAVAILABLE while no worker has loaded it.
    pub fn model_spec(&self, name: &str, version: &str) -> Result<Arc<ModelSpec>> {
        self.spec(name, version)
    }

    /// Whether the model can answer now.
    ///
    /// # Errors
    /// NOT_FOUND for an unknown name or version.
    pub fn model_ready(&self, name: &str, version: &str) -> Result<bool> {
        match self.spec(name, version) {
            Ok(_) => Ok(self.view(name)?.state.answers() && !self.draining()),
            Err(error) if error.code == Code::Unavailable => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Why this model cannot answer now; none where it can, or there is none.
    pub fn not_ready(&self, name: &str) -> Option<String> {
        match self.0.ensembles().find(name) {
            Some(entry) => {
                Some(self.ensemble_view(&entry)).filter(|view| !view.state.answers()).map(|view| view.reason)
            }
            None => self.0.core().why_not_ready(name).map(|error| error.message),
        }
    }

    /// Names of all models that can answer now, sorted.
    pub fn ready_models(&self) -> Vec<String> {
        let ready = |view: &ModelView| view.state.answers();
        self.models().into_iter().filter(ready).map(|view| view.name.to_string()).collect()
    }

    /// Statistics of one model, or of all that were ever loaded when `name` is empty.
    ///
    /// # Errors
    /// NOT_FOUND for an unknown name or version.
    pub fn statistics(&self, name: &str, version: &str) -> Result<Vec<inference::ModelStatistics>> {
        if name.is_empty() {
            return Ok(self.models().iter().filter(|v| v.spec.is_some()).map(|v| self.model_statistics(v)).collect());
        }
        self.spec(name, version)?;
        Ok(vec![self.model_statistics(&self.view(name)?)])
    }

    fn model_statistics(&self, view: &ModelView) -> inference::ModelStatistics {
        let s: &Statistics = &view.statistics;
        let duration = |count, ns| Some(inference::StatisticDuration { count, ns });
        let batch = |(rows, (count, ns)): (&u64, &(u64, u64))| inference::InferBatchStatistics {
            batch_size: *rows,
            compute_infer: duration(*count, *ns),
            ..Default::default()
        };
        inference::ModelStatistics {
            name: view.name.to_string(),
            version: view.spec.as_ref().map(|spec| spec.version.clone()).unwrap_or_default(),
            last_inference: if s.succeeded == 0 { 0 } else { self.0.unix_millis(s.last) },
            inference_count: s.rows,
            execution_count: s.batches,
            inference_stats: Some(inference::InferStatistics {
                success: duration(s.succeeded, s.succeeded_ns),
                fail: duration(s.failed, s.failed_ns),
                queue: duration(s.succeeded, s.queue_ns),
                compute_input: duration(s.succeeded, s.carriage_ns),
                compute_infer: duration(s.succeeded, s.compute_ns),
                compute_output: duration(s.succeeded, 0),
                ..Default::default()
            }),
            batch_stats: s.by_rows.iter().map(batch).collect(),
            ..Default::default()
        }
    }

    /// Every known model and its state; those of the repository that were never loaded too.
    pub fn repository_index(&self, ready_only: bool) -> Vec<inference::repository_index_response::ModelIndex> {
        let mut index: Vec<_> = self.models().iter().map(model_index).collect();
        for name in self.0.repository().names() {
            if index.iter().all(|model| model.name != name) {
                let reason = self.refusal(&name).map_or_else(|| "not loaded".to_owned(), |error| error.message);
                let state = ModelState::Unloaded.triton().to_owned();
                index.push(inference::repository_index_response::ModelIndex {
                    name,
                    state,
                    reason,
                    ..Default::default()
                });
            }
        }
        index.retain(|model| !ready_only || model.state == ModelState::Ready.triton());
        index.sort_by(|a, b| a.name.cmp(&b.name));
        index
    }

    /// Loads a model of the repository on every worker; returns when one has it.
    ///
    /// # Errors
    /// NOT_FOUND when the repository has no such model; UNAVAILABLE when no worker is there;
    /// FAILED_PRECONDITION with every worker's reason when none could load it.
    pub async fn load_model(&self, name: &str) -> Result<()> {
        let name = ModelName::new(name)?;
        let path = self.0.repository().path_of(&name)?;
        let mut changed = self.0.changed();
        if !self.serve_ensemble(&name, &path)? {
            self.0.with_core(|core, now| core.want(now, &name, path, true));
        }
        loop {
            changed.borrow_and_update();
            let view = self.view(name.as_str())?;
            match view.state {
                ModelState::Ready => return Ok(()),
                // It could be read, and no device takes it: others may come.
                ModelState::Failed if view.spec.is_some() && !view.failed_to_load => {
                    return Err(Error::new(Code::Unavailable, view.reason));
                }
                ModelState::Failed => return Err(Error::new(Code::FailedPrecondition, view.reason)),
                ModelState::Unloaded => return Err(Error::new(Code::Unavailable, view.reason)),
                ModelState::Loading | ModelState::Unloading | ModelState::Cold => {}
            }
            if changed.changed().await.is_err() {
                return Err(Error::new(Code::Unavailable, "the server is stopping"));
            }
        }
    }

    /// Unloads a model everywhere.
    ///
    /// # Errors
    /// NOT_FOUND for an unknown name; INVALID_ARGUMENT for a built-in one.
    pub async fn unload_model(&self, name: &str) -> Result<()> {
        match self.unload_ensemble(name) {
            true => Ok(()),
            false => self.0.with_core(|core, now| core.unwant(now, name)),
        }
    }

    /// Counts since the start.
    pub fn totals(&self) -> Totals {
        self.0.core().totals()
    }

    /// Every model.
    pub fn models(&self) -> Vec<ModelView> {
        let mut models = self.0.core().models();
        let ensembles = self.0.ensembles().all();
        if !ensembles.is_empty() {
            models.retain(|model| ensembles.iter().all(|ensemble| ensemble.name.as_str() != &*model.name));
            models.extend(ensembles.iter().map(|ensemble| self.ensemble_view(ensemble)));
            models.sort_by(|one, other| one.name.cmp(&other.name));
        }
        models
    }

    /// Names in the repository that cannot be served, and why.
    pub fn left_out(&self) -> Vec<(String, Error)> {
        let names = self.0.repository().names().into_iter();
        names.filter_map(|name| self.refusal(&name).map(|error| (name, error))).collect()
    }

    fn refusal(&self, name: &str) -> Option<Error> {
        ModelName::new(name).and_then(|name| self.0.repository().path_of(&name)).err()
    }

    /// Every worker that was ever here, and those that an earlier process knew as cordoned or drained.
    pub fn nodes(&self) -> Vec<cluster::Node> {
        let now = self.0.now();
        self.0.core().nodes(now)
    }

    /// Takes a node out of placement, empties it, or takes it back; says what it is then.
    ///
    /// # Errors
    /// NOT_FOUND for an unknown node; INVALID_ARGUMENT for an unknown action; INTERNAL where it is done, but could not be
    /// kept for the next process.
    pub fn set_node(&self, name: &str, action: &str) -> Result<String> {
        let cordon = match action {
            "cordon" => Cordon::Cordoned,
            "drain" => Cordon::Draining,
            "uncordon" => Cordon::No,
            _ => return Err(Error::invalid(format!("action '{action}' must be cordon, drain or uncordon"))),
        };
        self.0.cordon(name, cordon)
    }

    /// The stages of a request that its client named, and why its device.
    ///
    /// # Errors
    /// NOT_FOUND when it is not under way and not among the last that were answered.
    pub fn explain_request(&self, id: &str) -> Result<cluster::RequestExplanation> {
        let now = self.0.now();
        self.0.core().explain_request(now, id)
    }

    /// Every device's predicted cost for a model, or why it does not take it.
    ///
    /// # Errors
    /// NOT_FOUND for an unknown name; FAILED_PRECONDITION for an ensemble, naming its parts.
    pub fn explain_model(&self, name: &str) -> Result<cluster::ModelExplanation> {
        self.refuse_ensemble(name)?;
        let now = self.0.now();
        self.0.core().explain_model(now, name)
    }

    /// The scheduler's epoch.
    pub fn epoch(&self) -> u64 {
        self.0.core().epoch()
    }

    /// What was relayed between workers.
    pub(crate) fn relayed(&self) -> &Traffic {
        self.0.relayed()
    }

    /// Seconds since the scheduler started.
    pub fn uptime_seconds(&self) -> f64 {
        self.0.now() as f64 / 1e9
    }
}

/// The outcome. When the time runs out first, `expire` makes the core settle the request.
async fn wait(
    mut answer: oneshot::Receiver<Result<Answered>>,
    timeout: Option<std::time::Duration>,
    expire: impl FnOnce(),
) -> Result<Answered> {
    let in_time = match timeout {
        None => None,
        Some(timeout) => tokio::time::timeout(timeout, &mut answer).await.inspect_err(|_| expire()).ok(),
    };
    let settled = match in_time {
        Some(settled) => settled,
        None => answer.await,
    };
    settled.unwrap_or_else(|_| Err(Error::new(Code::Internal, "the scheduler dropped the request")))
}

fn model_index(view: &ModelView) -> inference::repository_index_response::ModelIndex {
    inference::repository_index_response::ModelIndex {
        name: view.name.to_string(),
        version: view.spec.as_ref().map(|spec| spec.version.clone()).unwrap_or_default(),
        state: view.state.triton().into(),
        reason: view.reason.clone(),
    }
}
