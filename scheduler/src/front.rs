//! The one door through which every API shell reaches the scheduler. Shells parse and render; they decide nothing.

use std::sync::Arc;

use orion_proto::{InferAnswer, InferRequest, ModelSpec, Result, inference};

/// A handle on the scheduler, cheap to clone.
#[derive(Clone)]
pub struct Front {}

/// An answered request, with the model that answered it.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The model as it is served.
    pub spec: Arc<ModelSpec>,
    /// What it answered.
    pub answer: InferAnswer,
}

impl Front {
    /// Validates, queues, runs and answers one request. Dropping the future cancels it.
    pub async fn infer(&self, request: InferRequest) -> Result<Answered> {
        let _ = request;
        std::future::pending().await
    }
    /// Whether the server can take inference (not starting, not draining).
    pub fn ready(&self) -> bool {
        true
    }
    /// The model's declaration. NOT_FOUND for an unknown name or version, UNAVAILABLE while no worker has loaded it.
    pub fn model_spec(&self, name: &str, version: &str) -> Result<Arc<ModelSpec>> {
        Err(orion_proto::Error::new(orion_proto::Code::NotFound, format!("{name}{version}")))
    }
    /// Whether the model can answer now; an unknown one is NOT_FOUND.
    pub fn model_ready(&self, name: &str, version: &str) -> Result<bool> {
        self.model_spec(name, version).map(|_| true)
    }
    /// Names of all models that can answer now, sorted.
    pub fn ready_models(&self) -> Vec<String> {
        vec![]
    }
    /// Statistics of one model, or of all when `name` is empty.
    pub fn statistics(&self, name: &str, version: &str) -> Result<Vec<inference::ModelStatistics>> {
        let _ = (name, version);
        Ok(vec![])
    }
    /// Every known model and its state.
    pub fn repository_index(&self, ready_only: bool) -> Vec<inference::repository_index_response::ModelIndex> {
        let _ = ready_only;
        vec![]
    }
    /// Loads a model of the repository; returns when it is ready, or why it is not.
    pub async fn load_model(&self, name: &str) -> Result<()> {
        let _ = name;
        Ok(())
    }
    /// Unloads a model everywhere.
    pub async fn unload_model(&self, name: &str) -> Result<()> {
        let _ = name;
        Ok(())
    }
}
