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

    /// A chunk as it travels, in the memory of `room`. Nothing where it is not here in this form, or not undamaged.
    pub fn read(&self, index: usize, form: Form, coder: &mut Coder, mut room: Vec<u8>) -> Option<Vec<u8>> {
        let piece = self.stored.pieces.get(index)?;
        let (bytes, hash) = piece.wire(form)?;
        match form {
            Form::Raw => self.raw_into(piece, &mut room)?,
            Form::Encoded => {
                let packed = self.encoded.as_ref();
                let packed = packed.and_then(|pack| read(pack, piece.encoded_at, bytes, &hash, &mut room));
                // A chunk that came in another form has a hole there, and other files may have been removed for room.
                packed.or_else(|| self.encode(piece, coder, &mut room))?;
            }
            Form::Difference => {
                self.differences.as_ref().and_then(|pack| read(pack, piece.difference_at, bytes, &hash, &mut room))?;
            }
        }
        Some(room)
    }

    /// Its bytes as they are.
    pub(super) fn raw(&self, piece: &Piece) -> Option<Vec<u8>> {
        let mut room = Vec::new();
        self.raw_into(piece, &mut room).map(|()| room)
    }

    fn raw_into(&self, piece: &Piece, room: &mut Vec<u8>) -> Option<()> {
        piece.places.iter().find_map(|place| {
            read(self.files.get(place.file)?, place.start, piece.chunk.bytes, &piece.chunk.address, room)
        })
    }

    fn encode(&self, piece: &Piece, coder: &mut Coder, bytes: &mut Vec<u8>) -> Option<()> {
        let encoded = piece.chunk.encoded?;
        let raw = self.raw(piece)?;
        bytes.clear();
        coder.encode(encoded.codec, piece.chunk.element, &raw, bytes).ok()?;
        // Another release of a library may encode otherwise.
        (blake3::hash(bytes) == encoded.hash).then_some(())
    }
}

/// Reads bytes that have this hash.
fn read(file: &File, start: u64, bytes: u32, hash: &Hash, room: &mut Vec<u8>) -> Option<()> {
    room.clear();
    room.resize(bytes as usize, 0);
    file.read_exact_at(room, start).ok()?;
    (blake3::hash(room) == *hash).then_some(())
}
