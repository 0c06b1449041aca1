//! How much a normaliser makes of a text: it runs over every one, and over its own tokens when it is built.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value as Json;
use tokenizers::AddedToken;

/// Bytes of a text of so many that a normaliser may make so many times as many of: those that are in use make a hundred and
/// thirty at most of one, of a ligature and of what may match nothing, and of usual texts three.
const TEXT: u64 = 4096;
const MOST_GROWTH: u64 = 256;
/// Bytes that it may make of the file's own tokens together; each takes some twenty of memory.
const MOST_OWN: u64 = 16 << 20;

/// Refuses a normaliser that swells texts, or these tokens.
pub(super) fn check(normalizer: &Json, added: &[AddedToken]) -> Result<(), String> {
    let made = normalized(normalizer, TEXT).ok_or("its normalizer's character map is not whole")?;
    if made > TEXT * MOST_GROWTH {
        let most = TEXT * MOST_GROWTH;
        return Err(format!("its normalizer makes up to {made} bytes of {TEXT}, at most {most} are served"));
    }
    let own = added.iter().filter_map(|token| normalized(normalizer, token.content.len() as u64));
    let own = own.fold(0, u64::saturating_add);
    match own > MOST_OWN {
        true => Err(format!("its normalizer makes up to {own} bytes of its own tokens, at most {MOST_OWN} are served")),
        false => Ok(()),
    }
}

/// Bytes that a normaliser makes of so many, at most; none where it cannot be built. Which it is, its fields say: a `type`
/// may be missing.
fn normalized(normalizer: &Json, bytes: u64) -> Option<u64> {
    let length = |text: &Json| text.as_str().map_or(0, str::len) as u64;
    let parts = normalizer["normalizers"].as_array().into_iter().flatten();
    let mut bytes = parts.into_iter().try_fold(bytes, |bytes, part| normalized(part, bytes))?;
    if let Some(map) = normalizer["precompiled_charsmap"].as_str() {
        bytes = bytes.saturating_mul(longest_of(map)?.max(1));
    }
    if let Some(content) = normalizer["content"].as_str() {
        let content = content.len() as u64;
        bytes = match length(&normalizer["pattern"]["String"]) {
            // It may match the empty text before every byte, and at the end.
            0 => bytes.saturating_mul(content.saturating_add(1)).saturating_add(content),
            pattern => bytes.saturating_mul(content.div_ceil(pattern).max(1)),
        };
    }
    Some(bytes.saturating_add(length(&normalizer["prepend"])))
}

/// The longest text of a map of characters: the size of its trie, the trie, and texts that each end with a zero.
fn longest_of(map: &str) -> Option<u64> {
    let map = STANDARD.decode(map).ok()?;
    let (size, rest) = map.split_first_chunk::<4>()?;
    let texts = rest.get(u32::from_le_bytes(*size) as usize..)?;
    texts.split(|byte| *byte == 0).map(|text| text.len() as u64).max()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn replace(pattern: Json, content: String) -> Json {
        json!({"type": "Replace", "pattern": pattern, "content": content})
    }

    fn sequence(parts: Vec<Json>) -> Json {
        json!({"type": "Sequence", "normalizers": parts})
    }

    fn charsmap(trie: u32, blob: &[u8]) -> Json {
        json!({"type": "Precompiled", "precompiled_charsmap": STANDARD.encode([&trie.to_le_bytes()[..], blob].concat())})
    }

    #[test]
    fn bytes_that_a_normaliser_makes_are_counted_by_its_fields() {
        let space = || replace(json!({"String": " "}), "▁".into());
        assert_eq!(normalized(&Json::Null, 10), Some(10));
        let usual = sequence(vec![json!({"type": "Prepend", "prepend": "▁"}), json!({"type": "NFKC"}), space()]);
        assert_eq!(normalized(&usual, 10), Some(39));
        assert_eq!(normalized(&replace(json!({"Regex": " +"}), " ".into()), 10), Some(21));
        assert_eq!(normalized(&replace(json!({"String": "abcd"}), "x".into()), 10), Some(10));
        assert_eq!(normalized(&charsmap(8, b"12345678abc\0de\0"), 10), Some(30));
        for broken in [charsmap(u32::MAX, b""), json!({"precompiled_charsmap": "*"})] {
            assert_eq!(normalized(&broken, 10), None, "{broken}");
        }
        let long = || replace(json!({"String": ""}), "x".repeat(1000));
        assert_eq!(normalized(&sequence(vec![long(); 70]), 1), Some(u64::MAX));
    }

    #[test]
    fn a_normaliser_that_swells_texts_or_its_own_tokens_is_refused_before_it_is_built() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        let read = |normalizer: Json, token: &str| {
            let model = json!({"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"});
            let token = json!({"id": 1, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": true, "special": false});
            let file = json!({"version": "1.0", "normalizer": normalizer, "added_tokens": [token], "model": model});
            std::fs::write(&path, file.to_string()).unwrap();
            super::super::read(&path).map(|_| ()).map_err(|error| error.message)
        };
        let swells = |times: usize| replace(json!({"String": "x"}), "x".repeat(times));
        let untyped = |times: usize| json!({"pattern": {"String": "x"}, "content": "x".repeat(times)});
        assert_eq!(read(replace(json!({"String": " "}), "▁".into()), "a b"), Ok(()));
        assert_eq!(read(swells(200), &"x".repeat(50)), Ok(()));
        for (normalizer, token, words) in [
            (sequence(vec![swells(3000), swells(3000)]), "a", "of 4096, at most"),
            (json!({"normalizers": [untyped(3000), untyped(3000)]}), "a", "of 4096, at most"),
            (sequence(vec![json!({"type": "Prepend", "prepend": "x".repeat(20_000)}), swells(200)]), "a", "of 4096"),
            (swells(200), &"x".repeat(100_000), "20000000 bytes of its own tokens"),
            (charsmap(u32::MAX, b""), "a", "character map is not whole"),
        ] {
            let error = read(normalizer, token).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
