//! A call of the HTTP API, made here: its job gets what a client there would.

use axum::{
    Router,
    body::Body,
    http::{Request, Response, header::CONTENT_TYPE},
};
use http_body_util::{BodyExt, Limited};
use orion_proto::{
    Code, Error, Result,
    jobs::{HttpAnswer, HttpCall},
};
use tower::ServiceExt;

use super::attempt::MOST_RESULT_BYTES;
use crate::{
    api::{
        http,
        terms::{Arrival, ForJob},
    },
    front::Front,
};

/// The HTTP API of this scheduler, without its port.
#[derive(Clone)]
pub(super) struct Calls(Router);

impl Calls {
    pub(super) fn new(front: &Front) -> Self {
        Self(http::inner_router(front.clone()))
    }

    /// What the API answers.
    ///
    /// # Errors
    /// Those that it answers.
    pub(super) async fn call(&self, call: &HttpCall, of: ForJob) -> Result<HttpAnswer> {
        let request =
            Request::post(&call.path).header(CONTENT_TYPE, "application/json").body(Body::from(call.body.clone()));
        let mut request = request.map_err(|error| Error::invalid(format!("the call cannot be made: {error}")))?;
        request.extensions_mut().insert(Arrival::of_job(of));
        // The router's error is that there is none.
        let Ok(response) = self.0.clone().oneshot(request).await;
        if !response.status().is_success() {
            return Err(refused(response));
        }
        let status = u32::from(response.status().as_u16());
        let content_type =
            response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let content_type = content_type.to_owned();
        if !content_type.starts_with("application/json") {
            let text = format!("the answer is {content_type}, a job's must be JSON: ask for no binary outputs");
            return Err(Error::invalid(text));
        }
        let body = Limited::new(response.into_body(), MOST_RESULT_BYTES).collect().await;
        let too_large = |error| {
            let text = format!("the result cannot be kept, {MOST_RESULT_BYTES} bytes are at most: {error}");
            Error::new(Code::FailedPrecondition, text)
        };
        Ok(HttpAnswer { status, content_type, body: body.map_err(too_large)?.to_bytes() })
    }
}

/// The error that an answer was made of.
fn refused(response: Response<Body>) -> Error {
    let status = response.status();
    let error = response.extensions().get::<Error>().cloned();
    error.unwrap_or_else(|| Error::new(Code::Internal, format!("the call was answered with status {status}")))
}
