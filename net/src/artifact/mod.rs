//! What a model is on its way between machines.

mod cut;
mod gguf;
mod manifest;
mod pieces;
mod signature;
mod tensors;
#[cfg(test)]
mod tests;
mod wire_format;

use bytes::Bytes;
use orion_proto::{Error, Result, artifact as wire};
use prost::Message;

pub use blake3::Hash;

pub(crate) use self::wire_format::check_path;
pub use self::{
    cut::{Cut, chunk_bytes, cut},
    manifest::{Chunk, Difference, Encoded, File, MOST_CHUNK_BYTES, MOST_MANIFEST_BYTES, Manifest, Tensor},
    pieces::{Form, Piece, Pieces, Place},
    signature::{Signed, Signer, Trust},
    tensors::tensors,
};

/// A manifest, what it is called, and who signed it.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// BLAKE3 of the manifest's bytes.
    pub root: Hash,
    /// What they say.
    pub manifest: Manifest,
    /// The publisher's signature of the root; it was checked.
    pub signed: Option<Signed>,
    bytes: Bytes,
}

impl Artifact {
    /// Of a manifest that was just made.
    pub fn new(manifest: Manifest, signer: Option<&Signer>) -> Self {
        let bytes = Bytes::from(manifest.encode());
        let root = blake3::hash(&bytes);
        Self { root, manifest, signed: signer.map(|signer| signer.sign(&root)), bytes }
    }

    /// As it is kept and sent.
    pub fn encode(&self) -> Vec<u8> {
        let (key, signature) = match &self.signed {
            Some(signed) => (signed.key.to_bytes().to_vec(), signed.signature.to_bytes().to_vec()),
            None => Default::default(),
        };
        wire::Artifact { manifest: self.bytes.clone(), key: key.into(), signature: signature.into() }.encode_to_vec()
    }

    /// Reads one and checks all of it, the signature included.
    ///
    /// # Errors
    /// INVALID_ARGUMENT saying what is wrong with it, PERMISSION_DENIED where the signature is.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let read = wire::Artifact::decode(bytes)
            .map_err(|error| Error::invalid(format!("the artifact is not valid: {error}").to_lowercase()))?;
        let root = blake3::hash(&read.manifest);
        let signed = match read.key.is_empty() && read.signature.is_empty() {
            true => None,
            false => Some(Signed::checked(&root, &read.key, &read.signature)?),
        };
        let manifest = Manifest::decode(&read.manifest)?;
        Ok(Self { root, manifest, signed, bytes: read.manifest })
    }
}
