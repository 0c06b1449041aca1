//! From the inputs' texts to token ids.

use std::fmt;

use bytes::Bytes;
use orion_proto::{Error, Result, bytes_elements};
use rayon::prelude::*;
use tokenizers::{Encoding, PostProcessor, TruncationParams, truncate_encodings};

use super::{BertConfig, Source};
use crate::{
    ModelRequest,
    tokenizer::{self, Tokenizer},
    unservable,
};

/// Bytes that a token can stand for, generously: the longest word that a WordPiece tokenizer looks at has 100 characters.
const BYTES_PER_TOKEN: usize = 512;

/// A row as the encoder takes it.
#[derive(Debug)]
pub(crate) struct Tokens {
    /// Special tokens included.
    pub(crate) ids: Vec<u32>,
    /// Tokens of type 0; those after them, of a second text, are of type 1.
    pub(crate) first: usize,
}

/// A tokenizer that neither pads nor cuts, and the model's limits.
pub(crate) struct TextReader {
    tokenizer: Tokenizer,
    most_tokens: usize,
    vocabulary: usize,
    types: usize,
    /// The inputs that hold a row's texts.
    inputs: (&'static str, Option<&'static str>),
}

impl TextReader {
    /// Reads `tokenizer.json`.
    pub(super) fn load(source: &Source) -> Result<Self> {
        let path = source.tokenizer.display();
        let tokenizer = tokenizer::read(&source.tokenizer)?;
        let BertConfig { vocab_size, max_position_embeddings, .. } = source.config;
        let greatest = tokenizer::greatest(&tokenizer);
        if greatest as usize >= vocab_size {
            return Err(unservable(format!(
                "{path} has the token {greatest}, config.json's vocab_size is {vocab_size}"
            )));
        }
        let (most_tokens, vocabulary, types) = (max_position_embeddings, vocab_size, source.config.types());
        Ok(Self { tokenizer, most_tokens, vocabulary, types, inputs: source.task.texts() })
    }

    /// The same for texts of fewer tokens.
    pub(crate) fn limited(source: &Source, tokens: usize) -> Result<Self> {
        let reader = Self::load(source)?;
        Ok(Self { most_tokens: reader.most_tokens.min(tokens), ..reader })
    }

    /// The tokens of a single text, cut off at its end where it is too long.
    pub(crate) fn row_of(&self, text: &str) -> Result<Tokens> {
        self.encode(0, &Bytes::copy_from_slice(text.as_bytes()), None, true)
    }

    /// The tokens of each row of a request whose inputs fit the declaration.
    pub(super) fn tokens(&self, request: &ModelRequest) -> Result<Vec<Tokens>> {
        let (first, second) = self.inputs;
        let Some(first) = elements(request, first)? else { return Ok(Vec::new()) };
        let second = second.map_or(Ok(None), |name| elements(request, name))?;
        let one = |index: usize| {
            let second = second.as_ref().and_then(|texts| texts.get(index));
            self.encode(index, &first[index], second, request.truncate)
        };
        // An answer must not depend on which thread was first: the first bad element is the one named.
        let encoded: Vec<Result<Tokens>> = (0..first.len()).into_par_iter().map(one).collect();
        encoded.into_iter().collect()
    }

