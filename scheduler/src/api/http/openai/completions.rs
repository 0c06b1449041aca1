//! `POST /v1/completions`: raw prompts, to which the model's start token is put only where its metadata says so.

use axum::{body::Body, extract::State, http::HeaderMap, response::Response};
use futures::{StreamExt, stream};
use orion_proto::{InferRequest, Prompt, TokenProbability};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Refusal,
    answers::{self, Answer, Usage, finish_reason},
    events::{DONE, events},
    settings::{Settings, about},
};
use crate::{
    api::{
        http::{
            Api,
            body::{self, off_the_loop},
            infer_request::not_a_request,
            reply, request_id,
        },
        terms::{Arrival, Terms},
    },
    front::Generating,
};

/// Prompts of one request.
const MOST_PROMPTS: usize = 64;

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "'prompt' must be a string, an array of strings, or tokens")]
enum Prompts {
    Text(String),
    Tokens(Vec<u32>),
    Texts(Vec<String>),
    TokenLists(Vec<Vec<u32>>),
}

#[derive(Debug, Deserialize)]
struct Request {
    #[serde(flatten)]
    settings: Settings,
    prompt: Prompts,
    #[serde(default)]
    logprobs: Option<u32>,
    #[serde(default)]
    echo: Option<bool>,
    #[serde(default)]
    suffix: Option<String>,
    #[serde(default)]
    best_of: Option<u32>,
}

struct Head {
    id: String,
    created: u64,
    model: String,
    logprobs: bool,
}

pub(in crate::api::http) async fn completions(
    State(api): State<Api>,
    arrival: Arrival,
    headers: HeaderMap,
    body: Body,
) -> Response {
    request_id::echo(&headers, answer(api, arrival, &headers, body)).await
}

async fn answer(api: Api, arrival: Arrival, headers: &HeaderMap, body: Body) -> Result<Response, Refusal> {
    let api = &api.0;
    let terms = Terms::of_http(headers, arrival)?;
    let body = body::read(headers, body, api.max_message_bytes, api.budget.hold()).await?;
    let length = body.len();
    let parse = move || serde_json::from_slice::<Request>(&body).map_err(|error| Refusal::from(not_a_request(&error)));
    let mut request = off_the_loop(length, parse).await?;
    let spec = api.front.model_spec(&request.settings.model, "").map_err(|e| Refusal::from(e).about("model"))?;
    if spec.generator.is_none() {
        return Err(about("model", format!("model '{}' does not generate text", spec.name)));
    }
    request.refuse_unserved()?;
    let n = request.settings.answers()?;
    let parameters = request.settings.parameters()?;
    let logprobs = request.logprobs;
    let id = format!("cmpl-{:032x}", rand::random::<u128>());
    let mut wanted = Vec::new();
    for prompt in std::mem::replace(&mut request.prompt, Prompts::Texts(Vec::new())).each()? {
        let one = InferRequest {
            model: request.settings.model.clone(),
            parameters: parameters.clone(),
            generation: Some(request.settings.generation(prompt, logprobs)?),
            ..InferRequest::default()
        };
        wanted.push(answers::under(&terms, arrival, &id, one));
    }
    let begun = answers::begin(&api.front, wanted, n)?;
    let head = Head { id, created: reply::unix_seconds(), model: spec.name.to_string(), logprobs: logprobs.is_some() };
    if request.settings.stream == Some(true) {
        let usage = request.settings.stream_options.is_some_and(|options| options.include_usage);
        return streamed(head, begun, usage, n as usize).await;
    }
    let answers = answers::gather(begun).await?;
    Ok(reply::json(&head.whole(&answers, n as usize)))
}

impl Prompts {
    fn each(self) -> Result<Vec<Prompt>, Refusal> {
        let prompts: Vec<Prompt> = match self {
            Self::Text(text) => vec![Prompt::Text(text)],
            Self::Tokens(tokens) => vec![Prompt::Tokens(tokens)],
            Self::Texts(texts) => texts.into_iter().map(Prompt::Text).collect(),
            Self::TokenLists(lists) => lists.into_iter().map(Prompt::Tokens).collect(),
        };
        match prompts.len() {
            1..=MOST_PROMPTS => Ok(prompts),
            count => Err(about("prompt", format!("'prompt' holds {count} prompts, it must hold 1 to {MOST_PROMPTS}"))),
        }
    }
}

