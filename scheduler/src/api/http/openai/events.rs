//! Server-sent events: a body of `data:` lines, as OpenAI's and Triton's clients read them.

use std::convert::Infallible;

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::Response,
};
use bytes::Bytes;
use futures::{Stream, StreamExt};

/// What ends OpenAI's streams.
pub(in crate::api::http) const DONE: &str = "[DONE]";

/// An answer whose body is one event for each text.
pub(in crate::api::http) fn events(texts: impl Stream<Item = String> + Send + 'static) -> Response {
    let lines = texts.map(|text| Ok::<_, Infallible>(Bytes::from(format!("data: {text}\n\n"))));
    let mut response = Response::new(Body::from_stream(lines));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
