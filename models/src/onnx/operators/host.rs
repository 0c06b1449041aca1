//! Values of tensors in the host's memory, for operations of our own.

use std::ops::{Deref, Range};

use candle_core::{CpuStorage, Result, Storage, Tensor, bail};

/// Values of a tensor, behind a guard of its storage.
struct Values<G> {
    storage: G,
    range: Range<usize>,
}

/// The values of a contiguous f32 tensor in the host's memory, which nobody changes while they are looked at.
pub(super) fn values(tensor: &Tensor) -> Result<impl Deref<Target = [f32]> + '_> {
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(_)), Some((from, to))) => Ok(Values { storage, range: from..to }),
        _ => bail!("an input must be contiguous f32 in the host's memory"),
    }
}

impl<G: Deref<Target = Storage>> Deref for Values<G> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(values)) => &values[self.range.clone()],
            // `values` has looked.
            _ => &[],
        }
    }
}
