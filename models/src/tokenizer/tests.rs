use std::path::PathBuf;

use serde_json::json;

use super::*;

fn file() -> Json {
    json!({
        "version": "1.0",
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        "added_tokens": [{"id": 5, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}],
        "normalizer": {"type": "Prepend", "prepend": "_"},
        "pre_tokenizer": null,
        "post_processor": null,
        "model": {"type": "BPE", "unk_token": "<unk>", "vocab": {"<unk>": 0, "a": 1, "b": 2, "ab": 3, "_": 4},
            "merges": [["a", "b"]]},
    })
}

#[test]
fn a_file_that_ends_anywhere_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let text = file().to_string();
    for end in 0..text.len() {
        std::fs::write(&path, &text[..end]).unwrap();
        let error = read(&path).unwrap_err();
        assert!(error.message.contains("tokenizer.json cannot be read"), "{end}: {error}");
    }
    std::fs::write(&path, &text).unwrap();
    assert_eq!(read(&path).unwrap().encode_fast("<s>ab", false).unwrap().get_ids(), [5, 4, 3]);
}

#[test]
fn parts_that_the_library_panics_at_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    for (key, part) in [
        ("normalizer", json!({"type": "Precompiled"})),
        ("decoder", json!({"type": "Sequence", "decoders": 7})),
        (
            "model",
            json!({"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]],
            "continuing_subword_prefix": "@@"}),
        ),
        ("version", json!("2.0")),
    ] {
        let mut file = file();
        file[key] = part;
        std::fs::write(&path, file.to_string()).unwrap();
        let error = read(&path).unwrap_err();
        assert!(error.message.contains("tokenizer.json cannot be read"), "{key}: {error}");
    }
}

#[test]
fn fetched_files_give_what_the_library_gives() {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../models-data").into();
    let folder = PathBuf::from(std::env::var("ORION_MODELS").unwrap_or(default));
    let texts = [
        "Once upon a time, there was a little girl named Lily.",
        "  Zwei  Leerzeichen,\tein Tabulator\nund \u{1f980} \u{4e16}\u{754c} na\u{ef}ve \u{301}",
        "def f(x):\n    return x ** 2  # 12345678 </s><s> <|endoftext|>",
        "",
    ];
    for name in ["stories15m", "whisper-tiny-en", "minilm"] {
        let path = folder.join(name).join("tokenizer.json");
        if !path.exists() {
            println!("skipped: {} is not there", path.display());
            continue;
        }
        let (own, mut library) = (read(&path).unwrap(), tokenizers::Tokenizer::from_file(&path).unwrap());
        library.with_padding(None);
        library.with_truncation(None).unwrap();
        for (text, special) in texts.iter().flat_map(|text| [(*text, true), (*text, false)]) {
            let (own, library) = (own.encode(text, special).unwrap(), library.encode(text, special).unwrap());
            assert_eq!(own.get_ids(), library.get_ids(), "{name}: {text}");
            assert_eq!(
                (own.get_tokens(), own.get_offsets()),
                (library.get_tokens(), library.get_offsets()),
                "{name}: {text}"
            );
        }
        assert_eq!(own.get_vocab(true), library.get_vocab(true), "{name}");
    }
}
