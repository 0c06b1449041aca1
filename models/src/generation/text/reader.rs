//! Texts as what a model learns from: tokens from its start to its end.

use std::path::Path;

use orion_proto::Result;

use super::{hub_tokenizer, vocabulary::Vocabulary};
use crate::unservable;

/// The tokenizer of a hub's folder.
pub(crate) struct TextReader {
    vocabulary: Vocabulary,
    end: Option<u32>,
    tokens: usize,
}

impl TextReader {
    /// Of a model with so many tokens.
    ///
    /// # Errors
    /// FAILED_PRECONDITION naming the file that cannot be read.
    pub(crate) fn open(folder: &Path, tokens: usize) -> Result<Self> {
        let vocabulary = hub_tokenizer::vocabulary(folder, tokens)?;
        Ok(Self { end: hub_tokenizer::end(folder, &vocabulary.tokenizer)?, vocabulary, tokens })
    }

    /// A text's tokens, with those of its start and its end where the model has such.
    ///
    /// # Errors
    /// FAILED_PRECONDITION where the tokenizer fails, or has a token that the model has not.
    pub(crate) fn tokens(&self, text: &str) -> Result<Vec<u32>> {
        let failed = |error| unservable(format!("a text cannot be tokenised: {error}"));
        let encoding = self.vocabulary.tokenizer.encode_fast(text, true).map_err(failed)?;
        let (ids, Vocabulary { begin, ends, .. }) = (encoding.get_ids(), &self.vocabulary);
        let start = begin.filter(|begin| ids.first() != Some(begin));
        let end = self.end.filter(|_| !ids.last().is_some_and(|last| ends.contains(last)));
        let all: Vec<u32> = start.into_iter().chain(ids.iter().copied()).chain(end).collect();
        match all.iter().find(|id| **id as usize >= self.tokens) {
            None => Ok(all),
            Some(id) => Err(unservable(format!("tokenizer.json gives the token {id}, the model has {}", self.tokens))),
        }
    }
}
