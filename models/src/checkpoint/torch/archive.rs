//! The zip form: `data.pkl` says which tensors there are, `data/KEY` are their storages.

use std::{collections::HashMap, ops::Range};

use orion_proto::{Error, Result};

use super::{
    collect,
    pickle::unpickle,
    zip::{self, Entry},
};
use crate::checkpoint::source::Tensors;

/// How a zip archive begins.
pub(in crate::checkpoint) const MAGIC: &[u8] = b"PK\x03\x04";

/// Reads an archive; `key` as in [`super::state_dict::choose`].
///
/// # Errors
/// INVALID_ARGUMENT saying what is wrong; the caller names the file.
pub(in crate::checkpoint) fn read(file: &[u8], key: Option<&str>) -> Result<Tensors> {
    let entries = zip::entries(file)?;
    let is_root = |root: &&str| root.is_empty() || root.ends_with('/');
    let root = entries.keys().find_map(|name| name.strip_suffix("data.pkl").filter(is_root));
    let root = root.ok_or_else(|| Error::invalid("it is a zip archive without data.pkl, so not one of PyTorch's"))?;
    let place = |name: &str| whole(file, &entries, &format!("{root}{name}"));
    if entries.contains_key(format!("{root}byteorder").as_str()) && &file[place("byteorder")?] != b"little" {
        return Err(Error::invalid("its numbers are not little-endian"));
    }
    let pickle = unpickle(&file[place("data.pkl")?], file.len())?;
    collect(&pickle, key, file.len(), |storage| place(&format!("data/{}", storage.key)))
}

/// An entry's bytes.
fn whole(file: &[u8], entries: &HashMap<&str, Entry>, name: &str) -> Result<Range<usize>> {
    let entry = entries.get(name).ok_or_else(|| Error::invalid(format!("entry '{name}' is missing")))?;
    entry.whole(file).map_err(|error| Error::invalid(format!("entry '{name}' {error}")))
}
