//! Failures in OpenAI's shape.

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use orion_proto::Error;
use serde::Serialize;

use crate::api::http::reply::Failure;

/// A failure, and the request's field that it is about.
#[derive(Debug)]
pub(in crate::api::http) struct Refusal {
    failure: Failure,
    field: Option<&'static str>,
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self { failure, field: None }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Failure::from(error).into()
    }
}

impl Refusal {
    /// The same, naming the field of the request.
    pub(super) fn about(mut self, field: &'static str) -> Self {
        self.field = Some(field);
        self
    }
}

/// OpenAI's `type` and `code` for a status.
fn kind(status: StatusCode) -> (&'static str, Option<&'static str>) {
    match status {
        StatusCode::UNAUTHORIZED => ("invalid_request_error", Some("invalid_api_key")),
        StatusCode::NOT_FOUND => ("invalid_request_error", Some("model_not_found")),
        StatusCode::TOO_MANY_REQUESTS => ("requests", Some("rate_limit_exceeded")),
        // A stream's status was sent before: this tells that a retry can help.
        StatusCode::SERVICE_UNAVAILABLE => ("server_error", Some("unavailable")),
        status if status.is_server_error() => ("server_error", None),
        _ => ("invalid_request_error", None),
    }
}

#[derive(Serialize)]
struct Body<'a> {
    error: Detail<'a>,
}

#[derive(Serialize)]
struct Detail<'a> {
    message: &'a str,
    r#type: &'static str,
    param: Option<&'static str>,
    code: Option<&'static str>,
}

impl Refusal {
    fn body(&self) -> Body<'_> {
        let (r#type, code) = kind(self.failure.status);
        let code = code.filter(|code| *code != "model_not_found" || self.field == Some("model"));
        Body { error: Detail { message: &self.failure.message, r#type, param: self.field, code } }
    }

    /// As an event of a stream whose status is gone.
    pub(in crate::api::http) fn event(&self) -> String {
        serde_json::to_string(&self.body()).unwrap_or_default()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        self.failure.with_body(&self.body())
    }
}
