//! Triton's `POST …/generate` and `…/generate_stream`: a prompt in JSON, a text back, or a stream of its pieces.

use axum::{
    body::Body,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use futures::{StreamExt, stream};
use orion_proto::{Datatype, Error, InferRequest, Payload, Tensor, bytes_elements, encode_bytes_elements};
use serde::Deserialize;
use serde_json::json;

use super::{
    Api, ModelPath,
    body::{self, off_the_loop},
    infer_request::not_a_request,
    openai::events,
    parameters::ParameterList,
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
    /// As in Triton, what else there is are parameters too.
    #[serde(flatten)]
    others: ParameterList,
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
        Err(error) => json!({"error": error.message}).to_string(),
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
    let wanted: Request = off_the_loop(length, parse).await?;
    let data = Payload::from(encode_bytes_elements(&[wanted.text_input]));
    let mut inputs = vec![Tensor::new("text_input", Datatype::Bytes, vec![1], data)?];
    if let Some(most) = wanted.max_tokens {
        let data = Payload::from(most.to_le_bytes().to_vec());
        inputs.push(Tensor::new("max_tokens", Datatype::Int32, vec![1], data)?);
    }
    let id = wanted.id.unwrap_or_default();
    let mut request = InferRequest { model: path.name, version: path.version, id, inputs, ..InferRequest::default() };
    for (name, value) in wanted.others.iter().chain(wanted.parameters.iter()) {
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
