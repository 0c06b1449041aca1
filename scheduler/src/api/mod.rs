//! The API shells: gRPC and HTTP.

pub mod access;
pub mod budget;
pub mod explanation;
pub mod grpc;
pub mod http;
mod metadata;
pub mod metrics;
pub(crate) mod terms;

pub(crate) use terms::note_arrival;
