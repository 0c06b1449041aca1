//! Looking for damage.

use std::sync::Arc;

use rayon::prelude::*;

use super::{Store, Stored};
use crate::artifact::Piece;

/// What is not as its manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Files of the model with the count of their chunks that are damaged or missing.
    pub files: Vec<(String, usize)>,
}

impl Store {
    /// Reads every chunk of an artifact, on as many threads as there are; what was damaged, if anything.
    /// `progress` is told bytes that were read.
    pub fn verify(&self, stored: &Arc<Stored>, progress: &(dyn Fn(u64) + Sync)) -> Option<Damage> {
        let files = &stored.artifact.manifest.files;
        let Ok(chunks) = self.chunks(stored) else {
            let folder = self.folder(&stored.artifact.root);
            let missing = files.iter().filter(|file| !folder.join(&file.path).exists());
            return Some(Damage { files: missing.map(|file| (file.path.clone(), file.chunks.len())).collect() });
        };
        let is_damaged = |piece: &&Piece| {
            let one = |place| Piece { places: vec![place], ..(*piece).clone() };
            progress(piece.places.len() as u64 * u64::from(piece.chunk.bytes));
            !piece.places.iter().all(|place| chunks.raw(&one(*place)).is_some())
        };
        let pieces: Vec<&Piece> = stored.pieces.iter().collect();
        let damaged: Vec<&Piece> = pieces.into_par_iter().filter(is_damaged).collect();
        if damaged.is_empty() {
            return None;
        }
        let count = |index| damaged.iter().filter(|piece| piece.places.iter().any(|place| place.file == index)).count();
        let counted = files.iter().enumerate().map(|(index, file)| (file.path.clone(), count(index)));
        Some(Damage { files: counted.filter(|(_, count)| *count > 0).collect() })
    }
}
