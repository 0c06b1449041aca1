//! The API shells: gRPC and HTTP.
