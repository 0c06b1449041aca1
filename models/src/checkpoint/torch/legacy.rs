//! The form from before version 1.6: four pickles, a pickle of the storages' keys, then each storage behind its count.

use std::{collections::HashMap, ops::Range};

use orion_proto::{Error, Result};

use super::{
    collect,
    pickle::{Pickle, StorageName, Value, unpickle},
};
use crate::checkpoint::source::Tensors;

/// The first pickle: the number 0x1950a86a20f9469cfc6c.
pub(in crate::checkpoint) const MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
/// The second pickle: the form's version.
const PROTOCOL: i64 = 1001;

/// Reads a file that begins with [`MAGIC`]; `key` as in [`super::state_dict::choose`].
///
/// # Errors
/// INVALID_ARGUMENT saying what is wrong; the caller names the file.
pub(in crate::checkpoint) fn read(file: &[u8], key: Option<&str>) -> Result<Tensors> {
    let mut at = MAGIC.len();
    let mut next = || -> Result<Pickle<'_>> {
        let pickle = unpickle(file.get(at..).unwrap_or_default(), file.len())?;
        at += pickle.length;
        Ok(pickle)
    };
    if !matches!(next()?.root, Value::Int(PROTOCOL)) {
        return Err(Error::invalid(format!("its version is not {PROTOCOL}")));
    }
    let system = next()?;
    let little = |pair: &(Value<'_>, Value<'_>)| matches!(pair, (Value::Text("little_endian"), Value::Bool(true)));
    if !system.dict(system.root).iter().any(little) {
        return Err(Error::invalid("its numbers are not little-endian"));
    }
    let (pickle, keys) = (next()?, next()?);
    let declared: HashMap<&str, &StorageName<'_>> = pickle.storages().iter().map(|name| (name.key, name)).collect();
    let mut places = HashMap::new();
    for key in keys.sequence(keys.root) {
        let Value::Text(key) = *key else {
            return Err(Error::invalid(format!("a storage's key is {}, it must be text", key.kind())));
        };
        let storage =
            declared.get(key).ok_or_else(|| Error::invalid(format!("storage '{key}' is of no known type")))?;
        let place = place(file, at, storage)?;
        at = place.end;
        places.insert(key, place);
    }
    let missing = |key: &str| Error::invalid(format!("storage '{key}' is missing"));
    collect(&pickle, key, file.len(), |storage| places.get(storage.key).cloned().ok_or_else(|| missing(storage.key)))
}

/// The storage whose count is at `at`.
fn place(file: &[u8], at: usize, storage: &StorageName<'_>) -> Result<Range<usize>> {
    let &StorageName { key, element, count } = storage;
    let cut = || Error::invalid(format!("storage '{key}' of {count} elements reaches beyond the file's end"));
    let stored = file.get(at..).and_then(|rest| rest.first_chunk()).ok_or_else(cut)?;
    let stored = u64::from_le_bytes(*stored);
    if stored != count as u64 {
        return Err(Error::invalid(format!("storage '{key}' has {stored} elements, {count} are declared")));
    }
    let start = at + 8;
    let end = count.checked_mul(element.size()).and_then(|bytes| start.checked_add(bytes));
    end.filter(|&end| end <= file.len()).map(|end| start..end).ok_or_else(cut)
}
