//! Answers: JSON bodies, and failures in the shape that the path's clients read.

use std::time::SystemTime;

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use orion_proto::Error;
use serde::Serialize;

use super::openai;

/// Retry-After more finely; OpenAI's clients look for it first.
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

/// A failure with its HTTP status.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(super) status: StatusCode,
    pub(super) message: String,
    /// When to try again: whole seconds, and milliseconds.
    pub(super) retry_after: Option<(u64, u64)>,
    /// What it was made of: on the answer, for jobs that call this API from within.
    error: Option<Error>,
}

impl Failure {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), retry_after: None, error: None }
    }

    /// This failure with the body that a dialect gives it.
    pub(super) fn with_body(&self, body: &impl Serialize) -> Response {
        let mut response = (self.status, json(body)).into_response();
        if let Some((seconds, milliseconds)) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            response.headers_mut().insert(RETRY_AFTER_MS, HeaderValue::from(milliseconds));
        }
        if let Some(error) = &self.error {
            response.extensions_mut().insert(error.clone());
        }
        response
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = StatusCode::from_u16(error.code.http()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after = error.retry_after_seconds().zip(error.retry_after_milliseconds());
        Self { status, retry_after, message: error.message.clone(), error: Some(error) }
    }
}

/// The Open Inference Protocol's shape.
impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body<'a> {
            error: &'a str,
        }
        self.with_body(&Body { error: &self.message })
    }
}

/// A failure in OpenAI's shape under `/v1`, in the Open Inference Protocol's elsewhere.
pub(crate) fn in_dialect_of(path: &str, failure: Failure) -> Response {
    match path.starts_with("/v1/") {
        true => openai::Refusal::from(failure).into_response(),
        false => failure.into_response(),
    }
}

/// Seconds since 1970.
pub(super) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A JSON answer.
pub(super) fn json(body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => json_bytes(bytes),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// A JSON answer that is already text.
pub(super) fn json_bytes(bytes: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(bytes));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A client's own text as a message may repeat it: at most 200 characters, no control characters.
pub(crate) fn excerpt(text: &str) -> String {
    let mut short: String = text.chars().take(200).map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.chars().nth(200).is_some() {
        short.push('…');
    }
    short
}
