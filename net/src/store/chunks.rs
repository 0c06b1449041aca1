//! Reading chunks of an artifact in the form in which they travel; what was read is checked before it is given out.

use std::{fs::File, os::unix::fs::FileExt, sync::Arc};

use blake3::Hash;

use super::Stored;
use crate::{
    artifact::{Form, Piece},
    codec::Coder,
};

/// The open files of an artifact, whole or on its way.
#[derive(Debug)]
pub struct Chunks {
    pub(super) files: Vec<File>,
    pub(super) encoded: Option<File>,
    pub(super) differences: Option<File>,
    pub(super) stored: Arc<Stored>,
}

impl Chunks {
    /// The artifact that they are of.
    pub fn stored(&self) -> &Arc<Stored> {
        &self.stored
    }

    /// A chunk as it travels. Nothing where it is not here in this form, or not undamaged.
    pub fn read(&self, index: usize, form: Form, coder: &mut Coder) -> Option<Vec<u8>> {
        let piece = self.stored.pieces.get(index)?;
        let (bytes, hash) = piece.wire(form)?;
        match form {
            Form::Raw => self.raw(piece),
            Form::Encoded => {
                let packed = self.encoded.as_ref().and_then(|pack| read(pack, piece.encoded_at, bytes, &hash));
                // A chunk that came in another form has a hole there, and other files may have been removed for room.
                packed.or_else(|| self.encode(piece, coder))
            }
            Form::Difference => {
                self.differences.as_ref().and_then(|pack| read(pack, piece.difference_at, bytes, &hash))
            }
        }
    }

    /// Its bytes as they are.
    pub(super) fn raw(&self, piece: &Piece) -> Option<Vec<u8>> {
        let at = |place: &crate::artifact::Place| {
            read(self.files.get(place.file)?, place.start, piece.chunk.bytes, &piece.chunk.address)
        };
        piece.places.iter().find_map(at)
    }

    fn encode(&self, piece: &Piece, coder: &mut Coder) -> Option<Vec<u8>> {
        let encoded = piece.chunk.encoded?;
        let (raw, mut bytes) = (self.raw(piece)?, Vec::with_capacity(encoded.bytes as usize));
        coder.encode(encoded.codec, piece.chunk.element, &raw, &mut bytes).ok()?;
        // Another release of a library may encode otherwise.
        (blake3::hash(&bytes) == encoded.hash).then_some(bytes)
    }
}

/// Bytes that have this hash.
fn read(file: &File, start: u64, bytes: u32, hash: &Hash) -> Option<Vec<u8>> {
    let mut read = vec![0; bytes as usize];
    file.read_exact_at(&mut read, start).ok()?;
    (blake3::hash(&read) == *hash).then_some(read)
}
