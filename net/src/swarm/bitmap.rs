//! Which of an artifact's chunks somebody has.

use thiserror::Error;

const BITS: usize = u64::BITS as usize;

/// A set of chunks of an artifact of fixed length.
///
/// One bit a chunk, and one bit for each 64 of them that are not all absent: a search skips what is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitmap {
    len: usize,
    count: usize,
    words: Vec<u64>,
    summary: Vec<u64>,
}

/// Bytes that are no bitmap of this many chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BitmapError {
    /// It has another length.
    #[error("a bitmap of {chunks} chunks has {expected} bytes, not {found}")]
    Length {
        /// Chunks of the artifact.
        chunks: usize,
        /// Bytes that it should have.
        expected: usize,
        /// Bytes that it has.
        found: usize,
    },
    /// A bit is set for a chunk that does not exist.
    #[error("the bitmap has bits beyond its {0} chunks")]
    Stray(usize),
}

impl Bitmap {
    /// None of `len` chunks.
    pub fn new(len: usize) -> Self {
        let words = len.div_ceil(BITS);
        Self { len, count: 0, words: vec![0; words], summary: vec![0; words.div_ceil(BITS)] }
    }

    /// All of `len` chunks.
    pub fn full(len: usize) -> Self {
        let mut all = Self::new(len);
        (0..len).for_each(|chunk| {
            all.insert(chunk);
        });
        all
    }

    /// Reads what [`Bitmap::to_bytes`] wrote: chunk `i` is bit `i % 8`, the lowest first, of byte `i / 8`.
    ///
    /// # Errors
    /// The bytes are too few or too many, or a bit beyond the last chunk is set.
    pub fn from_bytes(len: usize, bytes: &[u8]) -> Result<Self, BitmapError> {
        let expected = len.div_ceil(8);
        if bytes.len() != expected {
            return Err(BitmapError::Length { chunks: len, expected, found: bytes.len() });
        }
        let last = len % 8;
        if last != 0 && bytes.last().is_some_and(|byte| byte >> last != 0) {
            return Err(BitmapError::Stray(len));
        }
        let mut bitmap = Self::new(len);
        for (place, bytes) in bytes.chunks(8).enumerate() {
            let word = bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
            bitmap.words[place] = word;
            bitmap.count += word.count_ones() as usize;
            bitmap.summary[place / BITS] |= u64::from(word != 0) << (place % BITS);
        }
        Ok(bitmap)
    }

    /// Its bytes, one for eight chunks.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.truncate(self.len.div_ceil(8));
        bytes
    }

    /// One of its bytes.
    pub fn byte(&self, index: usize) -> u8 {
        self.words.get(index / 8).map_or(0, |word| (word >> (index % 8 * 8)) as u8)
    }

    /// Chunks of the artifact, in the set or not.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none in the set.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Chunks in the set.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether all are in the set.
    pub fn is_full(&self) -> bool {
        self.count == self.len
    }

    /// Whether the chunk is in the set; one that does not exist is not.
    pub fn contains(&self, chunk: usize) -> bool {
        self.words.get(chunk / BITS).is_some_and(|word| word >> (chunk % BITS) & 1 == 1)
    }

    /// Adds a chunk; false if it was there or does not exist.
    pub fn insert(&mut self, chunk: usize) -> bool {
        if chunk >= self.len || self.contains(chunk) {
            return false;
        }
        let word = chunk / BITS;
        self.words[word] |= 1 << (chunk % BITS);
        self.summary[word / BITS] |= 1 << (word % BITS);
        self.count += 1;
        true
    }

    /// Takes a chunk out; false if it was not there.
    pub fn remove(&mut self, chunk: usize) -> bool {
        if !self.contains(chunk) {
            return false;
        }
        let word = chunk / BITS;
        self.words[word] &= !(1 << (chunk % BITS));
        if self.words[word] == 0 {
            self.summary[word / BITS] &= !(1 << (word % BITS));
        }
        self.count -= 1;
        true
    }

    /// The chunks in the set, in order.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        self.words.iter().enumerate().flat_map(|(place, word)| ones(*word).map(move |bit| place * BITS + bit))
    }

    /// The chunks that are not in the set, in order.
    pub fn missing(&self) -> impl Iterator<Item = usize> {
        let absent = self.words.iter().enumerate();
        let absent = absent.flat_map(|(place, word)| ones(!*word).map(move |bit| place * BITS + bit));
        absent.take_while(|chunk| *chunk < self.len)
    }

    /// Chunks in this set that are not in the other.
    pub fn beyond(&self, other: &Self) -> usize {
        let pairs = self.words.iter().zip(&other.words);
        pairs.map(|(own, other)| (own & !other).count_ones() as usize).sum()
    }

    /// A chunk that is in both sets; which one is drawn by `random`.
    pub(super) fn common(&self, other: &Self, random: u64) -> Option<usize> {
        let words = self.words.len().min(other.words.len());
        if words == 0 {
            return None;
        }
        let start = random as usize % words;
        let first = start / BITS;
        let summaries = self.summary.len().min(other.summary.len());
        // The first summary word is looked at twice: from the start on, and at last what is before it.
        for step in 0..=summaries {
            let place = (first + step) % summaries;
            let mask = match step {
                0 => u64::MAX << (start % BITS),
                _ if step == summaries => !(u64::MAX << (start % BITS)),
                _ => u64::MAX,
            };
            for bit in ones(self.summary[place] & other.summary[place] & mask) {
                let word = place * BITS + bit;
                let both = self.words[word] & other.words[word];
                if both != 0 {
                    let pick = (random >> 32) as usize % both.count_ones() as usize;
                    return ones(both).nth(pick).map(|bit| word * BITS + bit);
                }
            }
        }
        None
    }
}

/// The places of the ones of a word, the lowest first.
fn ones(word: u64) -> impl Iterator<Item = usize> {
    let lowest = |rest: &u64| Some(rest & (rest - 1));
    std::iter::successors(Some(word), move |rest| if *rest == 0 { None } else { lowest(rest) })
        .take_while(|rest| *rest != 0)
        .map(|rest| rest.trailing_zeros() as usize)
}
