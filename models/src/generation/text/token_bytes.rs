//! The bytes that each token stands for.

use std::collections::HashMap;

/// How a vocabulary writes bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// Each byte as a character that can be seen (GPT-2).
    ByteLevel,
    /// Spaces as `▁`, bytes that are no character's as `<0xE2>` (SentencePiece).
    SentencePiece,
}

/// The bytes of all tokens, one after the other.
#[derive(Clone, Debug, Default)]
pub(super) struct TokenBytes {
    bytes: Vec<u8>,
    /// Where each token's bytes end.
    ends: Vec<usize>,
}

impl TokenBytes {
    /// The next token's bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len());
    }

    /// Those of a token; none for one that is unknown.
    pub(super) fn get(&self, token: u32) -> &[u8] {
        let index = token as usize;
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        self.ends.get(index).and_then(|end| self.bytes.get(start..*end)).unwrap_or_default()
    }
}

/// The characters that stand for bytes in GPT-2's vocabularies: those that can be seen for themselves, the others from
/// U+0100 on.
pub(super) fn byte_characters() -> HashMap<char, u8> {
    let seen = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let hidden = (0..=255u8).filter(|byte| !seen(byte)).zip(0x100u32..);
    let hidden = hidden.filter_map(|(byte, code)| Some((char::from_u32(code)?, byte)));
    (0..=255u8).filter(seen).map(|byte| (char::from(byte), byte)).chain(hidden).collect()
}

/// The bytes of one token of a vocabulary that is spelled so.
pub(super) fn spelled(spelling: Spelling, characters: &HashMap<char, u8>, token: &str) -> Vec<u8> {
    match spelling {
        Spelling::ByteLevel => {
            let bytes: Option<Vec<u8>> = token.chars().map(|c| characters.get(&c).copied()).collect();
            // A token that was added is written as it is.
            bytes.unwrap_or_else(|| token.as_bytes().to_vec())
        }
        Spelling::SentencePiece => {
            let hex = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
            match hex.filter(|hex| hex.len() == 2).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
                Some(byte) => vec![byte],
                None => token.replace('▁', " ").into_bytes(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_give_their_bytes() {
        let characters = byte_characters();
        assert_eq!(characters.len(), 256);
        let mut all: Vec<u8> = characters.values().copied().collect();
        all.sort_unstable();
        assert_eq!(all, (0..=255).collect::<Vec<u8>>());
        let bytes = |spelling, token| spelled(spelling, &characters, token);
        assert_eq!(bytes(Spelling::ByteLevel, "Ġhi"), b" hi");
        assert_eq!(bytes(Spelling::ByteLevel, "âĤ"), [0xe2, 0x82]);
        assert_eq!(bytes(Spelling::ByteLevel, "▁x"), "▁x".as_bytes());
        assert_eq!(bytes(Spelling::SentencePiece, "▁hi▁"), b" hi ");
        assert_eq!(
            (bytes(Spelling::SentencePiece, "<0xE2>"), bytes(Spelling::SentencePiece, "<0xE")),
            (vec![0xe2], b"<0xE".to_vec())
        );
        let mut tokens = TokenBytes::default();
        [&b"ab"[..], b"", b"c"].iter().for_each(|token| tokens.push(token));
        assert_eq!([0, 1, 2, 3].map(|token| tokens.get(token)), [&b"ab"[..], b"", b"c", b""]);
    }
}
