//! Answers of pipelines that come in parts: each output as soon as it is known.

use std::sync::Arc;

use futures::{Stream, future::BoxFuture, stream};
use orion_proto::{InferAnswer, InferRequest, ModelSpec, Result, Tensor, inference};
use tokio::sync::mpsc;

use super::{Answered, Front};

/// The parameter by which a client asks for it.
pub(super) const PARTIAL: &str = "partial";

/// Where outputs go as they become known.
pub(super) struct Parts {
    spec: Arc<ModelSpec>,
    told: mpsc::UnboundedSender<Answered>,
}

impl Parts {
    pub(super) fn tell(&self, outputs: Vec<Tensor>) {
        if !outputs.is_empty() {
            let answer = InferAnswer { outputs, ..InferAnswer::default() };
            // The client may have gone. There are no more parts than outputs.
            let _ = self.told.send(Answered { spec: self.spec.clone(), answer });
        }
    }
}

struct Running {
    request: Option<BoxFuture<'static, Result<Answered>>>,
    parts: mpsc::UnboundedReceiver<Answered>,
    last: Option<Result<Answered>>,
}

impl Front {
    /// Whether a request wants its answer in parts, and an ensemble gives it.
    pub(crate) fn answers_in_parts(&self, request: &inference::ModelInferRequest) -> bool {
        request.parameters.contains_key(PARTIAL) && self.0.ensembles().find(&request.model_name).is_some()
    }

    /// The parts of an ensemble's answer, and whether each is the last. Dropping the stream cancels what runs.
    ///
    /// # Errors
    /// NOT_FOUND for another model; INVALID_ARGUMENT where the parameter is no boolean. The stream ends with what fails later.
    pub(crate) fn parts(
        &self,
        mut request: InferRequest,
    ) -> Result<impl Stream<Item = Result<(Answered, bool)>> + Send + use<>> {
        let spec = self.spec(&request.model, &request.version)?;
        let wanted = self.take_partial(&mut request)?;
        let (told, parts) = mpsc::unbounded_channel();
        let (front, listens) = (self.clone(), wanted.then_some(Parts { spec, told }));
        let asked = async move { front.infer_in_parts(request, listens).await };
        let running = Running { request: Some(Box::pin(asked)), parts, last: None };
        Ok(stream::unfold(running, |mut running| async move {
            loop {
                let Some(request) = running.request.as_mut() else {
                    // What was told before the end comes first.
                    let next = match running.parts.try_recv() {
                        Ok(part) => Ok((part, false)),
                        Err(_) => running.last.take()?.map(|answered| (answered, true)),
                    };
                    return Some((next, running));
                };
                tokio::select! {
                    biased;
                    Some(part) = running.parts.recv() => return Some((Ok((part, false)), running)),
                    last = request => (running.last, running.request) = (Some(last), None),
                }
            }
        }))
    }
}
