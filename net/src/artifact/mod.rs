//! What a model is on its way between machines.

mod cut;

pub use cut::{Chunk, chunk_bytes, cut};
