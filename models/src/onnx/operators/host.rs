//! Values of tensors in the host's memory, for operations of our own.

use candle_core::{CpuStorage, Layout, Result, bail};

/// The values of a contiguous f32 tensor, as a custom operation is given it.
pub(super) fn floats<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((from, to))) => Ok(&values[from..to]),
        _ => bail!("an input must be contiguous f32"),
    }
}
