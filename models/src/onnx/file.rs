//! An ONNX file, memory-mapped and decoded. Its weights stay where they are: decoding takes slices of the mapping.

use std::path::Path;

use bytes::Bytes;
use orion_proto::{Error, Result};
use prost::Message;

use super::{decoded_bytes::decoded_bytes, schema::ModelProto};
use crate::{file::check_regular, mapped::MappedFile, unservable};

/// Memory that decoding may take for each byte of the file, beside what any file may take.
const DECODED_PER_BYTE: u64 = 32;
const DECODED_AT_LEAST: u64 = 1 << 20;

/// A decoded file.
pub(crate) struct OnnxFile {
    pub(super) model: ModelProto,
    /// Bytes of the file.
    pub(super) bytes: u64,
}

impl OnnxFile {
    /// Maps and decodes a file.
    ///
    /// # Errors
    /// FAILED_PRECONDITION for what is no whole ONNX file.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let bytes = map(path)?;
        Self::decode(bytes).map_err(|e| unservable(format!("{} is not a whole ONNX file: {e}", path.display())))
    }

    /// Decodes a file's bytes; nothing is allocated beyond a multiple of their number.
    ///
    /// # Errors
    /// INVALID_ARGUMENT naming what is wrong.
    pub(super) fn decode(bytes: Bytes) -> Result<Self> {
        let total = bytes.len() as u64;
        let needed = decoded_bytes(&bytes).map_err(Error::invalid)?;
        let most = total.saturating_mul(DECODED_PER_BYTE).saturating_add(DECODED_AT_LEAST);
        if needed > most {
            return Err(Error::invalid(format!("its {total} bytes would take {needed} in memory, at most {most} do")));
        }
        let model = ModelProto::decode(bytes).map_err(|error| Error::invalid(error.to_string().to_lowercase()))?;
        Ok(Self { model, bytes: total })
    }
}

/// The bytes of a regular file, memory-mapped.
pub(super) fn map(path: &Path) -> Result<Bytes> {
    // An empty file cannot be mapped.
    if check_regular(path)? == 0 {
        return Ok(Bytes::new());
    }
    Ok(Bytes::from_owner(MappedFile::open(path)?))
}
