//! A generation under way, as an API shell sees it.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Instant, SystemTime},
};

use futures::{Stream, stream};
use orion_proto::{Code, Delta, Error, InferRequest, ModelSpec, Result};
use tokio::sync::{mpsc, oneshot};

use super::{Answered, Front, generation_tensors};
use crate::{
    core::{Admitted, Listener, Opening, Prefix, RequestKey},
    scheduler::Scheduler,
};

/// Bytes of a prompt for each token of its model's context; those of text that is worth reading have a few.
const TOKEN_BYTES: usize = 1024;

/// A generation's steps, one after the other. Dropping it cancels the generation.
pub struct Generating {
    scheduler: Arc<Scheduler>,
    key: RequestKey,
    spec: Arc<ModelSpec>,
    deadline: Option<Instant>,
    steps: mpsc::UnboundedReceiver<Delta>,
    answer: Option<oneshot::Receiver<Result<Answered>>>,
    /// Tokens that were given out.
    given: u32,
    /// Steps that came before those that they follow, by their position: two threads may have told them.
    early: BTreeMap<u32, Delta>,
}

#[derive(Debug)]
struct Steps(mpsc::UnboundedSender<Delta>);

impl Listener for Steps {
    fn tell(&self, delta: Delta) {
        // The client may have gone. There are no more steps than tokens, so they need no further bound.
        let _ = self.0.send(delta);
    }
}

impl Front {
    /// Validates and queues a generation; its steps come from what is returned.
    ///
    /// # Errors
    /// INVALID_ARGUMENT or NOT_FOUND before anything is queued; UNAVAILABLE or RESOURCE_EXHAUSTED when it cannot be run.
    pub fn generate(&self, mut request: InferRequest) -> Result<Generating> {
        let scheduler = self.0.clone();
        let (spec, epoch) = {
            let core = scheduler.core();
            (core.spec(&request.model, &request.version)?, core.epoch())
        };
        let Some(generator) = &spec.generator else {
            return Err(Error::invalid(format!("model '{}' does not generate text", spec.name)));
        };
        let generation = request.generation.as_mut();
        let generation = generation.ok_or_else(|| Error::invalid("the request says nothing to generate from"))?;
        generation.check()?;
        if generation.asked == 0 {
            generation.asked = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
        }
        let most = TOKEN_BYTES.saturating_mul(generator.context_tokens as usize);
        if generation.bytes() > most {
            return Err(Error::invalid(format!(
                "the prompt and what is said beside it have {} bytes, at most {most} are taken: {TOKEN_BYTES} for each of the \
                 {} tokens that model '{}' holds",
                generation.bytes(),
                generator.context_tokens,
                spec.name
            )));
        }
        // Here, where the core's lock is not held: a prompt may be long.
        let prefix = Prefix::new(epoch, &generation.prompt);
        let (bytes, timeout) = (request.bytes(), request.parameters.timeout);
        let (listener, steps) = mpsc::unbounded_channel();
        let (ticket, answer) = oneshot::channel();
        let admitted = Admitted {
            spec: spec.clone(),
            request: Arc::new(request),
            rows: 1,
            bytes,
            deadline: None,
            generation: Some(Opening { listener: Arc::new(Steps(listener)), prefix }),
        };
        let key = scheduler.with_core(|core, now| {
            let deadline = timeout.map(|t| now.saturating_add(u64::try_from(t.as_nanos()).unwrap_or(u64::MAX)));
            core.submit(now, Admitted { deadline, ..admitted }, ticket)
        })?;
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let (answer, early) = (Some(answer), BTreeMap::new());
        Ok(Generating { scheduler, key, spec, deadline, steps, answer, given: 0, early })
    }
}

impl Front {
    /// Whether a model generates; one that is not known does not.
    pub fn generates(&self, name: &str) -> bool {
        self.0.core().spec(name, "").is_ok_and(|spec| spec.generator.is_some())
    }

