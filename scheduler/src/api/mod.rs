//! The API shells: gRPC and HTTP.

pub mod access;
pub mod http;
