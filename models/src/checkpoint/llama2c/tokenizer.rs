//! llama2.c's `tokenizer.bin` as the `tokenizer.json` that the tokenizers library reads.
//!
//! The file has a score for each token; encoding joins the neighbours whose joint token has the greatest, the leftmost
//! first (sentencepiece's BPE). A `tokenizer.json` has a list of pairs instead, joined in the order of the list.

use std::{cmp::Reverse, collections::HashMap};

use orion_proto::{Error, Result};
use serde_json::{Value, json};

/// The ids that sentencepiece gives to what is no text.
const UNKNOWN: usize = 0;
pub(super) const START: usize = 1;
pub(super) const END: usize = 2;
/// The 256 bytes begin here, for text that has no token.
const FIRST_BYTE: usize = 3;
const FIRST_TEXT: usize = FIRST_BYTE + 256;
/// The longest token; every way to cut it in two is looked up.
const MOST_TOKEN_BYTES: usize = 256;
/// Stands for a space.
const SPACE: &str = "\u{2581}";

/// The tokens of a model, by id.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    tokens: Vec<String>,
    scores: Vec<f32>,
}

impl Vocabulary {
    /// Reads a file of as many tokens as the model has.
    ///
    /// # Errors
    /// INVALID_ARGUMENT saying what is wrong; the caller names the file.
    pub(crate) fn read(file: &[u8], count: usize) -> Result<Self> {
        let refused =
            |reason: String| Error::invalid(format!("it is not llama2.c's tokenizer of this model: {reason}"));
        let mut vocabulary = Self { tokens: Vec::new(), scores: Vec::new() };
        // The longest token's length comes first; it is found again below.
        let mut rest = file.get(4..).unwrap_or_default();
        while !rest.is_empty() {
            let id = vocabulary.tokens.len();
            let (score, length, text) = entry(rest).ok_or_else(|| refused(format!("token {id} is cut off")))?;
            if text.len() > MOST_TOKEN_BYTES || !score.is_finite() {
                return Err(refused(format!("token {id} has {} bytes and the score {score}", text.len())));
            }
            if id >= count {
                return Err(refused(format!("it has more than the model's {count} tokens")));
            }
            let text = named(id, text).ok_or_else(|| refused(format!("token {id} is not what it must be")))?;
            vocabulary.tokens.push(text);
            vocabulary.scores.push(score);
            rest = rest.get(8 + length..).unwrap_or_default();
        }
        if vocabulary.tokens.len() != count || count <= FIRST_TEXT {
            return Err(refused(format!("it has {} tokens, the model {count}", vocabulary.tokens.len())));
        }
        Ok(vocabulary)
    }

    /// The `tokenizer.json`.
    ///
    /// # Errors
    /// INVALID_ARGUMENT where two tokens are the same.
    pub(crate) fn to_json(&self) -> Result<Value> {
        let mut ids = HashMap::new();
        for (id, token) in self.tokens.iter().enumerate() {
            if let Some(first) = ids.insert(token.as_str(), id) {
                return Err(Error::invalid(format!(
                    "tokens {first} and {id} of the tokenizer are the same, '{token}'"
                )));
            }
        }
        let special = |id: usize| {
            let plain = ["single_word", "lstrip", "rstrip", "normalized"].map(|key| (key.to_owned(), json!(false)));
            let mut token: serde_json::Map<String, Value> = plain.into_iter().collect();
            token.extend([("id".into(), json!(id)), ("content".into(), json!(self.tokens[id]))]);
            token.insert("special".into(), json!(true));
            token
        };
        let start = json!({ "SpecialToken": { "id": self.tokens[START], "type_id": 0 } });
        let text = json!({ "Sequence": { "id": "A", "type_id": 0 } });
        Ok(json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": [special(UNKNOWN), special(START), special(END)],
            "normalizer": { "type": "Sequence", "normalizers": [
                { "type": "Prepend", "prepend": SPACE },
                { "type": "Replace", "pattern": { "String": " " }, "content": SPACE },
            ] },
            "pre_tokenizer": null,
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [start, text],
                "pair": [start, text, { "Sequence": { "id": "B", "type_id": 0 } }],
                "special_tokens": { (self.tokens[START].as_str()):
                    { "id": self.tokens[START], "ids": [START], "tokens": [self.tokens[START]] } },
            },
            "decoder": { "type": "Sequence", "decoders": [
                { "type": "Replace", "pattern": { "String": SPACE }, "content": " " },
                { "type": "ByteFallback" },
                { "type": "Fuse" },
                { "type": "Strip", "content": " ", "start": 1, "stop": 0 },
            ] },
            "model": {
                "type": "BPE",
                "dropout": null,
                "unk_token": self.tokens[UNKNOWN],
                "continuing_subword_prefix": null,
                "end_of_word_suffix": null,
                "fuse_unk": true,
                "byte_fallback": true,
                "ignore_merges": false,
                "vocab": ids,
                "merges": self.merges(&ids),
            },
        }))
    }

    /// Every pair of tokens that together are one, the pair to be joined first at the front.
    fn merges<'v>(&'v self, ids: &HashMap<&'v str, usize>) -> Vec<[&'v str; 2]> {
        let mut merges = Vec::new();
        for (id, token) in self.tokens.iter().enumerate().skip(FIRST_TEXT) {
            for (at, _) in token.char_indices().skip(1) {
                let (left, right) = token.split_at(at);
                if let (Some(&first), Some(&second)) = (ids.get(left), ids.get(right)) {
                    merges.push((id, first, second, [left, right]));
                }
            }
        }
        // Tokens of the same score are runs of spaces: the longest first, so that the leftmost run grows, as it does where
        // the leftmost pair is joined first.
        merges.sort_by(|a, b| {
            let key = |merge: &(usize, usize, usize, _)| (Reverse(self.tokens[merge.0].len()), merge.1, merge.2);
            self.scores[b.0].total_cmp(&self.scores[a.0]).then_with(|| key(a).cmp(&key(b)))
        });
        merges.into_iter().map(|merge| merge.3).collect()
    }
}

/// A score, the length that is declared, and that many bytes.
fn entry(rest: &[u8]) -> Option<(f32, usize, &[u8])> {
    let (score, after) = rest.split_first_chunk()?;
    let (length, after) = after.split_first_chunk()?;
    let length = usize::try_from(i32::from_le_bytes(*length)).ok()?;
    Some((f32::from_le_bytes(*score), length, after.get(..length)?))
}

/// What a `tokenizer.json` calls a token.
fn named(id: usize, text: &[u8]) -> Option<String> {
    match id {
        UNKNOWN => Some("<unk>".into()),
        START => Some("<s>".into()),
        END => Some("</s>".into()),
        FIRST_BYTE..FIRST_TEXT => {
            let byte = (id - FIRST_BYTE) as u8;
            let name = format!("<0x{byte:02X}>");
            // Three versions of the exporter wrote them in three ways.
            let as_character = char::from(byte).to_string();
            let known = text == name.as_bytes() || text == as_character.as_bytes() || text == [byte];
            known.then_some(name)
        }
        _ => std::str::from_utf8(text).ok().filter(|text| !text.is_empty()).map(|text| text.replace(' ', SPACE)),
    }
}
