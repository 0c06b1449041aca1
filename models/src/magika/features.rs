//! What the model sees of a content: bytes from its beginning and its end, without the space around them.

use super::config::{Config, TEXT, UNKNOWN};

/// The label of a content of no bytes.
const EMPTY: &str = "empty";

/// What is known of a content before the model is asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// A content that is too short for the model: its label.
    Label(&'static str),
    /// The model's input, and whether the first block of the content could be text.
    Bytes(Vec<i32>, bool),
}

/// Space as Python's `bytes.strip` understands it.
fn is_space(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

/// What the model sees of a content, or the label of one that it is not asked about.
pub(super) fn seen(content: &[u8], config: &Config) -> Seen {
    if content.is_empty() {
        return Seen::Label(EMPTY);
    }
    let block = config.block_size.min(content.len());
    let (begin, end) = (&content[..block], &content[content.len() - block..]);
    let first = begin.iter().position(|byte| !is_space(byte)).unwrap_or(block);
    let meaningful = &begin[first..];
    if content.len() < config.min_file_size_for_dl || meaningful.len() < config.min_file_size_for_dl {
        return Seen::Label(if std::str::from_utf8(begin).is_ok() { TEXT } else { UNKNOWN });
    }
    let last = end.iter().rposition(|byte| !is_space(byte)).map_or(0, |last| last + 1);
    let ending = &end[..last];
    let mut bytes = Vec::with_capacity(config.beg_size + config.end_size);
    bytes.extend(meaningful.iter().take(config.beg_size).map(|&byte| i32::from(byte)));
    bytes.resize(config.beg_size, config.padding_token);
    let ending = &ending[ending.len().saturating_sub(config.end_size)..];
    bytes.resize(config.beg_size + config.end_size - ending.len(), config.padding_token);
    bytes.extend(ending.iter().map(|&byte| i32::from(byte)));
    Seen::Bytes(bytes, could_be_text(begin))
}

/// Whether bytes are UTF-8; the last character may be cut.
fn could_be_text(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).map_or_else(|error| error.error_len().is_none(), |_| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        serde_json::from_str(
            r#"{"beg_size": 6, "mid_size": 0, "end_size": 4, "use_inputs_at_offsets": false, "min_file_size_for_dl": 3,
                "medium_confidence_threshold": 0.5, "padding_token": 256, "block_size": 8, "target_labels_space": ["a"],
                "thresholds": {}, "overwrite_map": {}}"#,
        )
        .unwrap()
    }

    #[test]
    fn short_contents_are_text_if_they_could_be() {
        for (content, label) in [
            (&b""[..], EMPTY),
            (b"ab", TEXT),
            (b"\xff\xfe", UNKNOWN),
            (b"    \n\t\x0b\x0c ab", TEXT),
            (b"   ab    ", TEXT),
            (b"   \xff     ", UNKNOWN),
        ] {
            assert_eq!(seen(content, &config()), Seen::Label(label), "{content:?}");
        }
    }

    #[test]
    fn bytes_are_taken_from_both_ends_and_padded_towards_the_middle() {
        let of = |content: &[u8]| match seen(content, &config()) {
            Seen::Bytes(bytes, _) => bytes,
            Seen::Label(label) => panic!("{label}"),
        };
        assert_eq!(of(b" abc "), [97, 98, 99, 32, 256, 256, 32, 97, 98, 99]);
        assert_eq!(of(b"  0123456789abc\n"), [48, 49, 50, 51, 52, 53, 57, 97, 98, 99]);
        // Only the last block is looked at, space at its beginning included.
        assert_eq!(of(b"0123       z     "), [48, 49, 50, 51, 32, 32, 32, 32, 32, 122]);
        // Blocks of eight bytes: the fourth letter of two bytes is cut in the second content.
        for (content, text) in [("abcdéfgh".as_bytes(), true), ("1éééé".as_bytes(), true), (b"abc\xffdefgh", false)]
        {
            assert!(matches!(seen(content, &config()), Seen::Bytes(_, found) if found == text), "{content:?}");
        }
    }
}
