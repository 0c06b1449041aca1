//! OpenAI's API: models, embeddings, chat and plain completions, transcriptions; and reranking, which others put beside it.

mod answers;
mod chat;
mod completions;
mod embeddings;
mod events;
mod fields;
mod parameters;
mod refusal;
mod rerank;
mod settings;
mod tools;
mod transcriptions;

use axum::{extract::State, response::Response};
use serde::Serialize;

pub(super) use chat::chat;
pub(super) use completions::completions;
pub(super) use embeddings::embeddings;
pub(super) use events::events;
pub(super) use refusal::Refusal;
pub(super) use rerank::rerank;
pub(super) use transcriptions::transcriptions;

use super::{Api, ModelPath, reply::json};

#[derive(Serialize)]
struct Model<'a> {
    id: &'a str,
    object: &'static str,
    /// Seconds since 1970. A model's own age is not known: the server's is given.
    created: u64,
    owned_by: &'static str,
}

impl<'a> Model<'a> {
    fn new(id: &'a str, created: u64) -> Self {
        Self { id, object: "model", created, owned_by: "orion" }
    }
}

pub(super) async fn models(State(api): State<Api>) -> Response {
    #[derive(Serialize)]
    struct List<'a> {
        object: &'static str,
        data: Vec<Model<'a>>,
    }
    let names = api.0.front.ready_models();
    json(&List { object: "list", data: names.iter().map(|name| Model::new(name, api.0.started)).collect() })
}

pub(super) async fn model(State(api): State<Api>, path: ModelPath) -> Result<Response, Refusal> {
    let spec = api.0.front.model_spec(&path.name, "").map_err(|error| Refusal::from(error).about("model"))?;
    Ok(json(&Model::new(spec.name.as_str(), api.0.started)))
}
