//! `POST /v1/chat/completions`.

mod messages;

use axum::{body::Body, extract::State, http::HeaderMap, response::Response};
use futures::{StreamExt, stream};
use orion_proto::{Delta, InferRequest, Prompt, TokenProbability};
use serde::Deserialize;
use serde_json::{Value, from_slice, json, value::RawValue};

use super::{
    Refusal,
    answers::{self, Answer, Usage, finish_reason},
    events::{DONE, events},
    fields,
    parameters::Scheduling,
    settings::{Settings, about},
    tools::{self, ToolText},
};
use crate::{
    api::{
        http::{Api, reply, request_id},
        terms::{Arrival, Terms},
    },
    front::Generating,
};

/// What chat has beside the [`Settings`].
#[derive(Debug, Deserialize)]
struct Request {
    messages: Box<RawValue>,
    #[serde(default)]
    tools: Option<Box<RawValue>>,
    #[serde(default)]
    tool_choice: Option<Box<RawValue>>,
    #[serde(default)]
    logprobs: Option<bool>,
    #[serde(default)]
    top_logprobs: Option<u32>,
}

/// What every answer of one request says of itself.
struct Head {
    id: String,
    created: u64,
    model: String,
    calls_tools: bool,
    logprobs: bool,
}

pub(in crate::api::http) async fn chat(
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
    if !spec.generator.is_some_and(|generator| generator.chat) {
        let name = &spec.name;
        let text = match spec.generator.is_some() {
            true => format!("model '{name}' has no chat template, use /v1/completions"),
            false => format!("model '{name}' does not generate text"),
        };
        return Err(about("model", text));
    }
    let (prompt, calls_tools) = request.prompt()?;
    let logprobs = request.logprobs()?;
    let wanted = InferRequest {
        model: settings.model.clone(),
        parameters: scheduling.parameters(false)?,
        generation: Some(settings.generation(prompt, logprobs)?),
        ..InferRequest::default()
    };
    let n = settings.answers()?;
    let id = format!("chatcmpl-{:032x}", rand::random::<u128>());
    let wanted = answers::under(&terms, arrival, &id, wanted);
    let begun = answers::begin(&api.front, vec![wanted], n)?;
    let head = Head {
        id,
        created: reply::unix_seconds(),
        model: spec.name.to_string(),
        calls_tools,
        logprobs: logprobs.is_some(),
    };
    if settings.stream == Some(true) {
        let usage = settings.stream_options.is_some_and(|options| options.include_usage);
        return streamed(head, begun, usage).await;
    }
    let answers = answers::gather(begun).await?;
    Ok(reply::json(&head.whole(&answers)))
}

impl Request {
    /// The conversation, and whether the model may call tools.
    fn prompt(&self) -> Result<(Prompt, bool), Refusal> {
        let wrong = |error| about("messages", format!("'messages' is not what it must be: {error}"));
        if messages::count(&self.messages).map_err(wrong)? == 0 {
            return Err(about("messages", "'messages' is empty, it must hold at least one message"));
        }
        let tools = self.tools()?;
        let messages = self.messages.get().to_owned();
        Ok((Prompt::Chat { messages, tools: tools.map(str::to_owned) }, tools.is_some()))
    }

    /// The tools that the model may call, as JSON text.
    fn tools(&self) -> Result<Option<&str>, Refusal> {
        let never = match self.tool_choice.as_deref().map_or("\"auto\"", RawValue::get) {
            "\"auto\"" => false,
            "\"none\"" => true,
            _ => return Err(about("tool_choice", "'tool_choice' must be auto or none: a call cannot be forced")),
        };
        let Some(tools) = self.tools.as_deref().map(RawValue::get) else { return Ok(None) };
        let rest = tools.strip_prefix('[').ok_or_else(|| about("tools", "'tools' must be an array of tools"))?;
        Ok((rest.trim_start() != "]" && !never).then_some(tools))
    }

    fn logprobs(&self) -> Result<Option<u32>, Refusal> {
        match (self.logprobs.unwrap_or(false), self.top_logprobs) {
            (true, alternatives) => Ok(Some(alternatives.unwrap_or(0))),
            (false, None | Some(0)) => Ok(None),
            (false, Some(_)) => Err(about("top_logprobs", "'top_logprobs' needs 'logprobs' to be true")),
        }
    }
}

