//! A `tokenizer.json`, looked at before it is built: its normaliser runs over every text, and over its own tokens first.

use std::path::Path;

use orion_proto::Result;
use serde::Deserialize;
use serde_json::Value as Json;
use tokenizers::Tokenizer;

use crate::{file, unservable};

/// Bytes that a normaliser may make of one: those that are in use make three at most, of a space.
const MOST_GROWTH: u64 = 1024;

/// Reads and builds a tokenizer.
///
/// # Errors
/// NOT_FOUND or FAILED_PRECONDITION naming the file and what is wrong with it.
pub(crate) fn read(path: &Path) -> Result<Tokenizer> {
    #[derive(Deserialize)]
    struct Looked {
        #[serde(default)]
        normalizer: Json,
    }
    file::check_regular(path)?;
    let refused = |error: &dyn std::fmt::Display| {
        unservable(format!("{} cannot be read: {}", path.display(), error.to_string().to_lowercase()))
    };
    let text = file::read_text(path)?;
    let Looked { normalizer } = serde_json::from_slice(&text).map_err(|error| refused(&error))?;
    let growth = growth(&normalizer);
    if growth > MOST_GROWTH {
        let reason = format!("its normalizer makes up to {growth} bytes of one, at most {MOST_GROWTH} are served");
        return Err(refused(&reason));
    }
    Tokenizer::from_bytes(text).map_err(|error| refused(&error))
}

/// Bytes that a normaliser makes of one, at most.
fn growth(normalizer: &Json) -> u64 {
    let several = normalizer["normalizers"].as_array().into_iter().flatten().map(growth);
    let several = several.fold(1, u64::saturating_mul);
    if normalizer["type"] != "Replace" {
        return several;
    }
    let content = normalizer["content"].as_str().map_or(0, str::len) as u64;
    match normalizer["pattern"]["String"].as_str().map_or(0, str::len) as u64 {
        // It may match the empty text before every byte.
        0 => content.saturating_add(1),
        pattern => content.div_ceil(pattern).max(1),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_normaliser_that_makes_texts_a_thousand_times_as_long_is_refused() {
        let replace =
            |pattern: Json, content: String| json!({"type": "Replace", "pattern": pattern, "content": content});
        let of = |parts: Vec<Json>| growth(&json!({"type": "Sequence", "normalizers": parts}));
        let space = || replace(json!({"String": " "}), "▁".into());
        assert_eq!(growth(&Json::Null), 1);
        assert_eq!(of(vec![json!({"type": "NFKC"}), space(), replace(json!({"Regex": " +"}), " ".into())]), 6);
        assert_eq!(growth(&replace(json!({"String": "abcd"}), "x".into())), 1);
        let long = || replace(json!({"String": ""}), "x".repeat(1000));
        assert!(of(vec![long(), long(), long()]) > MOST_GROWTH && of(vec![long(); 70]) == u64::MAX);

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        let model = json!({"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"});
        let file = |normalizer: Json| json!({"version": "1.0", "normalizer": normalizer, "model": model}).to_string();
        std::fs::write(&path, file(space())).unwrap();
        assert!(read(&path).is_ok());
        std::fs::write(&path, file(json!({"type": "Sequence", "normalizers": [long(), long()]}))).unwrap();
        let error = read(&path).err().unwrap();
        assert!(error.message.contains("its normalizer makes up to 1002001 bytes of one"), "{error}");
    }
}
