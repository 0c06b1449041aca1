//! OpenAI's files.

use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, Uri, header::CONTENT_TYPE},
    response::Response,
};
use futures::{StreamExt, stream};
use orion_proto::{
    Error,
    files::{File, FileRequest, ListFilesRequest, ReadFileRequest, files_server::Files},
};
use serde::Deserialize;
use serde_json::{Value, json};

pub(super) use super::upload::upload;
use super::{Api, call, metadata, query, refused};
use crate::api::http::{
    openai::Refusal,
    reply::{self, excerpt},
};

/// A file as OpenAI has it.
pub(super) fn shown(file: &File) -> Value {
    let expires = (file.expires_unix_ms > 0).then_some(file.expires_unix_ms / 1000);
    json!({
        "id": file.id, "object": "file", "bytes": file.bytes, "created_at": file.created_unix_ms / 1000,
        "expires_at": expires, "filename": file.name, "purpose": file.purpose, "status": "processed",
    })
}

#[derive(Deserialize)]
struct Listed {
    #[serde(default)]
    purpose: String,
    #[serde(default)]
    limit: u32,
    #[serde(default)]
    after: String,
    #[serde(default)]
    order: String,
}

pub(super) async fn list(State(api): State<Api>, headers: HeaderMap, uri: Uri) -> Result<Response, Refusal> {
    let Listed { purpose, limit, after, order } = query(uri.query())?;
    if !matches!(order.as_str(), "" | "desc") {
        let text = format!("order '{}' is not served, files are listed from the newest on: desc", excerpt(&order));
        return Err(Error::invalid(text).into());
    }
    let listed = api.0.files.list(call(&headers, ListFilesRequest { purpose, after, limit })).await;
    let listed = listed.map_err(|status| refused(&status))?.into_inner();
    Ok(reply::json(&page(listed.files.iter().map(shown).collect(), listed.has_more)))
}

/// A page as OpenAI has it.
pub(super) fn page(data: Vec<Value>, has_more: bool) -> Value {
    let id = |value: Option<&Value>| value.map_or(Value::Null, |value| value["id"].clone());
    let (first, last) = (id(data.first()), id(data.last()));
    json!({ "object": "list", "first_id": first, "last_id": last, "data": data, "has_more": has_more })
}

pub(super) async fn one(
    State(api): State<Api>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let file = api.0.files.get(call(&headers, FileRequest { id })).await.map_err(|status| refused(&status))?;
    Ok(reply::json(&shown(&file.into_inner())))
}

pub(super) async fn delete(
    State(api): State<Api>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let file = api.0.files.delete(call(&headers, FileRequest { id })).await.map_err(|status| refused(&status))?;
    Ok(reply::json(&json!({ "id": file.into_inner().id, "object": "file", "deleted": true })))
}

pub(super) async fn content(
    State(api): State<Api>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let pieces = api.0.files.pieces(&metadata(&headers), ReadFileRequest { id, from: 0 }).await;
    let mut pieces = pieces.map_err(|status| refused(&status))?;
    // The first decides the status.
    let first = pieces.next().await.transpose().map_err(|status| refused(&status))?;
    let pieces = stream::iter(first.map(Ok)).chain(pieces).map(|piece| piece.map(|piece| piece.piece));
    let mut response = Response::new(Body::from_stream(pieces));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Ok(response)
}
