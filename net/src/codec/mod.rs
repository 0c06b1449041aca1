//! How a chunk's bytes travel: as they are, in one of the usual compressions, or in our own for weights.
//!
//! What changed between two versions of a model is told as the difference of each chunk from its base, the same chunk of the
//! other version.
//! A chunk's length is in its manifest, so every decoder writes to memory of that length and no further.

mod choose;
mod corrupt;
mod general;
mod weights;

use std::{fmt, str::FromStr};

use self::weights::Planes;
pub use self::{choose::choose, corrupt::Corrupt, weights::Element};

/// An encoding of chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// The bytes as they are.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 1951.
    Deflate,
    /// RFC 7932.
    Brotli,
    /// LZ4's block format.
    Lz4,
    /// RFC 8878.
    Zstd,
    /// Our own for floating-point numbers.
    Weights,
}

impl Codec {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::None, Self::Gzip, Self::Deflate, Self::Brotli, Self::Lz4, Self::Zstd, Self::Weights];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "brotli",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
            Self::Weights => "weights",
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl FromStr for Codec {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|codec| codec.name() == name).ok_or_else(|| format!("one of {}", known()))
    }
}

/// Encodes and decodes, chunk after chunk.
#[derive(Debug, Default)]
pub struct Coder {
    planes: Planes,
    /// For a decoded chunk.
    pub(crate) room: Vec<u8>,
}

impl Coder {
    /// Appends a chunk of such numbers.
    ///
    /// # Errors
    /// A library fails: it has no memory.
    pub fn encode(&mut self, codec: Codec, element: Element, raw: &[u8], out: &mut Vec<u8>) -> std::io::Result<()> {
        match codec {
            Codec::None => out.extend_from_slice(raw),
            Codec::Gzip => return general::gzip(raw, out),
            Codec::Deflate => return general::deflate(raw, out),
            Codec::Brotli => return general::brotli(raw, out),
            Codec::Lz4 => general::lz4(raw, out),
            Codec::Zstd => return general::zstd(raw, out),
            Codec::Weights => self.planes.encode(element, raw, out),
        }
        Ok(())
    }

    /// Decodes a chunk to `raw`, which has its declared length.
    ///
    /// # Errors
    /// The bytes are no chunk of this length, in this codec.
    pub fn decode(&mut self, codec: Codec, element: Element, bytes: &[u8], raw: &mut [u8]) -> Result<(), Corrupt> {
        match codec {
            Codec::None if bytes.len() == raw.len() => {
                raw.copy_from_slice(bytes);
                Ok(())
            }
            Codec::None => Err(Corrupt::Length(bytes.len(), raw.len())),
            Codec::Gzip => general::gunzip(bytes, raw),
            Codec::Deflate => general::inflate(bytes, raw),
            Codec::Brotli => general::unbrotli(bytes, raw),
            Codec::Lz4 => general::unlz4(bytes, raw),
            Codec::Zstd => general::unzstd(bytes, raw),
            Codec::Weights => self.planes.decode(element, bytes, raw),
        }
    }

    /// Appends what makes a chunk of such numbers out of its base, which is the same chunk of another version. If they have
    /// little in common it is the chunk in full.
    ///
    /// # Errors
    /// The base is not as long as the chunk; nothing is appended.
    pub fn encode_difference(
        &mut self,
        element: Element,
        base: &[u8],
        raw: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Corrupt> {
        self.planes.encode_difference(element, base, raw, out)
    }

    /// Decodes such a difference to `raw`, which has the chunk's declared length.
    ///
    /// # Errors
    /// The base is not as long as the chunk, or the bytes are no difference of this length.
    pub fn decode_difference(
        &mut self,
        element: Element,
        base: &[u8],
        bytes: &[u8],
        raw: &mut [u8],
    ) -> Result<(), Corrupt> {
        self.planes.decode_difference(element, base, bytes, raw)
    }
}

#[cfg(test)]
mod tests;
