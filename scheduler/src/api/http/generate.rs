//! Triton's `POST …/generate` and `…/generate_stream`: a prompt in JSON, a text back, or a stream of its pieces.

use axum::{
    body::Body,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use futures::{StreamExt, stream};
use orion_proto::{
    Datatype, Error, InferRequest, Payload, Tensor, bytes_elements, encode_bytes_elements, inference::InferParameter,
};
use serde::Deserialize;
use serde_json::json;

use super::{
    Api, ModelPath,
    body::{self, off_the_loop},
    infer_request::not_a_request,
    openai::events,
    parameters::{ParameterList, Scalar},
    reply::{self, Failure},
    request_id,
};
use crate::{
    api::terms::{Arrival, Terms},
    front::{Answered, Front},
};

#[derive(Deserialize)]
#[serde(expecting = "a request to generate")]
struct Request {
    text_input: String,
    #[serde(default)]
    max_tokens: Option<i32>,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    parameters: ParameterList,
    // As in Triton, a parameter may stand beside the fields too. By name: gathered, others would grow in memory.
    #[serde(default)]
    priority: Option<Scalar>,
    #[serde(default)]
    timeout: Option<Scalar>,
    #[serde(default)]
    temperature: Option<Scalar>,
    #[serde(default)]
    top_k: Option<Scalar>,
    #[serde(default)]
    top_p: Option<Scalar>,
    #[serde(default)]
    min_p: Option<Scalar>,
    #[serde(default)]
    repetition_penalty: Option<Scalar>,
    #[serde(default)]
    presence_penalty: Option<Scalar>,
    #[serde(default)]
    frequency_penalty: Option<Scalar>,
    #[serde(default)]
    seed: Option<Scalar>,
    #[serde(default)]
    stop: Option<Scalar>,
    #[serde(default)]
    ignore_eos: Option<Scalar>,
    #[serde(default)]
    random_seed: Option<Scalar>,
    #[serde(default)]
    stop_words: Option<Scalar>,
    #[serde(default)]
    response_format: Option<Scalar>,
    #[serde(default)]
    idempotent: Option<Scalar>,
    #[serde(default)]
    routing_key: Option<Scalar>,
    #[serde(default)]
    truncate: Option<Scalar>,
}

impl Request {
    /// The parameters beside the fields.
    fn beside(&mut self) -> impl Iterator<Item = (&'static str, InferParameter)> {
        let given = [
            ("priority", self.priority.take()),
            ("timeout", self.timeout.take()),
            ("temperature", self.temperature.take()),
            ("top_k", self.top_k.take()),
            ("top_p", self.top_p.take()),
            ("min_p", self.min_p.take()),
            ("repetition_penalty", self.repetition_penalty.take()),
            ("presence_penalty", self.presence_penalty.take()),
            ("frequency_penalty", self.frequency_penalty.take()),
            ("seed", self.seed.take()),
            ("stop", self.stop.take()),
            ("ignore_eos", self.ignore_eos.take()),
            ("random_seed", self.random_seed.take()),
            ("stop_words", self.stop_words.take()),
            ("response_format", self.response_format.take()),
            ("idempotent", self.idempotent.take()),
            ("routing_key", self.routing_key.take()),
            ("truncate", self.truncate.take()),
        ];
        given.into_iter().filter_map(|(name, value)| Some((name, value?.into())))
    }
}

pub(super) async fn generate(
    State(api): State<Api>,
    path: ModelPath,
    arrival: Arrival,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let answer = async {
        let (request, streamed) = read(&api, path, arrival, &headers, body).await?;
        if streamed {
            return Err(Error::invalid("'stream' is true, send it to generate_stream").into());
        }
        let answered = api.0.front.infer(request).await?;
        Ok::<_, Failure>(reply::json(&said(&answered)?))
    };
    request_id::echo(&headers, answer).await
}

pub(super) async fn generate_stream(
    State(api): State<Api>,
    path: ModelPath,
    arrival: Arrival,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let answer = async {
        let (mut request, _) = read(&api, path, arrival, &headers, body).await?;
        request.inputs.push(Tensor::new("stream", Datatype::Bool, vec![1], Payload::from(vec![1]))?);
        streamed(&api.0.front, request).await
    };
    request_id::echo(&headers, answer).await
}

async fn streamed(front: &Front, request: InferRequest) -> Result<Response, Failure> {
    let mut steps = front.answers(request)?.boxed();
    // The first step decides the status.
    let first = match steps.next().await {
        Some(Err(error)) => return Err(error.into()),
        first => first,
    };
    let texts = stream::iter(first).chain(steps).map(|answered| match answered.and_then(|answered| said(&answered)) {
        Ok(said) => said.to_string(),
        Err(error) => json!({"error": error.message, "code": error.code.name()}).to_string(),
    });
    Ok(events(texts).into_response())
}

async fn read(
    api: &Api,
    path: ModelPath,
    arrival: Arrival,
    headers: &HeaderMap,
    body: Body,
) -> Result<(InferRequest, bool), Failure> {
    let api = &api.0;
    let terms = Terms::of_http(headers, arrival)?;
    let body = body::read(headers, body, api.max_message_bytes, api.budget.hold()).await?;
    let length = body.len();
    let parse = move || serde_json::from_slice::<Request>(&body).map_err(|error| Failure::from(not_a_request(&error)));
    let mut wanted: Request = off_the_loop(length, parse).await?;
    let data = Payload::from(encode_bytes_elements(&[&wanted.text_input]));
    let mut inputs = vec![Tensor::new("text_input", Datatype::Bytes, vec![1], data)?];
    if let Some(most) = wanted.max_tokens {
        let data = Payload::from(most.to_le_bytes().to_vec());
        inputs.push(Tensor::new("max_tokens", Datatype::Int32, vec![1], data)?);
    }
    let id = wanted.id.take().unwrap_or_default();
    let mut request = InferRequest { model: path.name, version: path.version, id, inputs, ..InferRequest::default() };
    for (name, value) in wanted.beside() {
        request.parameters.set(name, &value)?;
    }
    for (name, value) in wanted.parameters.iter() {
        request.parameters.set(name, value)?;
    }
    terms.apply(&mut request, arrival.at);
    Ok((request, wanted.stream == Some(true)))
}

fn said(answered: &Answered) -> orion_proto::Result<serde_json::Value> {
    let text = answered.answer.outputs.first().map(|tensor| tensor.data.contiguous()).unwrap_or_default();
    let text = bytes_elements("text_output", &text, 1)?.pop().unwrap_or_default();
    Ok(json!({
        "model_name": answered.spec.name.as_str(),
        "model_version": answered.spec.version,
        "text_output": String::from_utf8_lossy(text.as_ref()),
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn each_parameter_that_a_generation_knows_may_stand_beside_the_fields() {
        let names = [
            "priority",
            "timeout",
            "temperature",
            "top_k",
            "top_p",
            "min_p",
            "repetition_penalty",
            "presence_penalty",
            "frequency_penalty",
            "seed",
            "stop",
            "ignore_eos",
            "random_seed",
            "stop_words",
            "response_format",
            "idempotent",
            "routing_key",
            "truncate",
        ];
        let mut body = json!({"text_input": "a", "no_parameter": {"of": ["any", "kind"]}});
        names.iter().for_each(|name| body[*name] = "1".into());
        let mut request: Request = serde_json::from_value(body).unwrap();
        assert_eq!(request.beside().map(|(name, _)| name).collect::<Vec<_>>(), names);
        let body = json!({"text_input": "a", "seed": Value::Null});
        assert_eq!(serde_json::from_value::<Request>(body).unwrap().beside().count(), 0);
    }
}
