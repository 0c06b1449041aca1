//! Text to tokens and back.

pub(crate) mod gguf_tokenizer;
pub(crate) mod hub_tokenizer;
mod output;
mod reader;
mod template;
mod token_bytes;
mod vocabulary;

pub(crate) use output::Output;
pub(crate) use reader::TextReader;
pub(crate) use template::Conversation;
pub(crate) use vocabulary::Vocabulary;
