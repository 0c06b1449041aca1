//! The bytes that each token stands for.

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
    /// The next token's bytes, which `write` appends.
    pub(super) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.ends.push(self.bytes.len());
    }

    /// Those of a token; none for one that is unknown.
    pub(super) fn get(&self, token: u32) -> &[u8] {
        let index = token as usize;
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        self.ends.get(index).and_then(|end| self.bytes.get(start..*end)).unwrap_or_default()
    }
}

/// The bytes that characters stand for in GPT-2's vocabularies, by the characters' codes: those that can be seen stand for
/// themselves, the others are U+0100 and on.
const BYTE_OF: [Option<u8>; 0x144] = {
    let (mut of, mut byte, mut hidden) = ([None; 0x144], 0, 0x100);
    while byte < 0x100 {
        if matches!(byte as u8, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff) {
            of[byte] = Some(byte as u8);
        } else {
            of[hidden] = Some(byte as u8);
            hidden += 1;
        }
        byte += 1;
    }
    of
};

/// Appends the bytes of one token of a vocabulary that is spelled so.
pub(super) fn spell(spelling: Spelling, token: &str, out: &mut Vec<u8>) {
    match spelling {
        Spelling::ByteLevel => {
            let before = out.len();
            for character in token.chars() {
                match BYTE_OF.get(character as usize) {
                    Some(Some(byte)) => out.push(*byte),
                    // A token that was added is written as it is.
                    _ => {
                        out.truncate(before);
                        return out.extend_from_slice(token.as_bytes());
                    }
                }
            }
        }
        Spelling::SentencePiece => {
            let hex = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
            match hex.filter(|hex| hex.len() == 2).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
                Some(byte) => out.push(byte),
                None => out.extend_from_slice(token.replace('▁', " ").as_bytes()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_give_their_bytes() {
        let mut all: Vec<u8> = BYTE_OF.into_iter().flatten().collect();
        all.sort_unstable();
        assert_eq!(all, (0..=255).collect::<Vec<u8>>());
        let bytes = |spelling, token| {
            let mut out = Vec::new();
            spell(spelling, token, &mut out);
            out
        };
        assert_eq!(bytes(Spelling::ByteLevel, "Ġhi"), b" hi");
        assert_eq!(bytes(Spelling::ByteLevel, "âĤ"), [0xe2, 0x82]);
        assert_eq!(bytes(Spelling::ByteLevel, "▁x"), "▁x".as_bytes());
        assert_eq!(bytes(Spelling::SentencePiece, "▁hi▁"), b" hi ");
        assert_eq!(
            (bytes(Spelling::SentencePiece, "<0xE2>"), bytes(Spelling::SentencePiece, "<0xE")),
            (vec![0xe2], b"<0xE".to_vec())
        );
        let mut tokens = TokenBytes::default();
        [&b"ab"[..], b"", b"c"].iter().for_each(|token| tokens.push(|out| out.extend_from_slice(token)));
        assert_eq!([0, 1, 2, 3].map(|token| tokens.get(token)), [&b"ab"[..], b"", b"c", b""]);
    }
}