    fn encode(&self, index: usize, first: &Bytes, second: Option<&Bytes>, truncate: bool) -> Result<Tokens> {
        let (name, other) = self.inputs;
        let mut element = Element { index, name, other: None };
        let mut encoding = self.words(&element, first, truncate)?;
        let mut pair = None;
        if let (Some(other), Some(second)) = (other, second) {
            pair = Some(self.words(&Element { index, name: other, other: None }, second, truncate)?);
            element.other = Some(other);
        }
        let special = self.tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(pair.is_some()));
        let (count, most) = (encoding.len() + pair.as_ref().map_or(0, Encoding::len) + special, self.most_tokens);
        let failed = |error: tokenizers::Error| Error::invalid(format!("{element} cannot be tokenised: {error}"));
        if count > most {
            if !truncate {
                return Err(Error::invalid(format!(
                    "{element} has {count} tokens, the model takes {most}: shorten it, or set the parameter 'truncate' \
                     to true"
                )));
            }
            // The longer text first, from its end.
            let limit = TruncationParams { max_length: most.saturating_sub(special), ..TruncationParams::default() };
            (encoding, pair) = truncate_encodings(encoding, pair, &limit).map_err(failed)?;
            // What was cut off is kept beside them, and would be combined each with each.
            encoding.take_overflowing();
            if let Some(pair) = &mut pair {
                pair.take_overflowing();
            }
        }
        if let Some(pair) = &mut pair {
            pair.set_type_ids(vec![1; pair.len()]);
        }
        let whole = self.tokenizer.post_process(encoding, pair, true).map_err(failed)?;
        self.row(&element, &whole)
    }

    /// A text's tokens without special ones.
    fn words(&self, element: &Element, bytes: &[u8], truncate: bool) -> Result<Encoding> {
        let text = std::str::from_utf8(bytes)
            .map_err(|error| Error::invalid(format!("{element} is not UTF-8 from byte {} on", error.valid_up_to())))?;
        // Far more than the model's tokens can hold is not tokenised first: it would take gigabytes to refuse it.
        let longest = self.most_tokens * BYTES_PER_TOKEN;
        let text = match text.len() > longest {
            true if truncate => &text[..text.floor_char_boundary(longest)],
            true => {
                return Err(Error::invalid(format!(
                    "{element} has {} bytes, more than {longest} cannot be the model's {} tokens: shorten it, or set \
                     the parameter 'truncate' to true",
                    text.len(),
                    self.most_tokens
                )));
            }
            false => text,
        };
        self.tokenizer
            .encode_fast(text, false)
            .map_err(|error| Error::invalid(format!("{element} cannot be tokenised: {error}")))
    }

    fn row(&self, element: &Element, whole: &Encoding) -> Result<Tokens> {
        let (ids, types) = (whole.get_ids(), whole.get_type_ids());
        if ids.is_empty() {
            return Err(Error::invalid(format!("{element} has no tokens, it must have one")));
        }
        if ids.len() > self.most_tokens {
            let (most, count) = (self.most_tokens, ids.len());
            return Err(unservable(format!(
                "tokenizer.json makes {count} tokens of {element}, the model takes {most}"
            )));
        }
        if let Some(id) = ids.iter().find(|&&id| id as usize >= self.vocabulary) {
            let most = self.vocabulary;
            return Err(unservable(format!("tokenizer.json gives {element} the token {id}, the model has {most}")));
        }
        let first = types.iter().position(|&kind| kind != 0).unwrap_or(ids.len());
        match types[first..].iter().find(|&&kind| kind != 1 || self.types < 2) {
            None => Ok(Tokens { ids: ids.to_vec(), first }),
            Some(kind) => Err(unservable(format!(
                "tokenizer.json gives {element} a token of type {kind} after its first {first}, the model has {} types, \
                 and only a second text is of another type than 0",
                self.types
            ))),
        }
    }
}

/// A row of a request as a message names it.
struct Element {
    index: usize,
    name: &'static str,
    other: Option<&'static str>,
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, name, other } = self;
        match other {
            None => write!(f, "element {index} of input '{name}'"),
            Some(other) => write!(f, "element {index} of inputs '{name}' and '{other}'"),
        }
    }
}

/// The texts of an input; `None` where the request has no such input.
fn elements(request: &ModelRequest, name: &str) -> Result<Option<Vec<Bytes>>> {
    let input = request.inputs.iter().find(|tensor| tensor.name == name);
    input.map(|tensor| bytes_elements(name, &tensor.data.contiguous(), tensor.rows())).transpose()
}
