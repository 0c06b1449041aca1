//! gRPC: the Open Inference Protocol, the cluster service, health and reflection.

mod cluster;
mod files;
mod inference;
mod interleave;
mod jobs;
mod leader;

pub use cluster::ClusterService;
pub use files::FilesService;
pub use inference::InferenceService;
pub(crate) use inference::response;
pub use jobs::JobsService;
