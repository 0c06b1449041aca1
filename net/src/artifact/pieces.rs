//! An artifact's chunks as they travel: those of one address once, numbered as they first occur.

use std::collections::HashMap;

use blake3::Hash;

use super::{Chunk, Manifest};

/// How a chunk travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// Its bytes as they are.
    Raw,
    /// Encoded as a whole.
    Encoded,
    /// As a difference against a chunk of the base version.
    Difference,
}

/// Where a chunk lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which of the manifest's files.
    pub file: usize,
    /// Where its first byte is.
    pub start: u64,
}

/// A chunk and every place that has it.
#[derive(Clone, Debug)]
pub struct Piece {
    /// What the manifest says of it.
    pub chunk: Chunk,
    /// At least one.
    pub places: Vec<Place>,
    /// Where its encoded bytes begin if all that are encoded stand one after the other.
    pub encoded_at: u64,
    /// The same of differences.
    pub difference_at: u64,
}

impl Piece {
    /// How many bytes it takes in this form, and their hash; nothing if it has no such form.
    pub fn wire(&self, form: Form) -> Option<(u32, Hash)> {
        match form {
            Form::Raw => Some((self.chunk.bytes, self.chunk.address)),
            Form::Encoded => self.chunk.encoded.map(|encoded| (encoded.bytes, encoded.hash)),
            Form::Difference => self.chunk.difference.map(|difference| (difference.bytes, difference.hash)),
        }
    }
}

/// The pieces of an artifact.
#[derive(Clone, Debug)]
pub struct Pieces {
    pieces: Vec<Piece>,
    by_address: HashMap<Hash, usize>,
}

impl Pieces {
    /// Those of a manifest.
    pub fn of(manifest: &Manifest) -> Self {
        let (mut pieces, mut by_address) = (Vec::<Piece>::new(), HashMap::new());
        let (mut encoded_at, mut difference_at) = (0, 0);
        for (file, contents) in manifest.files.iter().enumerate() {
            let mut start = 0;
            for chunk in &contents.chunks {
                let index = *by_address.entry(chunk.address).or_insert(pieces.len());
                if index == pieces.len() {
                    let piece =
                        Piece { chunk: chunk.clone(), places: Vec::with_capacity(1), encoded_at, difference_at };
                    encoded_at += piece.wire(Form::Encoded).map_or(0, |(bytes, _)| u64::from(bytes));
                    difference_at += piece.wire(Form::Difference).map_or(0, |(bytes, _)| u64::from(bytes));
                    pieces.push(piece);
                }
                pieces[index].places.push(Place { file, start });
                start += u64::from(chunk.bytes);
            }
        }
        Self { pieces, by_address }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Whether the artifact has no bytes.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// One of them.
    pub fn get(&self, index: usize) -> Option<&Piece> {
        self.pieces.get(index)
    }

    /// All of them, in their order.
    pub fn iter(&self) -> std::slice::Iter<'_, Piece> {
        self.pieces.iter()
    }

    /// The number of the chunk of this address.
    pub fn find(&self, address: &Hash) -> Option<usize> {
        self.by_address.get(address).copied()
    }
}
