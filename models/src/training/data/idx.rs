//! IDX files, as MNIST comes in: a header of big-endian sizes, then bytes.

use std::{fs::File, path::Path};

use memmap2::Mmap;
use orion_proto::Result;

use crate::{unreadable, unservable};

/// Unsigned bytes: the only values that images and labels have.
const BYTES: u8 = 8;

/// A mapped file of unsigned bytes.
#[derive(Debug)]
pub(super) struct Idx {
    map: Mmap,
    start: usize,
    pub(super) dims: Vec<usize>,
}

impl Idx {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| unreadable(path, &error))?;
        // SAFETY: who cuts a file short that is read here ends this process, as with every mapped model.
        let map = unsafe { Mmap::map(&file) }.map_err(|error| unreadable(path, &error))?;
        let wrong = |why: String| unservable(format!("{} is no IDX file of bytes: {why}", path.display()));
        let (kind, count) = match map.get(..4) {
            Some([0, 0, kind, count]) => (*kind, usize::from(*count)),
            _ => return Err(wrong("it must begin with two zeros, a type and a number of dimensions".into())),
        };
        if kind != BYTES || !(1..=4).contains(&count) {
            return Err(wrong(format!("its type is {kind:#04x} with {count} dimensions, it must be 0x08 with 1 to 4")));
        }
        let start = 4 + 4 * count;
        let header = map.get(4..start).ok_or_else(|| wrong("its header ends early".into()))?;
        let dims: Vec<usize> = header
            .chunks_exact(4)
            .map(|size| u32::from_be_bytes([size[0], size[1], size[2], size[3]]) as usize)
            .collect();
        let total = dims.iter().try_fold(1usize, |all, dim| all.checked_mul(*dim));
        let here = map.len() - start;
        if total != Some(here) {
            return Err(wrong(format!("its header says {dims:?}, {here} bytes follow")));
        }
        Ok(Self { map, start, dims })
    }

    /// Hashes it, with the header that says what it is.
    pub(super) fn hash(&self, hasher: &mut blake3::Hasher) {
        hasher.update(&self.map);
    }

    /// The bytes of one example.
    pub(super) fn at(&self, index: usize) -> &[u8] {
        let size: usize = self.dims.iter().skip(1).product();
        &self.map[self.start + index * size..][..size]
    }
}
