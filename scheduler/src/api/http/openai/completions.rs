//! `POST /v1/completions`: raw prompts, to which the model's start token is put only where its metadata says so.

use axum::{body::Body, extract::State, http::HeaderMap, response::Response};
use futures::{StreamExt, stream};
use orion_proto::{InferRequest, Prompt, TokenProbability};
use serde::Deserialize;
use serde_json::{Value, from_slice, from_str, json, value::RawValue};

use super::{
    Refusal,
    answers::{self, Answer, Usage, finish_reason},
    events::{DONE, events},
    fields,
    parameters::Scheduling,
    settings::{Settings, about},
};
use crate::{
    api::{
        http::{Api, at_most::AtMost, reply, request_id},
        terms::{Arrival, Terms},
    },
    front::Generating,
};

/// Prompts of one request.
const MOST_PROMPTS: usize = 64;

/// What plain completions have beside the [`Settings`].
#[derive(Debug, Deserialize)]
struct Request {
    prompt: Box<RawValue>,
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
    let parse = |body: &[u8]| Ok((from_slice(body)?, from_slice(body)?, from_slice(body)?));
    let (settings, request, scheduling): (Settings, Request, Scheduling) =
        fields::read(api, headers, body, parse).await?;
    let spec = api.front.model_spec(&settings.model, "").map_err(|e| Refusal::from(e).about("model"))?;
    if spec.generator.is_none() {
        return Err(about("model", format!("model '{}' does not generate text", spec.name)));
    }
    let n = settings.answers()?;
    request.refuse_unserved(n)?;
    let parameters = scheduling.parameters(false)?;
    let logprobs = request.logprobs;
    let id = format!("cmpl-{:032x}", rand::random::<u128>());
    let mut wanted = Vec::new();
    for prompt in prompts(request.prompt.get())? {
        let one = InferRequest {
            model: settings.model.clone(),
            parameters: parameters.clone(),
            generation: Some(settings.generation(prompt, logprobs)?),
            ..InferRequest::default()
        };
        wanted.push(answers::under(&terms, arrival, &id, one));
    }
    let begun = answers::begin(&api.front, wanted, n)?;
    let head = Head { id, created: reply::unix_seconds(), model: spec.name.to_string(), logprobs: logprobs.is_some() };
    if settings.stream == Some(true) {
        let usage = settings.stream_options.is_some_and(|options| options.include_usage);
        return streamed(head, begun, usage, n as usize).await;
    }
    let answers = answers::gather(begun).await?;
    Ok(reply::json(&head.whole(&answers, n as usize)))
}

/// The prompts of the field's JSON text: one or several texts, one or several lists of tokens.
fn prompts(json: &str) -> Result<Vec<Prompt>, Refusal> {
    let first = json.strip_prefix('[').map(|rest| rest.trim_start().as_bytes().first());
    let prompts = match first {
        None => from_str(json).map(|text| vec![Prompt::Text(text)]),
        Some(Some(b'"')) => from_str::<AtMost<_, MOST_PROMPTS>>(json).map(|texts| texts.each(Prompt::Text)),
        Some(Some(b'[')) => from_str::<AtMost<_, MOST_PROMPTS>>(json).map(|lists| lists.each(Prompt::Tokens)),
        Some(_) => from_str(json).map(|tokens| vec![Prompt::Tokens(tokens)]),
    };
    let kinds = format!("a string, an array of tokens, or an array of 1 to {MOST_PROMPTS} of these");
    prompts.map_err(|error| about("prompt", format!("'prompt' must be {kinds}: {error}")))
}

impl Request {
    fn refuse_unserved(&self, n: u32) -> Result<(), Refusal> {
        if self.echo == Some(true) {
            return Err(about("echo", "'echo' is not served, the prompt is yours already"));
        }
        if self.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
            return Err(about("suffix", "'suffix' is not served, the models here go on from a prompt"));
        }
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
