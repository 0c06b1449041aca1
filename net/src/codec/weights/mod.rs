//! Weights without loss: numbers taken apart into planes, each raw, all alike, or in a Huffman code.
//!
//! Of two versions the difference of each number, most of which are zero or small.
//!
//! After ZipNN (Hershcovitch et al., 2024): exponents of trained weights take some 2.7 of their 8 bits, mantissas nearly all.

/// Defines a function that runs one that is inlined with the instructions that the machine has.
macro_rules! wide {
    ($(#[$about:meta])* $reach:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) = $inlined:ident) => {
        $(#[$about])*
        $reach fn $name($($argument: $type),*) {
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2") {
                #[target_feature(enable = "avx2,bmi1,bmi2")]
                fn run($($argument: $type),*) {
                    $inlined($($argument),*);
                }
                // SAFETY: the machine has them.
                return unsafe { run($($argument),*) };
            }
            $inlined($($argument),*);
        }
    };
}

mod ans;
mod classes;
mod difference;
mod huffman;
mod magnitude;
mod plane;
mod planes;
mod sparse;
mod steps;
mod streams;

pub use planes::Element;
use planes::MOST_PLANES;
use sparse::Sparse;

use super::Corrupt;

/// Room that is kept from one chunk to the next.
#[derive(Debug, Default)]
pub(super) struct Planes {
    room: Vec<u8>,
    sparse: Sparse,
}

/// Nothing has changed.
const SAME: u8 = 0;
/// The difference of each number.
const CHANGED: u8 = 1;
/// The chunk in full.
const FULL: u8 = 2;

impl Planes {
    /// Appends a chunk: its planes, then what is left of an unfinished number.
    pub(super) fn encode(&mut self, element: Element, raw: &[u8], out: &mut Vec<u8>) {
        let whole = raw.len() - raw.len() % element.width();
        self.room.resize(whole, 0);
        planes::split(element, &raw[..whole], &mut self.room);
        for plane in self.room.chunks(plane_bytes(element, whole)) {
            plane::encode(plane, out);
        }
        out.extend_from_slice(&raw[whole..]);
    }

    /// Decodes a chunk to `raw`, which has its declared length: nothing is written beyond, and nothing else allocated than
    /// as much for its planes.
    ///
    /// # Errors
    /// The bytes are no chunk of this length.
    pub(super) fn decode(&mut self, element: Element, mut bytes: &[u8], raw: &mut [u8]) -> Result<(), Corrupt> {
        let (whole, rest) = raw.split_at_mut(raw.len() - raw.len() % element.width());
        self.room.resize(whole.len(), 0);
        let mut all: [&[u8]; MOST_PLANES] = [&[]; MOST_PLANES];
        for (plane, room) in all.iter_mut().zip(self.room.chunks_mut(plane_bytes(element, whole.len()))) {
            (*plane, bytes) = plane::decode(bytes, room)?;
        }
        let (last, more) = bytes.split_at_checked(rest.len()).ok_or(Corrupt::Short)?;
        if !more.is_empty() {
            return Err(Corrupt::Long(more.len()));
        }
        planes::join(element, all, whole);
        rest.copy_from_slice(last);
        Ok(())
    }

    /// Appends what makes a chunk out of its base.
    ///
    /// # Errors
    /// The base is not as long as the chunk; nothing is appended.
    pub(super) fn encode_difference(
        &mut self,
        element: Element,
        base: &[u8],
        raw: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Corrupt> {
        are_as_long(base, raw)?;
        if base == raw {
            out.push(SAME);
            return Ok(());
        }
        let start = out.len();
        let whole = raw.len() - raw.len() % element.width();
        out.push(CHANGED);
        self.sparse.encode(element, &base[..whole], &raw[..whole], out);
        out.extend_from_slice(&raw[whole..]);
        // What takes half is less than weights take in full.
        if out.len() - start > raw.len() / 2 {
            let mut full = vec![FULL];
            self.encode(element, raw, &mut full);
            if full.len() < out.len() - start {
                out.truncate(start);
                out.append(&mut full);
            }
        }
        Ok(())
    }

    /// Decodes such a difference to `raw`, which has the chunk's declared length.
    ///
    /// # Errors
    /// The base is not as long as the chunk, or the bytes are no difference of this length.
    pub(super) fn decode_difference(
        &mut self,
        element: Element,
        base: &[u8],
        bytes: &[u8],
        raw: &mut [u8],
    ) -> Result<(), Corrupt> {
        are_as_long(base, raw)?;
        let (kind, bytes) = bytes.split_first().ok_or(Corrupt::Short)?;
        let whole = raw.len() - raw.len() % element.width();
        match *kind {
            SAME if bytes.is_empty() => raw.copy_from_slice(base),
            SAME => return Err(Corrupt::Long(bytes.len())),
            CHANGED => {
                let (numbers, rest) = raw.split_at_mut(whole);
                let bytes = self.sparse.decode(element, &base[..whole], bytes, numbers)?;
                let (last, more) = bytes.split_at_checked(rest.len()).ok_or(Corrupt::Short)?;
                if !more.is_empty() {
                    return Err(Corrupt::Long(more.len()));
                }
                rest.copy_from_slice(last);
            }
            FULL => self.decode(element, bytes, raw)?,
            other => return Err(Corrupt::Difference(other)),
        }
        Ok(())
    }
}

fn are_as_long(base: &[u8], raw: &[u8]) -> Result<(), Corrupt> {
    if base.len() == raw.len() { Ok(()) } else { Err(Corrupt::Base(base.len(), raw.len())) }
}

/// Bytes of a plane, of a chunk of so many.
fn plane_bytes(element: Element, bytes: usize) -> usize {
    (bytes / element.width()).max(1)
}