    /// A generation whose request is tensors, answered as a whole.
    pub(super) async fn generate_whole(&self, mut request: InferRequest) -> Result<Answered> {
        generation_tensors::read(&mut request)?;
        let mut generating = self.generate(request)?;
        let (mut text, mut usage_tokens) = (String::new(), 0);
        while let Some(delta) = generating.next().await {
            let delta = delta?;
            text.push_str(&delta.text);
            usage_tokens = u64::from(delta.prompt_tokens);
        }
        let answer = generation_tensors::answer(&text, usage_tokens);
        Ok(Answered { spec: generating.spec.clone(), answer })
    }

    /// A generation whose request is tensors, answered step by step; one that is not to be streamed in one step.
    ///
    /// # Errors
    /// As [`Front::generate`]; the stream ends with what fails later.
    pub fn answers(&self, mut request: InferRequest) -> Result<impl Stream<Item = Result<Answered>> + Send + use<>> {
        let streamed = generation_tensors::read(&mut request)?;
        let generating = self.generate(request)?;
        Ok(stream::unfold(generating, move |mut generating| async move {
            let mut step = generating.next().await?;
            while let Ok(delta) = &mut step
                && !streamed
                && let Some(next) = generating.next().await
            {
                match next {
                    Ok(next) => {
                        let text = std::mem::take(&mut delta.text) + &next.text;
                        *delta = Delta { text, ..next };
                    }
                    Err(error) => step = Err(error),
                }
            }
            let spec = generating.spec.clone();
            let answered = step.map(|delta| Answered { spec, answer: generation_tensors::step(&delta) });
            Some((answered, generating))
        }))
    }
}

impl Generating {
    /// The model as it is served.
    pub fn spec(&self) -> &Arc<ModelSpec> {
        &self.spec
    }

    /// The next step; the one with a finish is the last, as is an error. None after the last.
    pub async fn next(&mut self) -> Option<Result<Delta>> {
        loop {
            if let Some(delta) = self.early.remove(&self.given) {
                self.given = self.given.saturating_add(u32::try_from(delta.tokens.len()).unwrap_or(u32::MAX));
                return Some(Ok(delta));
            }
            let answer = self.answer.as_mut()?;
            let expired = async {
                match self.deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(delta) = self.steps.recv() => {
                    self.early.insert(delta.position, delta);
                }
                settled = answer => {
                    self.answer = None;
                    return Some(self.last(settled).await);
                }
                () = expired => {
                    self.deadline = None;
                    self.scheduler.with_core(|core, now| core.expire(now, self.key));
                }
            }
        }
    }

    /// The last step, with those before it that had not come yet.
    async fn last(
        &mut self,
        settled: std::result::Result<Result<Answered>, oneshot::error::RecvError>,
    ) -> Result<Delta> {
        let dropped = |_| Err(Error::new(Code::Internal, "the scheduler dropped the request"));
        let answered = settled.unwrap_or_else(dropped)?;
        let none = generation_tensors::unended;
        let mut last = answered.answer.delta.ok_or_else(none)?;
        let mut before = Delta::default();
        while self.given < last.position {
            let next = match self.early.remove(&self.given) {
                Some(delta) => delta,
                None => {
                    let delta = self.steps.recv().await.ok_or_else(none)?;
                    self.early.insert(delta.position, delta);
                    continue;
                }
            };
            self.given = self.given.saturating_add(u32::try_from(next.tokens.len()).unwrap_or(u32::MAX));
            before.text.push_str(&next.text);
            before.tokens.extend(next.tokens);
            before.logprobs.extend(next.logprobs);
        }
        if !before.tokens.is_empty() {
            last.position = last.position.saturating_sub(u32::try_from(before.tokens.len()).unwrap_or(u32::MAX));
            last.text.insert_str(0, &before.text);
            last.tokens.splice(0..0, before.tokens);
            last.logprobs.splice(0..0, before.logprobs);
        }
        Ok(last)
    }
}

impl Drop for Generating {
    fn drop(&mut self) {
        if self.answer.is_some() {
            self.scheduler.with_core(|core, now| core.cancel(now, self.key));
        }
    }
}
