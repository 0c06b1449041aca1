//! What a call of the HTTP API names: its path, its body, its model.

use std::borrow::Cow;

use orion_proto::{
    Error, Result,
    jobs::{FileCalls, HttpCall},
};
use serde::Deserialize;

use super::files::{CSV, JSONL, PARQUET};
use crate::api::http::reply::excerpt;

/// Paths that jobs may call, beside those of a model's `infer` and `generate`.
pub(crate) const PATHS: [&str; 4] = ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/rerank"];

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Body<'b> {
    #[serde(borrow, default)]
    model: Option<Cow<'b, str>>,
    #[serde(default)]
    stream: Option<bool>,
}

/// Where a call goes.
enum Path<'p> {
    /// The body names the model.
    Named,
    /// This one.
    Model(&'p str),
}

fn path(path: &str) -> Result<Path<'_>> {
    if PATHS.contains(&path) {
        return Ok(Path::Named);
    }
    let parts: Vec<&str> = path.split('/').collect();
    match parts[..] {
        ["", "v2", "models", model, "infer" | "generate"]
        | ["", "v2", "models", model, "versions", _, "infer" | "generate"]
            if !model.is_empty() =>
        {
            Ok(Path::Model(model))
        }
        _ => {
            let shown = excerpt(path);
            let known = PATHS.join(", ");
            Err(Error::invalid(format!(
                "path '{shown}' is none that a job can call, it must be {known}, /v2/models/MODEL/infer or /v2/models/MODEL/generate"
            )))
        }
    }
}

/// The model, and its version, whose inputs are the columns of a file.
pub(super) fn inferred(file: &FileCalls) -> Option<(&str, &str)> {
    let parts: Vec<&str> = file.path.split('/').collect();
    match parts[..] {
        _ if ![CSV, PARQUET].contains(&file.format.as_str()) => None,
        ["", "v2", "models", model, "infer"] => Some((model, "")),
        ["", "v2", "models", model, "versions", version, "infer"] => Some((model, version)),
        _ => None,
    }
}

/// Finds the call's model, and puts it into a body that must name one and does not.
///
/// # Errors
/// INVALID_ARGUMENT naming what is wrong with the path or the body.
pub(super) fn complete(call: &mut HttpCall) -> Result<()> {
    let path = path(&call.path)?;
    is_object("the call's body", &call.body)?;
    let body: Body<'_> = serde_json::from_slice(&call.body)
        .map_err(|error| Error::invalid(format!("the call's body is not what it must be: {error}")))?;
    if body.stream == Some(true) {
        return Err(Error::invalid("a job's answer is no stream, leave 'stream' out"));
    }
    let named = match (path, body.model) {
        (Path::Model(model), _) => Some(model.to_owned()),
        (Path::Named, model) => model.map(Cow::into_owned).filter(|model| !model.is_empty()),
    };
    match named {
        Some(named) if call.model.is_empty() => call.model = named,
        Some(named) if named != call.model => {
            return Err(Error::invalid(format!("the call names model '{named}', and its job '{}'", call.model)));
        }
        Some(_) => {}
        None if call.model.is_empty() => {
            return Err(Error::invalid("the call's body names no model, it must: 'model'"));
        }
        None => call.body = with_model(&call.body, &call.model).into(),
    }
    Ok(())
}

/// A struct would be read from an array too.
pub(super) fn is_object(what: &str, json: &[u8]) -> Result<()> {
    match json.trim_ascii_start().first() {
        Some(b'{') => Ok(()),
        _ => Err(Error::invalid(format!("{what} is not what it must be, an object of JSON"))),
    }
}

/// The object with this model first.
fn with_model(body: &[u8], model: &str) -> Vec<u8> {
    let inner = body.iter().position(|byte| *byte == b'{').map_or(body, |start| &body[start + 1..]);
    let is_empty = inner.trim_ascii_start().starts_with(b"}");
    let mut whole =
        format!("{{\"model\":{}{}", serde_json::Value::from(model), if is_empty { "" } else { "," }).into_bytes();
    whole.extend_from_slice(inner);
    whole
}

/// Checks a call whose model was found.
///
/// # Errors
/// INVALID_ARGUMENT.
pub(super) fn check(call: &HttpCall) -> Result<()> {
    path(&call.path)?;
    if call.model.is_empty() {
        return Err(Error::invalid("the call names no model"));
    }
    Ok(())
}

/// Checks what is said of a file.
///
/// # Errors
/// INVALID_ARGUMENT.
pub(super) fn check_file(file: &FileCalls) -> Result<()> {
    if file.file_id.is_empty() {
        return Err(Error::invalid("the job names no file, it must: file_id"));
    }
    match file.format.as_str() {
        "" | JSONL => {}
        CSV | PARQUET if file.path.is_empty() => {
            return Err(Error::invalid("a table does not say what its rows call, the job must: path"));
        }
        CSV | PARQUET => {}
        other => {
            return Err(Error::invalid(format!("format '{}' must be jsonl, csv or parquet", other.escape_default())));
        }
    }
    if !file.path.is_empty() {
        path(&file.path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(path: &str, body: &str, model: &str) -> std::result::Result<(String, String), String> {
        let mut call = HttpCall { path: path.into(), body: body.to_owned().into(), model: model.into() };
        complete(&mut call).map_err(|error| error.message)?;
        check(&call).unwrap();
        Ok((call.model, String::from_utf8(call.body.to_vec()).unwrap()))
    }

    #[test]
    fn the_model_is_that_of_the_path_the_body_or_the_job() {
        let at = |path, body, model| completed(path, body, model).unwrap();
        let body = r#"{"model": "a\u0062", "input": "x"}"#;
        assert_eq!(at("/v1/embeddings", body, ""), ("ab".into(), body.into()));
        assert_eq!(at("/v1/embeddings", body, "ab"), ("ab".into(), body.into()));
        let filled = at("/v1/embeddings", r#" {"input": "x"}"#, "m");
        assert_eq!(filled, ("m".into(), r#"{"model":"m","input": "x"}"#.into()));
        assert_eq!(at("/v1/completions", "{ }", "m\"").1, r#"{"model":"m\"" }"#);
        assert_eq!(at("/v2/models/iris/infer", r#"{"inputs": []}"#, "").0, "iris");
        assert_eq!(at("/v2/models/iris/versions/2/generate", "{}", "").0, "iris");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let at = |path, body, model| completed(path, body, model).unwrap_err();
        assert!(at("/v1/models", "{}", "m").contains("/v1/embeddings"));
        assert!(at("/v2/models//infer", "{}", "m").contains("MODEL"));
        assert!(at("/v1/embeddings", "{}", "").contains("'model'"));
        assert!(at("/v1/embeddings", r#"{"model": ""}"#, "").contains("'model'"));
        assert!(at("/v1/embeddings", r#"{"model": "a"}"#, "b").contains("'a'"));
        assert!(at("/v1/embeddings", "[]", "b").contains("object"));
        assert!(at("/v1/embeddings", r#"{"model": 3}"#, "").contains("string"));
        assert!(at("/v1/completions", r#"{"model": "a", "stream": true}"#, "").contains("stream"));
        assert!(at("/v1/completions", "{", "").contains("EOF"));
    }
}
