//! The field `documents`: texts, or objects that hold one each.

use std::fmt;

use orion_proto::{Error, Result};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// Documents that one request may hold: as many as embeddings take texts.
const MOST: usize = 2048;

/// What was given; more than are served are not kept.
#[derive(Debug)]
pub(super) enum Documents {
    Texts(Vec<String>),
    TooMany,
}

impl Documents {
    /// The texts.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for an empty list and for more than 2048 documents.
    pub(super) fn texts(self) -> Result<Vec<String>> {
        match self {
            Self::Texts(texts) if texts.is_empty() => Err(Error::invalid("documents is empty, it must hold a text")),
            Self::Texts(texts) => Ok(texts),
            Self::TooMany => Err(Error::invalid(format!("documents holds more than {MOST}, send them in parts"))),
        }
    }
}

impl<'de> Deserialize<'de> for Documents {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_seq(DocumentsVisitor)
    }
}

struct DocumentsVisitor;

impl<'de> Visitor<'de> for DocumentsVisitor {
    type Value = Documents;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of documents")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> std::result::Result<Documents, A::Error> {
        let mut texts = Vec::new();
        while let Some(Document(text)) = sequence.next_element()? {
            if texts.len() == MOST {
                while sequence.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(Documents::TooMany);
            }
            texts.push(text);
        }
        Ok(Documents::Texts(texts))
    }
}

/// A text, or an object whose `text` it is.
struct Document(String);

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(DocumentVisitor)
    }
}

struct DocumentVisitor;

impl<'de> Visitor<'de> for DocumentVisitor {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a document: a text, or an object with a text in its field 'text'")
    }

    fn visit_str<E>(self, text: &str) -> std::result::Result<Document, E> {
        Ok(Document(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Document, A::Error> {
        let mut text = None;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "text" => text = Some(map.next_value()?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        text.map(Document).ok_or_else(|| A::Error::missing_field("text"))
    }
}
