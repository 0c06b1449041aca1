//! Trained weights as they lie on disk.
//!
//! [`Checkpoint`] reads the safetensors of a model's folder, memory-mapped: nothing is copied before a tensor is asked for.
//! [`convert`] makes such a folder of what other programs wrote: PyTorch's files and llama2.c's. Every length, offset,
//! stride and count of a file is checked against the file before it is used.

mod convert;
mod element;
mod encode;
mod header;
mod llama2c;
mod read;
mod shards;
mod source;
mod torch;
mod view;
mod write;

pub use convert::{Conversion, Converted, convert};
pub use element::Element;
pub(crate) use encode::encode;
pub use read::{Checkpoint, TensorEntry};
pub use source::Format;
