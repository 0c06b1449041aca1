use std::path::Path;

use proptest::prelude::*;

use super::{writer::Writer, *};

fn whole() -> Vec<u8> {
    let mut writer = Writer::default();
    writer.text("general.architecture", "llama").number("llama.block_count", 3).float("f", 0.5).bool("b", true);
    writer.texts("tokens", &["a".into(), String::new(), "é".into()]).words("kinds", 5, &[1, u32::MAX]);
    writer.tensor("one", &[2, 3], Encoding::F32, vec![1; 24]).tensor("two", &[2, 32], Encoding::Q4_1, vec![2; 40]);
    writer.bytes()
}

fn open(bytes: &[u8]) -> Result<Gguf> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    Gguf::open(file.path())
}

#[test]
fn a_whole_file_is_read() {
    let gguf = open(&whole()).unwrap();
    assert_eq!(gguf.get("general.architecture").and_then(Value::text), Some("llama"));
    assert_eq!(gguf.get("llama.block_count").and_then(Value::unsigned), Some(3));
    assert_eq!(gguf.get("f").and_then(Value::float), Some(0.5));
    assert_eq!(gguf.get("b").and_then(Value::bool), Some(true));
    assert_eq!(gguf.texts("tokens").unwrap().collect::<Vec<_>>(), ["a", "", "é"]);
    assert_eq!(gguf.words("kinds").unwrap().collect::<Vec<_>>(), [1, u32::MAX]);
    assert!(gguf.texts("kinds").is_none() && gguf.words("tokens").is_none() && gguf.length("tokens") == Some(3));
    let two = gguf.tensor("two").unwrap();
    assert_eq!((two.shape.as_slice(), two.encoding), ([2, 32].as_slice(), Encoding::Q4_1));
    assert_eq!(gguf.tensor_bytes(two).unwrap().bytes(), [2; 40]);
}

#[test]
fn lies_are_named() {
    let whole = whole();
    let changed = |at: usize, with: &[u8]| {
        let mut bytes = whole.clone();
        bytes[at..at + with.len()].copy_from_slice(with);
        bytes
    };
    let find = |needle: &[u8]| whole.windows(needle.len()).position(|window| window == needle).unwrap();
    let after = |needle: &[u8]| find(needle) + needle.len();
    for (bytes, words) in [
        (Vec::new(), "the magic takes 4 bytes at 0, 0 are left"),
        (b"GGML\0\0\0\0".to_vec(), "does not begin with 'GGUF'"),
        (changed(4, &[1]), "version is 1"),
        (changed(8, &u64::MAX.to_le_bytes()), "declares 18446744073709551615 tensors"),
        (changed(16, &u64::MAX.to_le_bytes()), "declares 18446744073709551615 values of metadata"),
        (changed(24, &u64::MAX.to_le_bytes()), "a key of the metadata takes 18446744073709551615 bytes"),
        (changed(after(b"tokens") + 8, &u64::MAX.to_le_bytes()), "18446744073709551615 elements of 'tokens'"),
        (changed(after(b"tokens") + 4, &[9]), "array of arrays"),
        (changed(after(b"kinds") + 4, &[77]), "value of type 77"),
        (changed(find(b"two"), b"one"), "'one' is declared twice"),
        (changed(after(b"two"), &[9]), "has 9 dimensions"),
        (changed(after(b"two") + 4, &[33]), "shape [2, 33], its Q4_1 rows must be blocks of 32"),
        (changed(after(b"two") + 12, &u64::MAX.to_le_bytes()), "shape"),
        (changed(after(b"two") + 20, &[77]), "of type 77; known are F32"),
        (changed(after(b"two") + 24, &u64::MAX.to_le_bytes()), "'two' takes 40 bytes from 18446744073709551615"),
        (whole[..whole.len() - 1].to_vec(), "'two' takes 40 bytes from 32 on"),
    ] {
        let message = open(&bytes).unwrap_err().message;
        assert!(message.contains(words) && message.contains("not a whole GGUF file"), "{message}, not {words}");
    }
    assert!(Gguf::open(Path::new("/nowhere.gguf")).is_err());
}

proptest! {
    #[test]
    fn cut_and_flipped_files_never_panic(
        flips in prop::collection::vec((0usize..600, 0u8..8), 0..4),
        cut in 0usize..700,
    ) {
        let mut bytes = whole();
        for (at, bit) in flips {
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
        }
        bytes.truncate(cut);
        // Whatever passes must lie inside the file.
        if let Ok(gguf) = open(&bytes) {
            for info in gguf.tensors.values() {
                prop_assert_eq!(gguf.tensor_bytes(info).map(|tensor| tensor.bytes().len()), Some(info.bytes));
            }
            let texts = gguf.texts("tokens").map(Iterator::count);
            prop_assert!(texts.is_none_or(|count| Some(count) == gguf.length("tokens")));
        }
    }
}
