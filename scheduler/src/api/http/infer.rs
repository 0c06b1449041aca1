//! `POST …/infer`.

use axum::{body::Body, extract::State, http::HeaderMap, response::Response};
use orion_proto::Error;

use super::{
    Api, ModelPath,
    body::{self, off_the_loop},
    infer_request,
    infer_response::{self, HEADER_LENGTH},
    raw_request,
    reply::Failure,
    request_id,
};
use crate::api::terms::{Arrival, Terms};

pub(super) async fn infer(
    State(api): State<Api>,
    path: ModelPath,
    arrival: Arrival,
    headers: HeaderMap,
    body: Body,
) -> Response {
    request_id::echo(&headers, answer(api, path, arrival, &headers, body)).await
}

async fn answer(
    api: Api,
    path: ModelPath,
    arrival: Arrival,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let api = &api.0;
    let terms = Terms::of_http(headers, arrival)?;
    let header_length = header_length(headers)?;
    let body = body::read(headers, body, api.max_message_bytes, api.budget.hold()).await?;
    let (mut request, forms) = match header_length {
        Some(0) => raw_request::parse(&*api.front.model_spec(&path.name, &path.version)?, path.version, body)?,
        _ => {
            let json = header_length.unwrap_or(body.len());
            let parse = move || infer_request::parse(path.name, path.version, header_length, body);
            off_the_loop(json, parse).await?
        }
    };
    terms.apply(&mut request, arrival.at);
    let id = request.id.clone();
    let answered = api.front.infer(request).await?;
    let (spec, outputs) = (answered.spec, answered.answer.outputs);
    let json = infer_response::json_bytes(&outputs, &forms);
    let render = move || infer_response::render(spec.name.as_str(), &spec.version, outputs, &id, &forms);
    Ok(off_the_loop(json, render).await?)
}

fn header_length(headers: &HeaderMap) -> Result<Option<usize>, Error> {
    let Some(value) = headers.get(HEADER_LENGTH) else { return Ok(None) };
    match value.to_str().ok().and_then(|text| text.parse().ok()) {
        Some(length) => Ok(Some(length)),
        None => Err(Error::invalid("inference-header-content-length must be a whole number of bytes")),
    }
}
