//! The model of a `tokenizer.json`, read without a copy of its texts.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};

use super::{Bpe, Rules};

/// Ids reach so often the count of tokens at most: there are holes where tokens are added that the model does not know.
const SPARSE: usize = 4;
/// More tokens no model has; their places take memory.
const MOST_TOKENS: usize = 1 << 24;

/// What stands there of a byte-pair encoding.
#[derive(Deserialize)]
pub(in crate::tokenizer) struct File<'t> {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(borrow)]
    vocab: Vocab<'t>,
    #[serde(borrow)]
    merges: Vec<Pair<'t>>,
    dropout: Option<f32>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    fuse_unk: Option<bool>,
    byte_fallback: Option<bool>,
    ignore_merges: Option<bool>,
}

#[derive(Deserialize)]
struct Text<'t>(#[serde(borrow)] Cow<'t, str>);

/// An object of numbers, in its order.
struct Vocab<'t>(Vec<(Text<'t>, u32)>);

/// Two texts, in older files one with a space between them.
struct Pair<'t>(Cow<'t, str>, Cow<'t, str>);

impl<'t, 'de: 't> Deserialize<'de> for Vocab<'t> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Vocab<'de>;
            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object of numbers")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocab<'de>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Vocab(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl<'t, 'de: 't> Deserialize<'de> for Pair<'t> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Two;
        impl<'de> Visitor<'de> for Two {
            type Value = Pair<'de>;
            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("two texts, or one with a space between them")
            }
            fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<Pair<'de>, E> {
                let (left, right) = halves(text).ok_or_else(|| E::custom(format!("'{text}' is no pair")))?;
                Ok(Pair(Cow::Borrowed(left), Cow::Borrowed(right)))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Pair<'de>, E> {
                let (left, right) = halves(text).ok_or_else(|| E::custom(format!("'{text}' is no pair")))?;
                Ok(Pair(Cow::Owned(left.to_owned()), Cow::Owned(right.to_owned())))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Pair<'de>, A::Error> {
                let mut next = || list.next_element::<Text<'de>>();
                match (next()?, next()?, next()?) {
                    (Some(Text(left)), Some(Text(right)), None) => Ok(Pair(left, right)),
                    _ => Err(serde::de::Error::custom("a pair is not of two texts")),
                }
            }
        }
        deserializer.deserialize_any(Two)
    }
}

/// A text with one space, before and after it; the version that older files begin with is none.
fn halves(text: &str) -> Option<(&str, &str)> {
    text.split_once(' ').filter(|(left, right)| !right.contains(' ') && !left.starts_with("#version"))
}

impl File<'_> {
    /// Whether [`Bpe`] knows all that it asks for; else the library is to read it.
    pub(in crate::tokenizer) fn is_plain(&self) -> bool {
        let parts = [&self.continuing_subword_prefix, &self.end_of_word_suffix];
        self.kind.as_deref().is_none_or(|kind| kind == "BPE")
            && self.dropout.is_none_or(|share| share == 0.0)
            && parts.iter().all(|part| part.as_deref().is_none_or(str::is_empty))
            && self.vocab.0.iter().all(|(_, id)| *id as usize / SPARSE <= self.vocab.0.len().min(MOST_TOKENS / SPARSE))
    }

    /// Builds it.
    ///
    /// # Errors
    /// A merge of what is no token, by name.
    pub(in crate::tokenizer) fn build(self) -> Result<Bpe, String> {
        let rules = Rules {
            unknown: self.unk_token,
            fuse_unknown: self.fuse_unk.unwrap_or_default(),
            byte_fallback: self.byte_fallback.unwrap_or_default(),
            ignore_merges: self.ignore_merges.unwrap_or_default(),
        };
        let tokens = self.vocab.0.iter().map(|(text, id)| (&*text.0, *id));
        Bpe::new(tokens, self.merges.iter().map(|Pair(left, right)| (&**left, &**right)), rules)
    }
}
