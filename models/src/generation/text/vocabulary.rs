//! A model's tokens.

use orion_proto::{Error, Result};

use super::{
    template::{ChatTemplate, Conversation},
    token_bytes::TokenBytes,
};
use crate::tokenizer::Tokenizer;

/// Bytes that a token can stand for, generously.
const BYTES_PER_TOKEN: usize = 512;
/// Bytes of a token in most texts.
const USUAL_BYTES_PER_TOKEN: usize = 4;
/// Tokens by which the beginning of a text may have more than it has in the whole: where it is cut, words are.
const CUT_TOKENS: usize = 64;
/// Bytes of a conversation's JSON that are read for each token of the context: its values take some thirty times as much
/// memory until the template has made text of them.
const JSON_BYTES_PER_TOKEN: usize = 1024;

/// A tokenizer with what its model's metadata says of it.
pub(crate) struct Vocabulary {
    pub(super) tokenizer: Tokenizer,
    pub(super) bytes: TokenBytes,
    /// Put before a raw text, where the tokenizer does not do it itself.
    pub(super) start: Option<u32>,
    /// The token before which no space is the text's own.
    pub(super) begin: Option<u32>,
    /// After one of these the text has ended.
    pub(super) ends: Vec<u32>,
    /// Whether the first space of a text is the tokenizer's.
    pub(super) strips: bool,
    pub(super) template: Option<ChatTemplate>,
}

impl Vocabulary {
    /// The bytes of a token; none of a special one.
    pub(crate) fn bytes(&self, token: u32) -> &[u8] {
        self.bytes.get(token)
    }

    /// Whether nothing follows a token.
    pub(crate) fn is_end(&self, token: u32) -> bool {
        self.ends.contains(&token)
    }

    /// Tokens after which nothing follows.
    pub(crate) fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// Forgets end tokens that a model of so many tokens never writes: files of a vocabulary that was added to name them.
    pub(crate) fn forget_ends_beyond(&mut self, count: usize) {
        self.ends.retain(|end| (*end as usize) < count);
    }

    /// Whether what follows these tokens is the begin of a text, whose first space is none of it.
    pub(crate) fn begins_after(&self, tokens: &[u32]) -> bool {
        self.strips && tokens.last().copied() == self.begin
    }

    /// A raw text's tokens, at most so many.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for a text that cannot have so few.
    pub(crate) fn encode(&self, text: &str, most: usize) -> Result<Vec<u32>> {
        let mut tokens = self.tokens(text, true, most)?;
        if let Some(start) = self.start {
            tokens.insert(0, start);
        }
        Ok(tokens)
    }

    /// The tokens of a conversation, for an answer to follow.
    ///
    /// # Errors
    /// INVALID_ARGUMENT where the model has no template, or its template refuses the conversation.
    pub(crate) fn encode_chat(&self, conversation: Conversation<'_>, most: usize) -> Result<Vec<u32>> {
        let template = self
            .template
            .as_ref()
            .ok_or_else(|| Error::invalid("the model has no chat template, ask it with a raw prompt"))?;
        let Conversation { messages, tools, .. } = conversation;
        let (bytes, longest) = (messages.len() + tools.map_or(0, str::len), most.saturating_mul(JSON_BYTES_PER_TOKEN));
        if bytes > longest {
            return Err(Error::invalid(format!(
                "the conversation has {bytes} bytes of JSON, for a context of {most} tokens at most {longest} are read"
            )));
        }
        // The template writes the start token itself.
        self.tokens(&template.render(conversation)?, false, most)
    }

    fn tokens(&self, text: &str, special: bool, most: usize) -> Result<Vec<u32>> {
        // Far more than the tokens can hold is not tokenised first: it would take gigabytes to refuse it.
        let longest = most.saturating_mul(BYTES_PER_TOKEN);
        if text.len() > longest {
            let bytes = text.len();
            return Err(Error::invalid(format!("the prompt has {bytes} bytes, {most} tokens hold at most {longest}")));
        }
        let ids = |text: &str| {
            let encoding = self.tokenizer.encode_fast(text, special);
            let encoding =
                encoding.map_err(|error| Error::invalid(format!("the prompt cannot be tokenised: {error}")))?;
            Ok(encoding.get_ids().to_vec())
        };
        // Seconds are spared, in which no other sequence takes a step, where its beginning alone has too many.
        let beginning = text.floor_char_boundary(most.saturating_mul(USUAL_BYTES_PER_TOKEN));
        if beginning < text.len() {
            let (tokens, bytes) = (ids(&text[..beginning])?.len(), text.len());
            if tokens > most + CUT_TOKENS {
                return Err(Error::invalid(format!(
                    "the prompt has {bytes} bytes, the first {beginning} of them are {tokens} tokens, the model holds {most}"
                )));
            }
        }
        ids(text)
    }
}
