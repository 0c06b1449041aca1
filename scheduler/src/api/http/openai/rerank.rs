//! `POST /v1/rerank`: documents by how well they fit a query, on any model that takes `query` and `text` and gives `score`.
//!
//! OpenAI has no such path; Cohere, Jina and vLLM have, and this is what their clients have in common.

mod documents;

use axum::{body::Body, extract::State, http::HeaderMap, response::Response};
use bytes::Bytes;
use orion_proto::{
    Code, Datatype, Error, InferRequest, ModelSpec, Parameters, Payload, Result, Tensor, TensorSpec,
    encode_bytes_elements,
};
use serde::{Deserialize, Serialize};
use serde_json::from_slice;

use super::{Refusal, fields, parameters::Scheduling};
use crate::{
    api::http::{Api, body::off_the_loop, reply, request_id},
    api::terms::{Arrival, Terms},
    front::Answered,
};
use documents::Documents;

const QUERY: &str = "query";
const TEXT: &str = "text";
const SCORE: &str = "score";

/// The body. Other fields are not used.
#[derive(Deserialize)]
#[serde(expecting = "a rerank request")]
struct Request {
    model: String,
    query: String,
    documents: Documents,
    /// How many results are wanted at most, the best first.
    #[serde(default)]
    top_n: Option<usize>,
    #[serde(default)]
    return_documents: Option<bool>,
    /// Whether texts beyond the model's limit are cut: Orion's own.
    #[serde(default)]
    truncate: bool,
}

#[derive(Serialize)]
struct Answer<'a> {
    object: &'static str,
    model: &'a str,
    results: Vec<Ranked<'a>>,
    usage: Usage,
}

#[derive(Serialize)]
struct Ranked<'a> {
    /// Its place among the request's documents.
    index: usize,
    relevance_score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Document<'a>>,
}

#[derive(Serialize)]
struct Document<'a> {
    text: &'a str,
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: u64,
    total_tokens: u64,
}

pub(in crate::api::http) async fn rerank(
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
    let texts = request.documents.texts().map_err(|error| Refusal::from(error).about("documents"))?;
    let most = most_results(request.top_n, texts.len()).map_err(|error| Refusal::from(error).about("top_n"))?;
    let spec = api.front.model_spec(&request.model, "").map_err(|error| Refusal::from(error).about("model"))?;
    check_model(&spec).map_err(|error| Refusal::from(error).about("model"))?;
    let queries = queries(&request.query, texts.len(), api.max_message_bytes);
    let queries = queries.map_err(|error| Refusal::from(error).about("query"))?;
    let mut wanted = infer_request(request.model, queries, &texts, parameters)?;
    terms.apply(&mut wanted, arrival.at);
    let answered = api.front.infer(wanted).await?;
    let texts = request.return_documents.unwrap_or(false).then_some(texts);
    let bytes = texts.iter().flatten().map(String::len).sum();
    off_the_loop(bytes, move || render(&answered, texts.as_deref(), most).map_err(Refusal::from)).await
}

fn most_results(top_n: Option<usize>, documents: usize) -> Result<usize> {
    match top_n {
        Some(0) => Err(Error::invalid("top_n is 0, it must be 1 or more")),
        top_n => Ok(top_n.map_or(documents, |most| most.min(documents))),
    }
}

/// Checks that the model scores a text for a query.
fn check_model(spec: &ModelSpec) -> Result<()> {
    let is = |tensor: &TensorSpec, name, datatype| {
        tensor.name == name && tensor.datatype == datatype && tensor.shape.len() == 1
    };
    let takes = |name| spec.inputs.iter().any(|tensor| is(tensor, name, Datatype::Bytes));
    let known = |tensor: &TensorSpec| tensor.optional || tensor.name == QUERY || tensor.name == TEXT;
    let scores = spec.outputs.iter().any(|tensor| is(tensor, SCORE, Datatype::Fp32));
    match takes(QUERY) && takes(TEXT) && scores && spec.inputs.iter().all(known) {
        true => Ok(()),
        false => Err(Error::invalid(format!("model '{}' is not a reranker", spec.name))),
    }
}

/// The query once for each document. Here they share its bytes; a worker has each by itself, so they are counted.
fn queries(query: &str, documents: usize, most_bytes: usize) -> Result<Tensor> {
    let one: Bytes = encode_bytes_elements(&[query]);
    if one.len().saturating_mul(documents) > most_bytes {
        return Err(Error::invalid(format!(
            "query has {} bytes and stands beside each of {documents} documents, together they may have {most_bytes} \
             bytes: shorten it, or send fewer documents at once",
            query.len()
        )));
    }
    let mut data = Payload::default();
    (0..documents).for_each(|_| data.push(one.clone()));
    Tensor::new(QUERY, Datatype::Bytes, vec![documents as i64], data)
}

fn infer_request(model: String, queries: Tensor, texts: &[String], parameters: Parameters) -> Result<InferRequest> {
    let data = Payload::from(encode_bytes_elements(texts));
    let text = Tensor::new(TEXT, Datatype::Bytes, vec![texts.len() as i64], data)?;
    let outputs = vec![SCORE.to_owned()];
    Ok(InferRequest { model, inputs: vec![queries, text], outputs, parameters, ..InferRequest::default() })
}

fn render(answered: &Answered, texts: Option<&[String]>, most: usize) -> Result<Response> {
    let wrong = || Error::new(Code::Internal, "the model's answer is not one score for each document");
    let tensor = answered.answer.outputs.iter().find(|tensor| tensor.name == SCORE).ok_or_else(wrong)?;
    let data = tensor.data.contiguous();
    let scores = data.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]));
    let mut ranked: Vec<(usize, f32)> = scores.enumerate().collect();
    // Of equal scores the earlier document comes first.
    ranked.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let result = |(index, relevance_score): (usize, f32)| {
        let text = texts.map(|texts| texts.get(index).ok_or_else(wrong)).transpose()?;
        Ok(Ranked { index, relevance_score, document: text.map(|text| Document { text }) })
    };
    let results = ranked.into_iter().take(most).map(result).collect::<Result<Vec<_>>>()?;
    let tokens = answered.answer.usage_tokens;
    let usage = Usage { prompt_tokens: tokens, total_tokens: tokens };
    Ok(reply::json(&Answer { object: "list", model: answered.spec.name.as_str(), results, usage }))
}

#[cfg(test)]
mod tests;
