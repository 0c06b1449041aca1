//! What a manifest says, checked once: whoever has one may believe its paths, lengths and numbers.

use blake3::Hash;
use orion_proto::{Error, ModelName, Result, artifact as wire};
use prost::Message;

use super::wire_format::{manifest_from_wire, manifest_to_wire};
use crate::codec::{Codec, Element};

/// Bytes of a manifest: one of a million chunks takes a tenth.
pub const MOST_MANIFEST_BYTES: usize = 256 << 20;
/// Bytes of a chunk, whatever a manifest asks for: so many are decoded at once.
pub const MOST_CHUNK_BYTES: u32 = 16 << 20;

/// A version of a model: its files, and how their chunks may travel.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// The model's name.
    pub name: ModelName,
    /// Which version of it, in the characters of a name.
    pub version: ModelName,
    /// Its files.
    pub files: Vec<File>,
    /// Bytes of a chunk, at most.
    pub chunk_bytes: u32,
    /// The root of the version that differences are against.
    pub base: Option<Hash>,
}

/// One file.
#[derive(Clone, Debug, PartialEq)]
pub struct File {
    /// Relative to the model's folder, its parts joined by `/`; never out of it.
    pub path: String,
    /// What a file of weights holds, in the order of its bytes.
    pub tensors: Vec<Tensor>,
    /// All of its bytes, in their order.
    pub chunks: Vec<Chunk>,
}

/// Where a tensor lies in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// What it is called there.
    pub name: String,
    /// As safetensors writes it: F32, BF16, ...
    pub datatype: String,
    /// Its dimensions.
    pub shape: Vec<u64>,
    /// Where its first byte is.
    pub start: u64,
    /// How many it has.
    pub bytes: u64,
}

/// A part of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// How many bytes it has, before it is encoded.
    pub bytes: u32,
    /// BLAKE3 of them.
    pub address: Hash,
    /// What its numbers are.
    pub element: Element,
    /// Encoded as a whole.
    pub encoded: Option<Encoded>,
    /// As a difference against a chunk of the base version.
    pub difference: Option<Difference>,
}

/// A chunk as it was encoded when it was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// In which codec.
    pub codec: Codec,
    /// How many bytes it takes.
    pub bytes: u32,
    /// BLAKE3 of them.
    pub hash: Hash,
}

/// A chunk as it differs from one of the base version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The address of that chunk, which is as long.
    pub base: Hash,
    /// How many bytes the difference takes.
    pub bytes: u32,
    /// BLAKE3 of them.
    pub hash: Hash,
}

impl File {
    /// How many bytes it has.
    pub fn bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum()
    }

    /// What its contents are called: a hash of its chunks' lengths and addresses.
    pub fn address(&self) -> Hash {
        let mut hasher = blake3::Hasher::new_derive_key("orion 2026 file of chunks");
        for chunk in &self.chunks {
            hasher.update(&chunk.bytes.to_le_bytes()).update(chunk.address.as_bytes());
        }
        hasher.finalize()
    }
}

impl Manifest {
    /// How many bytes its files have.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(File::bytes).sum()
    }

    /// Its bytes, of which its root is the hash.
    pub fn encode(&self) -> Vec<u8> {
        manifest_to_wire(self).encode_to_vec()
    }

    /// Reads and checks one.
    ///
    /// # Errors
    /// INVALID_ARGUMENT saying what is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let refused = |reason: String| Error::invalid(format!("the manifest is not valid: {reason}"));
        if bytes.len() > MOST_MANIFEST_BYTES {
            return Err(refused(format!("it has {} bytes, at most {MOST_MANIFEST_BYTES} are read", bytes.len())));
        }
        let read = wire::Manifest::decode(bytes).map_err(|error| refused(error.to_string().to_lowercase()))?;
        manifest_from_wire(read).map_err(refused)
    }
}
