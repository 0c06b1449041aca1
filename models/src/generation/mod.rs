//! The family `text-generation`: decoders of the Llama family (Llama, Mistral, Qwen 2 and 3) from GGUF files and hubs'
//! folders, whose sequences share each step.
//!
//! What a sequence answers is a function of its generation alone, bit for bit: not of the sequences beside it, of how its
//! prompt was cut, of what the cache held, of how many threads there are or of their instruction set.

mod answer;
mod blocks;
mod checkpoint;
mod config;
mod decoder;
mod format;
mod generator;
pub(crate) mod kernels;
mod key_values;
mod sampling;
mod schedule;
mod sequence;
mod source;
mod team;
#[cfg(test)]
mod tests;
mod text;

pub(crate) use checkpoint::Part;
pub(crate) use config::{ARCHITECTURES, DecoderConfig};
pub(crate) use source::Source;
pub(crate) use text::TextReader;
