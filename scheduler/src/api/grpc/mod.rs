//! gRPC: the Open Inference Protocol, the cluster service, health and reflection.

mod cluster;
mod inference;

pub use cluster::ClusterService;
pub use inference::InferenceService;
