//! Requests to ensembles: each of their parts is a request of this scheduler.

mod serving;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use orion_proto::{
    Code, Error, Fused, InferAnswer, InferRequest, ModelSpec, Result, Tensor,
    inference::infer_parameter::ParameterChoice,
};

use super::{
    Answered, Front,
    partial::{PARTIAL, Parts},
};
use crate::ensembles::{
    Ballot, Combine, Committee, DEEPEST, Entry, Flow, Form, Pipeline, Prepared, Step, combine, members_time,
    stacking_input,
};

/// Bytes of answers that are put together where they are; more is another thread's.
const COMBINED_HERE: usize = 1 << 20;

/// What all parts of a request have from it.
#[derive(Clone)]
struct Asked {
    request: InferRequest,
    deadline: Option<Instant>,
}

impl Asked {
    fn new(mut request: InferRequest) -> (Self, Vec<Tensor>) {
        let deadline = request.parameters.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let inputs = std::mem::take(&mut request.inputs);
        request.outputs.clear();
        // A name is of one request: after a takeover the whole is asked again.
        request.parameters.job = None;
        (Self { request, deadline }, inputs)
    }

    fn left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// The request to one part.
    fn part(&self, model: &str, version: &str, inputs: Vec<Tensor>, outputs: Vec<String>) -> Result<InferRequest> {
        let mut request = InferRequest { inputs, outputs, ..self.request.clone() };
        (request.model, request.version) = (model.into(), version.into());
        request.parameters.timeout = self.left();
        match request.parameters.timeout {
            Some(Duration::ZERO) => {
                Err(Error::new(Code::DeadlineExceeded, format!("the time ran out before '{model}' was asked")))
            }
            _ => Ok(request),
        }
    }
}

impl Front {
    /// The declaration of a model or an ensemble.
    pub(super) fn spec(&self, name: &str, version: &str) -> Result<Arc<ModelSpec>> {
        self.spec_within(name, version, &[])
    }

    /// `within`: the ensembles whose part it is.
    fn spec_within(&self, name: &str, version: &str, within: &[&str]) -> Result<Arc<ModelSpec>> {
        let Some(entry) = self.0.ensembles().find(name) else { return self.0.core().spec(name, version) };
        let spec = self.prepared(&entry, within)?.spec.clone();
        if version.is_empty() || version == spec.version {
            return Ok(spec);
        }
        let text = format!("model '{name}' has the version '{}', not '{version}'", spec.version);
        Err(Error::new(Code::NotFound, text))
    }

    fn prepared(&self, entry: &Entry, within: &[&str]) -> Result<Arc<Prepared>> {
        let name = entry.name.as_str();
        if within.contains(&name) || within.len() == DEEPEST {
            let way = [within, &[name]].concat().join(" → ");
            let text = if within.contains(&name) { "leads to itself" } else { "is made of too many, one in the other" };
            return Err(Error::new(Code::FailedPrecondition, format!("it {text}: {way}")));
        }
        let within = [within, &[name]].concat();
        let changes = self.0.changes();
        let fuses =
            |step: &str, model: &str| self.0.ensembles().find(model).is_none() && self.0.core().fuses(step, model);
        entry.prepare(&|part| self.spec_within(part, "", &within), &fuses, changes)
    }

    /// Answers a request; `parts` are told what an ensemble knows before.
    pub(super) async fn infer_in_parts(&self, request: InferRequest, parts: Option<Parts>) -> Result<Answered> {
        match self.0.ensembles().find(&request.model) {
            Some(entry) => self.infer_ensemble(entry, request, parts).await,
            None => self.infer(request).await,
        }
    }

    /// Whether a request asks for its answer in parts; its own parts do not.
    pub(super) fn take_partial(&self, request: &mut InferRequest) -> Result<bool> {
        let Some(at) = request.parameters.others.iter().position(|(name, _)| name == PARTIAL) else { return Ok(false) };
        match request.parameters.others.swap_remove(at).1.parameter_choice {
            Some(ParameterChoice::BoolParam(wanted)) => Ok(wanted),
            _ => Err(Error::invalid(format!("parameter '{PARTIAL}' must be a boolean"))),
        }
    }