impl Request {
    fn refuse_unserved(&self) -> Result<(), Refusal> {
        if self.echo == Some(true) {
            return Err(about("echo", "'echo' is not served, the prompt is yours already"));
        }
        if self.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
            return Err(about("suffix", "'suffix' is not served, the models here go on from a prompt"));
        }
        let n = self.settings.answers()?;
        match self.best_of {
            Some(best) if best != n => Err(about("best_of", "'best_of' must be 'n' or absent, all answers are given")),
            _ => Ok(()),
        }
    }
}

impl Head {
    fn whole(&self, answers: &[Answer], n: usize) -> Value {
        let choice = |(index, answer): (usize, &Answer)| {
            let logprobs = self.logprobs.then(|| listed(&answer.logprobs, 0));
            let finish = finish_reason(answer.finish);
            json!({"index": index, "text": answer.text, "logprobs": logprobs, "finish_reason": finish})
        };
        let of_prompt = |answers: &[Answer]| answers.iter().map(|a| a.usage).reduce(Usage::with).unwrap_or_default();
        let usage = answers.chunks(n.max(1)).map(of_prompt).reduce(Usage::beside).unwrap_or_default();
        json!({
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": answers.iter().enumerate().map(choice).collect::<Vec<_>>(),
            "usage": usage.json(),
        })
    }

    fn chunk(&self, choices: Value, usage: Option<Value>) -> String {
        let mut chunk = json!({
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        });
        if let Some(usage) = usage {
            chunk["usage"] = usage;
        }
        chunk.to_string()
    }
}

/// Tokens with their probabilities, as plain completions have them; the text before them has `offset` bytes.
fn listed(tokens: &[Vec<TokenProbability>], mut offset: usize) -> Value {
    let text = |p: &TokenProbability| String::from_utf8_lossy(&p.bytes).into_owned();
    let (mut names, mut logprobs, mut tops, mut offsets) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for token in tokens {
        let Some(chosen) = token.first() else { continue };
        names.push(text(chosen));
        logprobs.push(chosen.logprob);
        let top: serde_json::Map<String, Value> = token.iter().skip(1).map(|p| (text(p), json!(p.logprob))).collect();
        tops.push(top);
        offsets.push(offset);
        offset += chosen.bytes.len();
    }
    json!({"tokens": names, "token_logprobs": logprobs, "top_logprobs": tops, "text_offset": offsets})
}

/// The first step decides the status: what is refused before it is no stream yet.
async fn streamed(head: Head, begun: Vec<Generating>, usage: bool, n: usize) -> Result<Response, Refusal> {
    let count = begun.len();
    let mut steps = answers::steps(begun).boxed();
    let first = match steps.next().await {
        Some((_, Err(error))) => return Err(error.into()),
        first => first,
    };
    let mut counted = vec![Usage::default(); count];
    let mut written = vec![0; count];
    let steps = stream::iter(first).chain(steps).map(Some).chain(stream::iter([None]));
    let chunks = steps.flat_map(move |step| {
        let chunks = match step {
            Some((index, Ok(delta))) => {
                counted[index].add(&delta);
                let logprobs = head.logprobs.then(|| listed(&delta.logprobs, written[index]));
                written[index] += delta.text.len();
                let finish = finish_reason(delta.finish);
                match delta.text.is_empty() && finish.is_none() && (logprobs.is_none() || delta.logprobs.is_empty()) {
                    true => Vec::new(),
                    false => {
                        let choice = json!([
                            {"index": index, "text": delta.text, "logprobs": logprobs, "finish_reason": finish}
                        ]);
                        vec![head.chunk(choice, None)]
                    }
                }
            }
            Some((_, Err(error))) => vec![Refusal::from(error).event()],
            None => {
                let of_prompt = |usages: &[Usage]| usages.iter().copied().reduce(Usage::with).unwrap_or_default();
                let sum = counted.chunks(n.max(1)).map(of_prompt).reduce(Usage::beside).unwrap_or_default();
                let last = usage.then(|| head.chunk(json!([]), Some(sum.json())));
                last.into_iter().chain([DONE.to_owned()]).collect()
            }
        };
        stream::iter(chunks)
    });
    Ok(events(chunks))
}
