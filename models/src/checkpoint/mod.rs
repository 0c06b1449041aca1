//! Trained weights as they lie on disk.
//!
//! [`Checkpoint`] reads the safetensors of a model's folder, memory-mapped: nothing is copied before a tensor is asked for.

mod element;
mod mapped;
mod read;
mod shards;

pub use element::Element;
pub(crate) use mapped::MappedFile;
pub use read::{Checkpoint, TensorEntry};
