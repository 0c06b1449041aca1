//! From the input `text` to token ids.

use orion_proto::{Error, Result, bytes_elements};
use rayon::prelude::*;
use tokenizers::Tokenizer;

use super::{BertConfig, Source};
use crate::{ModelRequest, unservable};

/// Bytes that a token can stand for, generously: the longest word that a WordPiece tokenizer looks at has 100 characters.
const BYTES_PER_TOKEN: usize = 512;

/// A tokenizer that neither pads nor cuts, and the model's limit.
pub(super) struct TextReader {
    tokenizer: Tokenizer,
    most_tokens: usize,
}

impl TextReader {
    /// Reads `tokenizer.json`.
    pub(super) fn load(source: &Source) -> Result<Self> {
        crate::file::check_regular(&source.tokenizer)?;
        let path = source.tokenizer.display();
        let mut tokenizer = Tokenizer::from_file(&source.tokenizer)
            .map_err(|error| unservable(format!("{path} cannot be read: {}", error.to_string().to_lowercase())))?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| unservable(format!("{path}: {error}")))?;
        let BertConfig { vocab_size, max_position_embeddings, .. } = source.config;
        let greatest = tokenizer.get_vocab(true).into_values().max().unwrap_or(0);
        if greatest as usize >= vocab_size {
            return Err(unservable(format!(
                "{path} has the token {greatest}, config.json's vocab_size is {vocab_size}"
            )));
        }
        Ok(Self { tokenizer, most_tokens: max_position_embeddings })
    }

    /// Each text's token ids, special tokens included.
    pub(super) fn tokens(&self, request: &ModelRequest) -> Result<Vec<Vec<u32>>> {
        let Some(text) = request.inputs.first() else {
            return Ok(Vec::new());
        };
        let elements = bytes_elements(&text.name, &text.data.contiguous(), text.rows())?;
        let one = |(index, bytes): (usize, &bytes::Bytes)| self.encode(index, bytes, request.truncate);
        // An answer must not depend on which thread was first: the first bad element is the one named.
        let encoded: Vec<Result<Vec<u32>>> = elements.par_iter().enumerate().map(one).collect();
        encoded.into_iter().collect()
    }

    fn encode(&self, index: usize, bytes: &[u8], truncate: bool) -> Result<Vec<u32>> {
        let element = || format!("element {index} of input 'text'");
        let text = std::str::from_utf8(bytes).map_err(|error| {
            Error::invalid(format!("{} is not UTF-8 from byte {} on", element(), error.valid_up_to()))
        })?;
        // Far more than the model's tokens can hold is not tokenised first: it would take gigabytes to refuse it.
        let longest = self.most_tokens * BYTES_PER_TOKEN;
        let text = match text.len() > longest {
            true if truncate => &text[..text.floor_char_boundary(longest)],
            true => {
                return Err(Error::invalid(format!(
                    "{} has {} bytes, more than {longest} cannot be the model's {} tokens: shorten it, or set the \
                     parameter 'truncate' to true",
                    element(),
                    text.len(),
                    self.most_tokens
                )));
            }
            false => text,
        };
        let encoding = self
            .tokenizer
            .encode_fast(text, true)
            .map_err(|error| Error::invalid(format!("{} cannot be tokenised: {error}", element())))?;
        let mut ids = encoding.get_ids().to_vec();
        let (count, most) = (ids.len(), self.most_tokens);
        match ids.last().copied() {
            None => Err(Error::invalid(format!("{} has no tokens, it must have one", element()))),
            Some(separator) if count > most && truncate => {
                ids.truncate(most - 1);
                ids.push(separator);
                Ok(ids)
            }
            Some(_) if count > most => Err(Error::invalid(format!(
                "{} has {count} tokens, the model takes {most}: shorten it, or set the parameter 'truncate' to true",
                element()
            ))),
            Some(_) => Ok(ids),
        }
    }
}
