//! Why: where a model may run and at what predicted cost, and what became of a request.

use axum::{extract::State, response::Response};

use super::{
    Api, ModelPath,
    reply::{Failure, json},
};
use crate::api::explanation;

pub(super) async fn model(State(api): State<Api>, path: ModelPath) -> Result<Response, Failure> {
    Ok(json(&explanation::model(&api.0.front.explain_model(&path.name)?)))
}

/// The path's name is the request's id.
pub(super) async fn request(State(api): State<Api>, path: ModelPath) -> Result<Response, Failure> {
    Ok(json(&explanation::request(&api.0.front.explain_request(&path.name)?)))
}
