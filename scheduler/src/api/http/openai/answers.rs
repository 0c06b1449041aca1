//! Several generations of one request side by side: their steps as they come, or gathered to whole texts.

use futures::{Stream, StreamExt, future::try_join_all, stream};
use orion_proto::{Delta, FinishReason, InferRequest, Result, TokenProbability};
use serde_json::{Value, json};

use crate::{
    api::terms::{Arrival, Terms},
    front::{Front, Generating},
};

/// A whole generation.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) logprobs: Vec<Vec<TokenProbability>>,
    pub(super) finish: Option<FinishReason>,
    pub(super) usage: Usage,
}

/// Tokens that a request took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    prompt: u64,
    cached: u64,
    completion: u64,
}

impl Usage {
    /// Counts a step.
    pub(super) fn add(&mut self, delta: &Delta) {
        self.completion += delta.tokens.len() as u64;
        self.prompt = self.prompt.max(u64::from(delta.prompt_tokens));
        self.cached = self.cached.max(u64::from(delta.cached_tokens));
    }

    /// Of several answers to one prompt.
    pub(super) fn with(self, other: Self) -> Self {
        Self {
            prompt: self.prompt.max(other.prompt),
            cached: self.cached.max(other.cached),
            completion: self.completion + other.completion,
        }
    }

    /// Of answers to several prompts.
    pub(super) fn beside(self, other: Self) -> Self {
        Self { prompt: self.prompt + other.prompt, cached: self.cached + other.cached, ..self.with(other) }
    }

    pub(super) fn json(self) -> Value {
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        })
    }
}

/// A request under its terms. One that was given no id has its answer's, by which it can be explained.
pub(super) fn under(terms: &Terms, arrival: Arrival, id: &str, mut request: InferRequest) -> InferRequest {
    terms.apply(&mut request, arrival.at);
    if request.id.is_empty() {
        id.clone_into(&mut request.id);
    }
    request
}

/// Begins `n` generations of each request; the seeds of one request's differ.
pub(super) fn begin(front: &Front, requests: Vec<InferRequest>, n: u32) -> Result<Vec<Generating>> {
    let mut begun = Vec::new();
    for request in requests {
        for nth in 0..n {
            let mut request = request.clone();
            if let Some(generation) = &mut request.generation {
                generation.sampling.seed = generation.sampling.seed.wrapping_add(u64::from(nth));
            }
            begun.push(front.generate(request)?);
        }
    }
    Ok(begun)
}

/// Waits for all of them.
///
/// # Errors
/// That of the first that fails; the others are given up.
pub(super) async fn gather(generations: Vec<Generating>) -> Result<Vec<Answer>> {
    let whole = |mut generating: Generating| async move {
        let mut answer = Answer::default();
        while let Some(delta) = generating.next().await {
            let delta = delta?;
            answer.usage.add(&delta);
            answer.text.push_str(&delta.text);
            answer.logprobs.extend(delta.logprobs);
            answer.finish = delta.finish;
        }
        Ok(answer)
    };
    try_join_all(generations.into_iter().map(whole)).await
}

/// Their steps as they come, each with the number of its generation.
pub(super) fn steps(generations: Vec<Generating>) -> impl Stream<Item = (usize, Result<Delta>)> + Send {
    let numbered = |(number, generating): (usize, Generating)| {
        stream::unfold(generating, move |mut generating| async move {
            let delta = generating.next().await?;
            Some(((number, delta), generating))
        })
        .boxed()
    };
    stream::select_all(generations.into_iter().enumerate().map(numbered))
}

/// OpenAI's word for why a generation ended.
pub(super) fn finish_reason(finish: Option<FinishReason>) -> Option<&'static str> {
    finish.map(|finish| match finish {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    })
}
