//! Files of a model folder: regular ones, of a size that their kind can have.

use std::path::Path;

use orion_proto::Result;
use serde::de::DeserializeOwned;

use crate::{unreadable, unservable};

/// Bytes of a configuration or a tokenizer; the largest known are a tenth of it.
const TEXT_BYTES: u64 = 256 << 20;

/// Refuses what is not a regular file: opening a pipe would wait for ever.
pub(crate) fn check_regular(path: &Path) -> Result<u64> {
    let metadata = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if metadata.is_file() {
        return Ok(metadata.len());
    }
    Err(unservable(format!("{} is not a regular file", path.display())))
}

/// Reads a text file whole.
pub(crate) fn read_text(path: &Path) -> Result<Vec<u8>> {
    let bytes = check_regular(path)?;
    if bytes > TEXT_BYTES {
        return Err(unservable(format!("{} has {bytes} bytes, at most {TEXT_BYTES} are read", path.display())));
    }
    std::fs::read(path).map_err(|error| unreadable(path, &error))
}

/// Reads a JSON file whole.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let broken = |error: serde_json::Error| format!("{}: {}", path.display(), error.to_string().to_lowercase());
    serde_json::from_slice(&read_text(path)?).map_err(|error| unservable(broken(error)))
}
