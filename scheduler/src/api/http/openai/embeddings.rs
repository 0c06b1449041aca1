//! `POST /v1/embeddings`: texts to vectors, on any model that takes `text` and gives `embedding`.

mod input;

use axum::{body::Body, extract::State, http::HeaderMap, response::Response};
use base64::{Engine, engine::general_purpose::STANDARD};
use orion_proto::{
    Code, Datatype, Error, InferRequest, ModelSpec, Parameters, Payload, Result, Tensor, TensorSpec,
    encode_bytes_elements,
};
use serde::Deserialize;
use serde_json::from_slice;

use super::{Refusal, fields, parameters::Scheduling};
use crate::{
    api::http::{Api, body::off_the_loop, element_json, reply, request_id},
    api::terms::{Arrival, Terms},
    front::Answered,
};
use input::Input;

const TEXT: &str = "text";
const EMBEDDING: &str = "embedding";

/// The body. Other fields, such as `user`, are not used.
#[derive(Deserialize)]
#[serde(expecting = "an embeddings request")]
struct Request {
    model: String,
    input: Input,
    #[serde(default)]
    encoding_format: Option<String>,
    #[serde(default)]
    dimensions: Option<u64>,
    /// Whether text beyond the model's limit is cut. Not OpenAI's: its clients send it as `extra_body`.
    #[serde(default)]
    truncate: bool,
}

#[derive(Clone, Copy)]
enum Encoding {
    Float,
    Base64,
}

pub(in crate::api::http) async fn embeddings(
    State(api): State<Api>,
    arrival: Arrival,
    headers: HeaderMap,
    body: Body,
) -> Response {
    request_id::echo(&headers, answer(api, arrival, &headers, body)).await
}

async fn answer(api: Api, arrival: Arrival, headers: &HeaderMap, body: Body) -> std::result::Result<Response, Refusal> {
    let api = &api.0;
    let terms = Terms::of_http(headers, arrival)?;
    let parse = |body: &[u8]| Ok((from_slice(body)?, from_slice(body)?));
    let (request, scheduling): (Request, Scheduling) = fields::read(api, headers, body, parse).await?;
    let parameters = scheduling.parameters(request.truncate)?;
    let encoding = encoding(request.encoding_format.as_deref())?;
    let texts = request.input.texts().map_err(|error| Refusal::from(error).about("input"))?;
    let spec = api.front.model_spec(&request.model, "").map_err(|error| Refusal::from(error).about("model"))?;
    check_model(&spec, request.dimensions)?;
    let mut wanted = infer_request(request.model, &texts, parameters)?;
    terms.apply(&mut wanted, arrival.at);
    let answered = api.front.infer(wanted).await?;
    let bytes = answered.answer.outputs.iter().map(|tensor| tensor.data.len()).sum();
    off_the_loop(bytes, move || render(&answered, encoding).map_err(Refusal::from)).await
}

fn encoding(name: Option<&str>) -> std::result::Result<Encoding, Refusal> {
    match name {
        None | Some("float") => Ok(Encoding::Float),
        Some("base64") => Ok(Encoding::Base64),
        Some(other) => {
            let shown = reply::excerpt(other);
            let error = Error::invalid(format!("encoding_format '{shown}' is unknown, it must be float or base64"));
            Err(Refusal::from(error).about("encoding_format"))
        }
    }
}

/// Checks that the model embeds texts, and in as many dimensions as were asked for.
fn check_model(spec: &ModelSpec, dimensions: Option<u64>) -> std::result::Result<(), Refusal> {
    let is = |tensor: &TensorSpec, name, datatype| tensor.name == name && tensor.datatype == datatype;
    let takes_text = spec.inputs.len() == 1 && spec.inputs.iter().all(|tensor| is(tensor, TEXT, Datatype::Bytes));
    let embedding = spec.outputs.iter().find(|tensor| is(tensor, EMBEDDING, Datatype::Fp32) && tensor.shape.len() == 2);
    let (true, Some(embedding)) = (takes_text, embedding) else {
        let error = Error::invalid(format!("model '{}' is not an embedding model", spec.name));
        return Err(Refusal::from(error).about("model"));
    };
    match (dimensions, embedding.shape.last()) {
        (Some(asked), Some(&own)) if u64::try_from(own) != Ok(asked) => {
            let name = &spec.name;
            let error =
                Error::invalid(format!("model '{name}' has embeddings of {own} dimensions, {asked} were asked"));
            Err(Refusal::from(error).about("dimensions"))
        }
        _ => Ok(()),
    }
}

fn infer_request(model: String, texts: &[String], parameters: Parameters) -> Result<InferRequest> {
    let data = Payload::from(encode_bytes_elements(texts));
    let text = Tensor::new(TEXT, Datatype::Bytes, vec![texts.len() as i64], data)?;
    Ok(InferRequest {
        model,
        inputs: vec![text],
        outputs: vec![EMBEDDING.to_owned()],
        parameters,
        ..InferRequest::default()
    })
}

fn render(answered: &Answered, encoding: Encoding) -> Result<Response> {
    let wrong = || Error::new(Code::Internal, "the model's answer is not one embedding for each text");
    let tensor = answered.answer.outputs.iter().find(|tensor| tensor.name == EMBEDDING).ok_or_else(wrong)?;
    let [_, dimensions] = tensor.shape.as_slice() else { return Err(wrong()) };
    let row = usize::try_from(*dimensions).ok().and_then(|columns| columns.checked_mul(4)).filter(|&row| row > 0);
    let data = tensor.data.contiguous();
    let mut out = Vec::with_capacity(256 + 3 * data.len());
    out.extend_from_slice(b"{\"object\":\"list\",\"data\":[");
    for (index, embedding) in data.chunks(row.ok_or_else(wrong)?).enumerate() {
        // JSON has no way to write them.
        if embedding.as_chunks::<4>().0.iter().any(|bytes| !f32::from_le_bytes(*bytes).is_finite()) {
            let text = format!("the model's embedding of text {index} holds values that are no numbers");
            return Err(Error::new(Code::Internal, text));
        }
        let start = if index > 0 { "," } else { "" };
        out.extend_from_slice(format!("{start}{{\"object\":\"embedding\",\"index\":{index},\"embedding\":").as_bytes());
        match encoding {
            Encoding::Float => element_json::floats(&mut out, embedding),
            Encoding::Base64 => out.extend_from_slice(format!("\"{}\"", STANDARD.encode(embedding)).as_bytes()),
        }
        out.push(b'}');
    }
    let (name, tokens) = (&answered.spec.name, answered.answer.usage_tokens);
    let usage = format!("{{\"prompt_tokens\":{tokens},\"total_tokens\":{tokens}}}");
    // A model's name has no character that JSON escapes.
    out.extend_from_slice(format!("],\"model\":\"{name}\",\"usage\":{usage}}}").as_bytes());
    Ok(reply::json_bytes(out))
}

#[cfg(test)]
mod tests;