    /// Answers a request to an ensemble. Dropping the future cancels what its parts were asked.
    pub(super) fn infer_ensemble(
        &self,
        entry: Arc<Entry>,
        mut request: InferRequest,
        parts: Option<Parts>,
    ) -> BoxFuture<'_, Result<Answered>> {
        async move {
            self.take_partial(&mut request)?;
            let spec = self.spec(&request.model, &request.version)?;
            let rows = spec.check_inputs(&request.inputs)?;
            spec.check_outputs(&request.outputs)?;
            let _place = entry.enter()?;
            let (started, outputs) = (Instant::now(), request.outputs.clone());
            let (asked, inputs) = Asked::new(request);
            let prepared = self.prepared(&entry, &[])?;
            let answered = match (&prepared.pipeline, &entry.ensemble()?.form) {
                (Some((pipeline, fused)), _) => {
                    self.flow((pipeline, fused), &asked, inputs, &outputs, parts.as_ref()).await
                }
                (None, Form::Committee(committee)) => self.ballot(committee, &asked, inputs).await,
                (None, Form::Pipeline(_)) => Err(Error::new(Code::Internal, "the pipeline was not prepared")),
            };
            entry.ended(self.0.now(), started.elapsed(), rows, answered.is_ok());
            let mut answer = answered?;
            answer.outputs.retain(|tensor| outputs.is_empty() || outputs.contains(&tensor.name));
            Ok(Answered { spec, answer })
        }
        .boxed()
    }

    /// Runs steps as soon as what they take is there.
    async fn flow(
        &self,
        (pipeline, fused): (&Pipeline, &[Option<Arc<ModelSpec>>]),
        asked: &Asked,
        inputs: Vec<Tensor>,
        outputs: &[String],
        parts: Option<&Parts>,
    ) -> Result<InferAnswer> {
        let (mut flow, ready) = Flow::new(pipeline, inputs, outputs);
        let mut running = FuturesUnordered::new();
        let start = |flow: &mut Flow<'_>, number: usize| {
            let step = &pipeline.steps[number];
            let outputs = flow.asks(number);
            let (steps, spec) = with_steps(step, fused[number].as_ref(), &outputs);
            let request = asked.part(step.model.as_str(), &step.version, flow.inputs(number), outputs);
            let request = request.map(|request| InferRequest { fused: steps, ..request });
            async move {
                let answered = match (request, spec) {
                    (Ok(request), Some(spec)) => Box::pin(self.infer_as(spec, request)).await,
                    (Ok(request), None) => Box::pin(self.infer(request)).await,
                    (Err(error), _) => Err(error),
                };
                let in_step =
                    |error: Error| Error { message: format!("step '{}': {}", step.name, error.message), ..error };
                (number, answered.map_err(in_step))
            }
        };
        for number in ready {
            running.push(start(&mut flow, number));
        }
        let mut usage_tokens = 0u64;
        while let Some((number, answered)) = running.next().await {
            let answer = answered?.answer;
            usage_tokens = usage_tokens.saturating_add(answer.usage_tokens);
            for next in flow.answered(number, answer.outputs)? {
                running.push(start(&mut flow, next));
            }
            if let Some(parts) = parts.filter(|_| !running.is_empty()) {
                parts.tell(flow.news());
            }
        }
        drop(running);
        Ok(InferAnswer { outputs: flow.outputs(), usage_tokens, delta: None })
    }

    /// Asks all members; what enough of them say in time is put together.
    async fn ballot(&self, committee: &Committee, asked: &Asked, inputs: Vec<Tensor>) -> Result<InferAnswer> {
        let mut ballot = Ballot::new(committee);
        let until = asked.left().and_then(|left| Instant::now().checked_add(members_time(left)));
        let mut running: FuturesUnordered<_> = (0..committee.members.len())
            .map(|number| {
                let inputs = inputs.clone();
                async move { (number, self.member(committee, number, asked, inputs).await) }
            })
            .collect();
        let (mut enough, mut usage_tokens) = (None, 0u64);
        while !ballot.is_over() {
            let ends = [until, enough].into_iter().flatten().min();
            let next = match ends {
                // The runtime's timers count whole milliseconds.
                Some(ends) if ends <= Instant::now() => break,
                None => running.next().await,
                Some(ends) => match tokio::time::timeout_at(ends.into(), running.next()).await {
                    Ok(next) => next,
                    Err(_) => break,
                },
            };
            let Some((number, answer)) = next else { break };
            let answer = answer.map(|(tensor, tokens)| {
                usage_tokens = usage_tokens.saturating_add(tokens);
                tensor
            });
            ballot.says(number, answer);
            if enough.is_none() && ballot.has_quorum() {
                enough = Instant::now().checked_add(committee.wait);
            }
        }
        // Those that are late are called off.
        drop(running);
        let given: Vec<(Tensor, f32)> =
            ballot.close()?.into_iter().map(|(tensor, weight)| (tensor.clone(), weight)).collect();
        let mut combined = put_together(committee.combine.clone(), given).await?;
        if let Combine::Stacking { model, input } = &committee.combine {
            let mut answers = combined.remove(0);
            answers.name = stacking_input(&*self.spec(model.as_str(), "")?, input)?.name.clone();
            let request = asked.part(model.as_str(), "", vec![answers], Vec::new())?;
            let mut stacked = Box::pin(self.infer(request)).await?.answer.outputs;
            stacked.append(&mut combined);
            combined = stacked;
        }
        Ok(InferAnswer { outputs: combined, usage_tokens, delta: None })
    }

    /// What a member answers, and the tokens that it read.
    async fn member(
        &self,
        committee: &Committee,
        number: usize,
        asked: &Asked,
        inputs: Vec<Tensor>,
    ) -> Result<(Tensor, u64)> {
        let model = committee.members[number].model.as_str();
        let output = committee.output_of(&*self.spec(model, "")?)?.name.clone();
        let request = asked.part(model, "", inputs, vec![output.clone()])?;
        let InferAnswer { outputs, usage_tokens, .. } = Box::pin(self.infer(request)).await?.answer;
        let found = outputs.into_iter().find(|tensor| tensor.name == output);
        let missing = || Error::new(Code::Internal, format!("model '{model}' did not answer its output '{output}'"));
        found.map(|tensor| (tensor, usage_tokens)).ok_or_else(missing)
    }
}

/// The steps that run with a model, and what they take and give together: only what is asked for.
fn with_steps(
    step: &Step,
    spec: Option<&Arc<ModelSpec>>,
    outputs: &[String],
) -> (Option<Arc<Fused>>, Option<Arc<ModelSpec>>) {
    match (&step.fused, spec) {
        (Some(fused), Some(spec)) if outputs.len() < fused.outputs.len() => {
            let mut spec = ModelSpec::clone(spec);
            spec.outputs.retain(|output| outputs.contains(&output.name));
            (Some(Arc::new(fused.only(outputs))), Some(Arc::new(spec)))
        }
        (fused, spec) => (fused.clone(), spec.cloned()),
    }
}

async fn put_together(how: Combine, given: Vec<(Tensor, f32)>) -> Result<Vec<Tensor>> {
    let bytes: usize = given.iter().map(|(tensor, _)| tensor.data.len()).sum();
    let work = move || {
        let given: Vec<(&Tensor, f32)> = given.iter().map(|(tensor, weight)| (tensor, *weight)).collect();
        combine(&how, &given)
    };
    if bytes <= COMBINED_HERE {
        return work();
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Error::new(Code::Internal, "putting the answers together failed unexpectedly"))?
}
