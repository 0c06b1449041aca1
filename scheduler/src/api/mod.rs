//! The API shells: gRPC and HTTP.

pub mod access;
pub mod grpc;
pub mod http;
pub mod metrics;
