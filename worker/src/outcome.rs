//! What became of a batch, as it is told to the scheduler.

use orion_models::{GivenUp, ModelRequest};
use orion_net::{Attempt, AttemptResult, Batch, BatchResult};
use orion_proto::{Code, Error, InferAnswer, Parameters, Result};

/// What became of one attempt.
pub(crate) enum Outcome {
    /// Its model ran, or tried to.
    Ran(Result<InferAnswer>),
    /// It failed before.
    NotStarted(Error),
}

/// A batch that ran: the outcomes of its attempts, in order, and its figures.
pub(crate) struct Done {
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) service_seconds: f64,
    pub(crate) waited_seconds: f64,
    pub(crate) peak_bytes: u64,
}

impl Outcome {
    /// Nobody waits for it any more.
    pub(crate) fn cancelled() -> Self {
        Self::NotStarted(GivenUp::error())
    }
}

impl Done {
    pub(crate) fn result(self, batch: &Batch) -> BatchResult {
        let mut rows = 0u64;
        let settle = |(attempt, outcome): (&Attempt, Outcome)| {
            let (outcome, not_started) = match outcome {
                Outcome::NotStarted(error) => (Err(error), true),
                Outcome::Ran(outcome) => {
                    rows = rows.saturating_add(rows_of(attempt) as u64);
                    (outcome, false)
                }
            };
            AttemptResult { attempt: attempt.attempt, outcome, not_started }
        };
        let results = batch.attempts.iter().zip(self.outcomes).map(settle).collect();
        BatchResult {
            batch: batch.batch,
            epoch: batch.epoch,
            service_seconds: self.service_seconds,
            rows,
            waited_seconds: self.waited_seconds,
            peak_bytes: self.peak_bytes,
            results,
        }
    }
}

/// The result of a batch none of whose attempts was begun.
pub(crate) fn not_started(
    epoch: u64,
    batch: u64,
    attempts: impl IntoIterator<Item = u64>,
    error: &Error,
) -> BatchResult {
    let results =
        attempts.into_iter().map(|attempt| AttemptResult { attempt, outcome: Err(error.clone()), not_started: true });
    BatchResult {
        batch,
        epoch,
        service_seconds: 0.0,
        rows: 0,
        waited_seconds: 0.0,
        peak_bytes: 0,
        results: results.collect(),
    }
}

/// The same of a whole batch.
pub(crate) fn refused(batch: &Batch, error: &Error) -> BatchResult {
    not_started(batch.epoch, batch.batch, batch.attempts.iter().map(|attempt| attempt.attempt), error)
}

/// A batch that its model could not compute: which request was at fault, if one was, is not known.
pub(crate) fn batch_failed() -> Error {
    Error::new(Code::Internal, "the model failed on this batch")
}

/// What a model said of each request, or that it failed on the batch as a whole: it gave too few answers, or none but
/// internal errors beside requests that it refused.
pub(crate) fn judged(answers: Vec<Result<InferAnswer>>, requests: usize) -> Vec<Result<InferAnswer>> {
    let internal = answers.iter().filter_map(|answer| answer.as_ref().err()).find(|error| error.code == Code::Internal);
    let reason = match internal {
        _ if answers.len() != requests => format!("it gave {} answers to {requests} requests", answers.len()),
        Some(error) if answers.iter().all(Result::is_err) => error.message.clone(),
        _ => return answers,
    };
    tracing::error!(reason, "batch_failed");
    vec![Err(batch_failed()); requests]
}

pub(crate) fn model_request(attempt: &Attempt, given_up: GivenUp) -> ModelRequest {
    let request = &attempt.request;
    let Parameters { truncate, sequence, others, .. } = &request.parameters;
    let (inputs, parameters) = (request.inputs.clone(), others.clone());
    let fused = request.fused.clone();
    ModelRequest { inputs, truncate: *truncate, sequence: *sequence, parameters, fused, given_up }
}

pub(crate) fn rows_of(attempt: &Attempt) -> usize {
    attempt.request.inputs.first().map_or(1, |tensor| tensor.rows())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_failed_as_a_whole_is_told_from_requests_that_did() {
        let good = || Ok(InferAnswer::default());
        let internal = || Err(Error::new(Code::Internal, "the encoder failed: no"));
        let refused = || Err(Error::invalid("bad"));
        for kept in [vec![good(), refused()], vec![refused(), refused()], vec![good(), internal()], vec![]] {
            let count = kept.len();
            assert_eq!(judged(kept.clone(), count), kept);
        }
        for failed in [vec![internal(), refused()], vec![internal(), internal()], vec![good()], vec![]] {
            assert_eq!(judged(failed, 2), vec![Err(batch_failed()); 2]);
        }
    }
}
