//! `x-request-id`: who sends one finds it on the answer, whatever the answer is.

use axum::{
    http::HeaderMap,
    response::{IntoResponse, Response},
};

use crate::api::terms::REQUEST_ID;

/// The answer with the request's `x-request-id`, where there is one.
pub(super) async fn echo<F: IntoResponse>(
    headers: &HeaderMap,
    answer: impl Future<Output = Result<Response, F>>,
) -> Response {
    let mut response = answer.await.into_response();
    if let Some(id) = headers.get(REQUEST_ID) {
        response.headers_mut().insert(REQUEST_ID, id.clone());
    }
    response
}
