//! The bodies of OpenAI's requests: several structs read one JSON object, each its own fields.
//!
//! What none of them knows is skipped as it is read; `#[serde(flatten)]` would hold it all, at some thirty times its size.

use axum::{body::Body, http::HeaderMap};

use super::Refusal;
use crate::api::http::{
    State,
    body::{self, off_the_loop},
    infer_request::not_a_request,
};

/// Reads a body and what `parse` takes from it.
///
/// # Errors
/// Those of [`body::read`]; INVALID_ARGUMENT for what `parse` refuses.
pub(super) async fn read<T: Send + 'static>(
    api: &State,
    headers: &HeaderMap,
    body: Body,
    parse: fn(&[u8]) -> serde_json::Result<T>,
) -> Result<T, Refusal> {
    let body = body::read(headers, body, api.max_message_bytes, api.budget.hold()).await?;
    off_the_loop(body.len(), move || parse(&body).map_err(|error| Refusal::from(not_a_request(&error)))).await
}
