//! The API shells: gRPC and HTTP.

pub mod grpc;
