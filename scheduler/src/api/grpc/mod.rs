//! gRPC: the Open Inference Protocol, the cluster service, health and reflection.

mod cluster;
mod inference;
mod metadata;

pub use cluster::ClusterService;
pub use inference::InferenceService;
pub use metadata::{model_config, model_metadata, server_metadata};
