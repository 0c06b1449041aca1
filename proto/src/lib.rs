//! The wire: generated types, the validated types that the rest of Orion works on, and the closed error table.
//!
//! Generated code is in [`inference`], [`session`], [`cluster`], [`jobs`], [`files`], [`journal`], [`artifact`] and [`peer`]; everything else is checked once, here, and believed
//! afterwards.

pub mod answer;
mod bytes_tensor;
mod datatype;
mod error;
mod fused;
mod generation;
mod infer;
mod name;
mod payload;
mod policy;
mod sequence;
mod spec;
pub mod step;
mod tensor;
pub mod training;

pub use bytes_tensor::{bytes_elements, encode_bytes_elements};
pub use datatype::Datatype;
pub use error::{Code, Error, Result};
pub use fused::{Fused, FusedStep};
pub use generation::{
    Delta, FinishReason, Format, Generation, MOST_ALTERNATIVES, MOST_BIASES, MOST_STOPS, Prompt, Sampling,
    TokenProbability,
};
pub use infer::{InferAnswer, InferRequest, JobAttempt, Parameters, Priority, routing_key};
pub use name::{ModelName, valid_name};
pub use payload::Payload;
pub use policy::{ModelPolicy, Requirements, compute_capability};
pub use sequence::Sequence;
pub use spec::{GeneratorSpec, ModelSpec, ServiceCurve, TensorSpec};
pub use tensor::{Tensor, element_count};

/// Generated from `wire/inference.proto` and `wire/model_config.proto`.
#[allow(missing_docs, clippy::all)] // generated
pub mod inference {
    tonic::include_proto!("inference");
}

/// Generated types, in the modules that their packages name.
#[allow(missing_docs, unreachable_pub, clippy::all)] // generated
mod orion {
    pub mod artifact {
        pub mod v1 {
            tonic::include_proto!("orion.artifact.v1");
        }
    }
    pub mod journal {
        pub mod v1 {
            tonic::include_proto!("orion.journal.v1");
        }
    }
    pub mod peer {
        pub mod v1 {
            tonic::include_proto!("orion.peer.v1");
        }
    }
    pub mod session {
        pub mod v1 {
            tonic::include_proto!("orion.session.v1");
        }
    }
    pub mod v1 {
        tonic::include_proto!("orion.v1");
    }
}

pub use orion::artifact::v1 as artifact;
pub use orion::journal::v1 as journal;
pub use orion::peer::v1 as peer;
pub use orion::session::v1 as session;
pub use orion::v1 as cluster;
pub use orion::v1 as files;
pub use orion::v1 as jobs;

/// The file descriptors of every service, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The session protocol's major version: a peer with another is refused by name.
pub const PROTOCOL_MAJOR: u32 = 1;
/// The session protocol's minor version: what it adds may be ignored by a peer that does not know it.
pub const PROTOCOL_MINOR: u32 = 0;
