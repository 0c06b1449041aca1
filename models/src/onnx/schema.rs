//! The messages of an ONNX file, generated from `wire/onnx.proto`.
#![allow(missing_docs, unreachable_pub, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/onnx.rs"));