impl Head {
    fn whole(&self, answers: &[Answer]) -> Value {
        let choice = |(index, answer): (usize, &Answer)| {
            let (text, calls) = match self.calls_tools {
                true => tools::split(&answer.text),
                false => (answer.text.clone(), Vec::new()),
            };
            let mut message = json!({"role": "assistant", "content": text, "refusal": null});
            let mut finish = finish_reason(answer.finish);
            if !calls.is_empty() {
                message["tool_calls"] = calls.iter().map(tools::Call::json).collect();
                finish = Some("tool_calls");
                if text.trim().is_empty() {
                    message["content"] = Value::Null;
                }
            }
            let logprobs = self.logprobs.then(|| json!({"content": content(&answer.logprobs), "refusal": null}));
            json!({"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish})
        };
        let usage = answers.iter().map(|answer| answer.usage).reduce(Usage::with).unwrap_or_default();
        json!({
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": answers.iter().enumerate().map(choice).collect::<Vec<_>>(),
            "usage": usage.json(),
        })
    }

    fn chunk(&self, choices: Value, usage: Option<Value>) -> String {
        let mut chunk = json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        });
        if let Some(usage) = usage {
            chunk["usage"] = usage;
        }
        chunk.to_string()
    }

    /// The chunks of one step.
    fn step(&self, index: usize, delta: Delta, text: &mut ToolText) -> Vec<String> {
        let mut chunks = Vec::new();
        let mut say = |delta: Value, logprobs: Option<Value>, finish: Option<&str>| {
            let choice = json!([{"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}]);
            chunks.push(self.chunk(choice, None));
        };
        let (content_text, calls) = match self.calls_tools {
            true => text.add(&delta.text, delta.finish.is_some()),
            false => (delta.text, Vec::new()),
        };
        let logprobs = self.logprobs.then(|| json!({"content": content(&delta.logprobs), "refusal": null}));
        if !content_text.is_empty() || (self.logprobs && !delta.logprobs.is_empty()) {
            say(json!({"content": content_text}), logprobs, None);
        }
        for (number, call) in calls {
            let mut call = call.json();
            call["index"] = number.into();
            say(json!({"tool_calls": [call]}), None, None);
        }
        if delta.finish.is_some() {
            let finish = if text.has_calls() { Some("tool_calls") } else { finish_reason(delta.finish) };
            say(json!({}), None, finish);
        }
        chunks
    }
}

/// Tokens with their probabilities, as chat has them.
fn content(tokens: &[Vec<TokenProbability>]) -> Vec<Value> {
    let one = |p: &TokenProbability| json!({"token": String::from_utf8_lossy(&p.bytes), "logprob": p.logprob, "bytes": p.bytes});
    let with_alternatives = |token: &Vec<TokenProbability>| {
        let mut value = token.first().map_or(Value::Null, one);
        value["top_logprobs"] = token.iter().skip(1).map(one).collect();
        value
    };
    tokens.iter().map(with_alternatives).collect()
}

/// The first step decides the status: what is refused before it is no stream yet.
async fn streamed(head: Head, begun: Vec<Generating>, usage: bool) -> Result<Response, Refusal> {
    let count = begun.len();
    let mut steps = answers::steps(begun).boxed();
    let first = match steps.next().await {
        Some((_, Err(error))) => return Err(error.into()),
        first => first,
    };
    let opening: Vec<String> = (0..count)
        .map(|index| {
            let delta = json!({"role": "assistant", "content": ""});
            head.chunk(json!([{"index": index, "delta": delta, "logprobs": null, "finish_reason": null}]), None)
        })
        .collect();
    let mut counted = vec![Usage::default(); count];
    let mut texts: Vec<ToolText> = (0..count).map(|_| ToolText::default()).collect();
    let steps = stream::iter(first).chain(steps).map(Some).chain(stream::iter([None]));
    let chunks = steps.flat_map(move |step| {
        let chunks = match step {
            Some((index, Ok(delta))) => {
                counted[index].add(&delta);
                head.step(index, delta, &mut texts[index])
            }
            // The status is gone: OpenAI's clients look for `error` in the event.
            Some((_, Err(error))) => vec![Refusal::from(error).event()],
            None => {
                let sum = counted.iter().copied().reduce(Usage::with).unwrap_or_default();
                let last = usage.then(|| head.chunk(json!([]), Some(sum.json())));
                last.into_iter().chain([DONE.to_owned()]).collect()
            }
        };
        stream::iter(chunks)
    });
    Ok(events(stream::iter(opening).chain(chunks)))
}
