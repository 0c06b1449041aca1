//! gRPC: the Open Inference Protocol, the cluster service, health and reflection.

mod cluster;
mod inference;
mod interleave;

pub use cluster::ClusterService;
pub use inference::InferenceService;
