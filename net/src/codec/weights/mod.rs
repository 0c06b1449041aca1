//! Weights without loss: numbers taken apart into planes, each raw, all alike, or in a Huffman code.
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

mod huffman;
mod plane;
mod planes;
mod streams;

pub use planes::Element;
use planes::MOST_PLANES;

use super::Corrupt;

/// Room that is kept from one chunk to the next.
#[derive(Debug, Default)]
pub(super) struct Planes(Vec<u8>);

impl Planes {
    /// Appends a chunk: its planes, then what is left of an unfinished number.
    pub(super) fn encode(&mut self, element: Element, raw: &[u8], out: &mut Vec<u8>) {
        let whole = raw.len() - raw.len() % element.width();
        self.0.resize(whole, 0);
        planes::split(element, &raw[..whole], &mut self.0);
        for plane in self.0.chunks(plane_bytes(element, whole)) {
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
        self.0.resize(whole.len(), 0);
        let mut all: [&[u8]; MOST_PLANES] = [&[]; MOST_PLANES];
        for (plane, room) in all.iter_mut().zip(self.0.chunks_mut(plane_bytes(element, whole.len()))) {
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
}

/// Bytes of a plane, of a chunk of so many.
fn plane_bytes(element: Element, bytes: usize) -> usize {
    (bytes / element.width()).max(1)
}
