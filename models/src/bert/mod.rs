//! BERT encoders: texts to embeddings, to classes, and with a query to their relevance.

mod answer;
mod buckets;
mod config;
mod cpu_encoder;
mod head;
mod model;
mod network;
mod source;
mod task;
mod tensor_encoder;
#[cfg(test)]
mod tests;
mod text;
mod words;

pub(crate) use config::BertConfig;
pub(crate) use model::Bert;
pub(crate) use source::Source;
pub(crate) use text::{TextReader, Tokens};

/// Tokens of a typical row: what a manifest's operations per row and a sample are made for.
const TYPICAL_TOKENS: usize = 32;
