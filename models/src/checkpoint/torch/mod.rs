//! PyTorch's files: the zip archives of today, and the row of pickles from before version 1.6.

mod archive;
mod legacy;
mod pickle;
mod state_dict;
#[cfg(test)]
mod tests;
mod zip;

use std::{collections::HashMap, ops::Range};

use orion_proto::{Error, Result};

pub(super) use archive::{MAGIC as ARCHIVE_MAGIC, read as read_archive};
pub(super) use legacy::{MAGIC as LEGACY_MAGIC, read as read_legacy};

use super::{
    source::Tensors,
    view::{Axis, Storage, View},
};
use pickle::{Pickle, StorageName, TensorPlace};

/// A file whose tensors share storages may become so many times as large.
const MOST_GROWTH: usize = 16;

/// The tensors of a pickle; `find` says where in the file a storage is.
fn collect<'p>(
    pickle: &'p Pickle<'p>,
    key: Option<&str>,
    file_bytes: usize,
    find: impl Fn(&StorageName<'p>) -> Result<Range<usize>>,
) -> Result<Tensors> {
    let chosen = state_dict::choose(pickle, key)?;
    let mut found: HashMap<&str, Range<usize>> = HashMap::new();
    let mut views = Vec::with_capacity(chosen.tensors.len());
    let (mut stored, mut total) = (0usize, 0usize);
    for (name, place) in chosen.tensors {
        let refused = |error: Error| Error::invalid(format!("tensor '{name}': {error}"));
        let key = place.storage.key;
        let bytes = match found.get(key) {
            Some(bytes) => bytes.clone(),
            None => find(&place.storage).map_err(refused)?,
        };
        if found.insert(key, bytes.clone()).is_none() {
            stored = stored.saturating_add(bytes.len());
        }
        let view = view(place, bytes).map_err(refused)?;
        total = total.saturating_add(view.count().saturating_mul(view.element.size()));
        if stored > file_bytes || total > file_bytes.saturating_mul(MOST_GROWTH) {
            return Err(refused(Error::invalid(format!(
                "up to it there are {total} bytes of tensors in {stored} of storages, in a file of {file_bytes}"
            ))));
        }
        views.push((name, view));
    }
    Ok(Tensors { views, key: chosen.key, left_out: chosen.left_out })
}

/// A tensor in the bytes of its storage.
fn view(place: &TensorPlace<'_>, bytes: Range<usize>) -> Result<View> {
    let StorageName { key, element, count } = place.storage;
    let declared = count.checked_mul(element.size()).filter(|&declared| declared <= bytes.len());
    let Some(declared) = declared else {
        let held = bytes.len();
        return Err(Error::invalid(format!("storage '{key}' has {held} bytes for {count} elements of {element}")));
    };
    let storage = Storage { element, bytes: bytes.start..bytes.start + declared };
    let axes = place.shape.iter().zip(&place.strides).map(|(&size, &stride)| Axis { size, stride });
    View::new(&storage, place.offset, &place.shape, axes.collect())
}
