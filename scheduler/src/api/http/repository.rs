//! Triton's model repository extension: which models there are, load and unload.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use bytes::Bytes;
use orion_proto::{Error, inference::repository_index_response::ModelIndex};
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    Api, ModelPath, body,
    infer_request::not_a_request,
    parameters::ParameterList,
    reply::{Failure, json},
};

/// Bytes of a body here; a load that brings files along is refused whatever its size.
const BODY_BYTES: usize = 1 << 20;

/// An empty body means all defaults.
async fn read<T: DeserializeOwned + Default>(api: &Api, headers: &HeaderMap, body: Body) -> Result<T, Failure> {
    let bytes: Bytes = body::read(headers, body, BODY_BYTES, api.0.budget.hold()).await?;
    match bytes.trim_ascii() {
        [] => Ok(T::default()),
        text => Ok(serde_json::from_slice(text).map_err(|error| not_a_request(&error))?),
    }
}

pub(super) async fn index(State(api): State<Api>, headers: HeaderMap, body: Body) -> Result<Response, Failure> {
    #[derive(Deserialize, Default)]
    #[serde(expecting = "an object")]
    struct Query {
        #[serde(default)]
        ready: bool,
    }
    let query: Query = read(&api, &headers, body).await?;
    let models = api.0.front.repository_index(query.ready);
    Ok(json(&models.iter().map(Entry::of).collect::<Vec<_>>()))
}

/// Fields that are empty are left out, as Triton does.
#[derive(serde::Serialize)]
struct Entry<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    state: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
}

impl<'a> Entry<'a> {
    fn of(model: &'a ModelIndex) -> Self {
        Self { name: &model.name, version: &model.version, state: &model.state, reason: &model.reason }
    }
}

#[derive(Deserialize, Default)]
#[serde(expecting = "an object")]
struct Change {
    #[serde(default)]
    parameters: Option<ParameterList>,
}

impl Change {
    /// A client may not bring configuration or files: they name code and paths.
    fn refuse_all_but(self, accepted: &str) -> Result<(), Error> {
        let parameters = self.parameters.unwrap_or_default();
        match parameters.iter().find(|(name, _)| *name != accepted) {
            None => Ok(()),
            Some((name, _)) => Err(Error::invalid(format!(
                "parameter '{}' is refused, a model's configuration and files come from the server's own folders only",
                super::reply::excerpt(name)
            ))),
        }
    }
}

pub(super) async fn load(
    State(api): State<Api>,
    path: ModelPath,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Failure> {
    read::<Change>(&api, &headers, body).await?.refuse_all_but("")?;
    api.0.front.load_model(&path.name).await?;
    Ok(StatusCode::OK)
}

pub(super) async fn unload(
    State(api): State<Api>,
    path: ModelPath,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Failure> {
    read::<Change>(&api, &headers, body).await?.refuse_all_but("unload_dependents")?;
    api.0.front.unload_model(&path.name).await?;
    Ok(StatusCode::OK)
}
