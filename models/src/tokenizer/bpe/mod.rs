//! Byte-pair encoding (Sennrich et al., 2016) with the results of the tokenizers library's `BPE`, built several times as
//! fast: of a vocabulary it makes two tables and one text, where the library makes some hundred thousand texts.

mod file;
mod texts;
mod word;

use hashbrown::HashMap;

pub(super) use self::file::File as BpeFile;
use self::{texts::Texts, word::Word};

/// What two neighbours become; the pair of the least rank is joined first.
#[derive(Clone, Copy, Debug)]
struct Merge {
    rank: u32,
    id: u32,
}

type Merges = HashMap<(u32, u32), Merge>;

/// What is done with what the vocabulary lacks, as `tokenizer.json` names it.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    /// The token of a character that is in no token.
    pub(crate) unknown: Option<String>,
    /// Whether neighbours of these are one token.
    pub(crate) fuse_unknown: bool,
    /// Whether such a character is written as its bytes, where they are tokens (`<0xE2>`).
    pub(crate) byte_fallback: bool,
    /// Whether a word that is a token is that token, whatever its merges make of it.
    pub(crate) ignore_merges: bool,
}

/// A byte-pair encoding.
#[derive(Debug)]
pub(crate) struct Bpe {
    texts: Texts,
    merges: Merges,
    /// The tokens of the bytes, where there are such.
    bytes: Option<Box<[Option<u32>; 256]>>,
    rules: Rules,
}

/// A token of a text, and how many of its bytes it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) id: u32,
    pub(super) bytes: usize,
}

impl Bpe {
    /// Builds it, in memory that grows with the greatest id.
    ///
    /// # Errors
    /// A merge of what is no token, by name; four gibibytes of tokens.
    pub(crate) fn new<'t>(
        tokens: impl Iterator<Item = (&'t str, u32)>,
        pairs: impl Iterator<Item = (&'t str, &'t str)>,
        rules: Rules,
    ) -> Result<Self, String> {
        let texts = Texts::new(tokens).ok_or("it has four gibibytes of tokens")?;
        let (mut merges, mut id) = (Merges::with_capacity(pairs.size_hint().0), 0);
        for ((left, right), rank) in pairs.zip(0..) {
            let missing = |text: &str| format!("its merges have '{text}', which is no token");
            let token = |text: &str| texts.id(text).ok_or_else(|| missing(text));
            let pair = (token(left)?, token(right)?);
            id = texts.joined(left, right, id).ok_or_else(|| missing(&format!("{left}{right}")))?;
            merges.insert(pair, Merge { rank, id });
        }
        let byte = |byte: usize| texts.id(&format!("<{byte:#04X}>"));
        let bytes = rules.byte_fallback.then(|| Box::new(std::array::from_fn(byte)));
        Ok(Self { texts, merges, bytes, rules })
    }

    /// The token of a text.
    pub(super) fn id(&self, text: &str) -> Option<u32> {
        self.texts.id(text)
    }

    /// The text of a token.
    pub(super) fn text(&self, id: u32) -> Option<&str> {
        self.texts.text(id)
    }

    /// How many tokens there are.
    pub(super) fn len(&self) -> usize {
        self.texts.len()
    }

    /// All tokens, in no order.
    pub(super) fn tokens(&self) -> impl Iterator<Item = (&str, u32)> {
        self.texts.iter()
    }

    /// The tokens of a word.
    ///
    /// # Errors
    /// A character is in no token, and the token for such is none either.
    pub(super) fn pieces(&self, word: &str) -> Result<Vec<Piece>, String> {
        let whole = self.rules.ignore_merges && !word.is_empty();
        if let Some(id) = whole.then(|| self.texts.id(word)).flatten() {
            return Ok(vec![Piece { id, bytes: word.len() }]);
        }
        let mut symbols = Word::with_capacity(word.len());
        // What is unknown comes after the bytes that follow it, as the library has it.
        let mut unknown: Option<Piece> = None;
        let mut room = [0; 4];
        for character in word.chars() {
            let text = &*character.encode_utf8(&mut room);
            if let Some(id) = self.texts.id(text) {
                unknown.take().into_iter().for_each(|piece| symbols.push(piece));
                symbols.push(Piece { id, bytes: text.len() });
            } else if let Some(bytes) = self.bytes_of(text) {
                bytes.into_iter().for_each(|id| symbols.push(Piece { id, bytes: 1 }));
            } else if let Some(name) = &self.rules.unknown {
                let id = self.texts.id(name).ok_or_else(|| format!("its unknown token '{name}' is no token"))?;
                let before = match unknown.take() {
                    Some(piece) if self.rules.fuse_unknown => piece.bytes,
                    other => {
                        other.into_iter().for_each(|piece| symbols.push(piece));
                        0
                    }
                };
                unknown = Some(Piece { id, bytes: before + text.len() });
            }
        }
        unknown.into_iter().for_each(|piece| symbols.push(piece));
        Ok(symbols.merge(&self.merges))
    }

    /// The tokens of a character's bytes, where each is one.
    fn bytes_of(&self, text: &str) -> Option<Vec<u32>> {
        let tokens = self.bytes.as_ref()?;
        text.bytes().map(|byte| tokens[usize::from(byte)]).collect()
    }
}

#[cfg(test)]
mod tests;
