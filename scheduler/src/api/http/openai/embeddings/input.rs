//! The field `input`: one text or a list of them.

use std::fmt;

use orion_proto::{Error, Result};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};

/// Texts that one request may hold, as OpenAI has it.
const MOST: usize = 2048;

/// What was given; what cannot be served is kept apart, to be refused in words that name the field.
#[derive(Debug)]
pub(super) enum Input {
    Texts(Vec<String>),
    Tokens,
    TooMany,
}

impl Input {
    /// The texts.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for tokens, for an empty list and for more than 2048 texts.
    pub(super) fn texts(self) -> Result<Vec<String>> {
        match self {
            Self::Texts(texts) if texts.is_empty() => Err(Error::invalid("input is empty, it must hold a text")),
            Self::Texts(texts) => Ok(texts),
            Self::Tokens => Err(Error::invalid("input holds tokens, which are not served: send the text")),
            Self::TooMany => Err(Error::invalid(format!("input holds more than {MOST} texts, send them in parts"))),
        }
    }
}

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(InputVisitor)
    }
}

struct InputVisitor;

impl<'de> Visitor<'de> for InputVisitor {
    type Value = Input;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or an array of texts")
    }

    fn visit_str<E>(self, text: &str) -> std::result::Result<Input, E> {
        Ok(Input::Texts(vec![text.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> std::result::Result<Input, A::Error> {
        let mut texts = Vec::new();
        while let Some(entry) = sequence.next_element()? {
            let refused = match entry {
                Entry::Tokens => Input::Tokens,
                Entry::Text(_) if texts.len() == MOST => Input::TooMany,
                Entry::Text(text) => {
                    texts.push(text);
                    continue;
                }
            };
            while sequence.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(refused);
        }
        Ok(Input::Texts(texts))
    }
}

enum Entry {
    Text(String),
    Tokens,
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(EntryVisitor)
    }
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = Entry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E>(self, text: &str) -> std::result::Result<Entry, E> {
        Ok(Entry::Text(text.to_owned()))
    }

    fn visit_u64<E>(self, _: u64) -> std::result::Result<Entry, E> {
        Ok(Entry::Tokens)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> std::result::Result<Entry, A::Error> {
        while sequence.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Entry::Tokens)
    }
}
