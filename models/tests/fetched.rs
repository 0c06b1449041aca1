//! The models that `scripts/fetch-models` converts, against what an independent reader (numpy) found in their sources.
//! `ORION_MODELS` names another folder than `models-data`.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::{collections::BTreeMap, path::PathBuf};

use orion_models::checkpoint::Checkpoint;
use serde::Deserialize;
use tokenizers::Tokenizer;

/// Checksums over all tensors in the order of their names: of lines `NAME TYPE [SIZES]`, and of their bytes.
#[derive(Debug, Deserialize, PartialEq)]
struct Sums {
    tensors: usize,
    layout_crc32: u32,
    values_crc32: u32,
}

/// The folder of a model; `None`, said aloud, where it was not fetched.
fn fetched(name: &str) -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../models-data").into();
    let path = PathBuf::from(std::env::var("ORION_MODELS").unwrap_or(default)).join(name);
    if !path.exists() {
        let path = path.display();
        println!("skipped: {path} is not there, fetch it with: scripts/fetch-models {name} --to models-data");
        return None;
    }
    Some(path)
}

#[test]
fn converted_tensors_are_those_of_their_sources() {
    let expected: BTreeMap<String, Sums> =
        serde_json::from_str(include_str!("../../tests/data/expected/checkpoints.json")).unwrap();
    for (name, expected) in expected {
        let Some(folder) = fetched(&name) else { continue };
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let (mut layout, mut values) = (crc32fast::Hasher::new(), crc32fast::Hasher::new());
        for (tensor, entry) in checkpoint.tensors() {
            layout.update(format!("{tensor} {} {:?}\n", entry.element, entry.shape).as_bytes());
            values.update(checkpoint.bytes(entry));
        }
        let tensors = checkpoint.tensors().count();
        let sums = Sums { tensors, layout_crc32: layout.finalize(), values_crc32: values.finalize() };
        assert_eq!(sums, expected, "{name}");
    }
}

#[test]
fn the_stories_tokenizer_encodes_as_llama2_c_does() {
    let Some(folder) = fetched("stories15m") else { return };
    let tokenizer = Tokenizer::from_file(folder.join("tokenizer.json")).unwrap();
    for (text, ids) in [
        ("Once upon a time", &[9038, 2501, 263, 931][..]),
        (
            "Lily's  dog\nsaid: \"woof!\"",
            &[365, 2354, 29915, 29879, 29871, 11203, 13, 4977, 333, 29901, 376, 827, 974, 3850],
        ),
        ("naïve 😀 漢字", &[1055, 30085, 345, 29871, 243, 162, 155, 131, 29871, 31652, 30578]),
        ("x                     y", &[921, 462, 268, 343]),
    ] {
        let encoded = tokenizer.encode(text, true).unwrap();
        assert_eq!((encoded.get_ids()[0], &encoded.get_ids()[1..]), (1, ids), "{text}");
        assert_eq!(tokenizer.decode(encoded.get_ids(), true).unwrap(), text);
    }
}
