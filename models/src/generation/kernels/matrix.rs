//! A weight as it lies in its file.

use super::lanes::{LANES, Lanes};
use crate::{gguf::Encoding, mapped::MappedBytes};

/// Runs `body` with `F` as the format of an encoding, of those that are named; `rest` for the others.
macro_rules! with_format {
    ($encoding:expr, [$($name:ident)*], $format:ident => $body:expr, $rest:expr) => {
        match $encoding {
            $(Encoding::$name => {
                type $format = $name;
                $body
            })*
            #[allow(unreachable_patterns)]
            _ => $rest,
        }
    };
}

pub(super) use with_format;

/// What lies so far ahead is fetched from memory.
const AHEAD_BYTES: usize = 8192;
/// Bytes that are fetched at once.
pub(super) const LINE_BYTES: usize = 64;

/// Has memory brought that lies a little behind what is read from `start` on: across the borders of pages the hardware does
/// not do it by itself.
#[inline(always)]
pub(super) fn fetch_ahead<L: Lanes>(lanes: L, start: *const u8, bytes: usize) {
    for line in (0..bytes).step_by(LINE_BYTES) {
        lanes.prefetch(start.wrapping_add(AHEAD_BYTES + line));
    }
}

/// A weight `[outputs, inputs]`, as checkpoints hold it. Its inputs are a multiple of the lanes.
#[derive(Clone, Debug)]
pub(crate) struct Matrix {
    bytes: MappedBytes,
    pub(super) encoding: Encoding,
    pub(crate) outputs: usize,
    pub(crate) inputs: usize,
    row_bytes: usize,
}

impl Matrix {
    /// `None` where the bytes are not those of such a matrix.
    pub(crate) fn new(bytes: MappedBytes, encoding: Encoding, outputs: usize, inputs: usize) -> Option<Self> {
        let row_bytes = encoding.row_bytes(inputs)?;
        let whole = inputs.is_multiple_of(LANES) && row_bytes.checked_mul(outputs) == Some(bytes.bytes().len());
        whole.then_some(Self { bytes, encoding, outputs, inputs, row_bytes })
    }

    /// Whether it is multiplied with [`Rounded`](super::Rounded) rows.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self.encoding, Encoding::Q4_0 | Encoding::Q4_1 | Encoding::Q5_0 | Encoding::Q5_1 | Encoding::Q8_0)
    }

    /// Whether it is f32.
    pub(crate) fn is_float(&self) -> bool {
        self.encoding == Encoding::F32
    }

    /// Its values, where they lie in memory as they are used.
    pub(super) fn plain(&self) -> Option<&[f32]> {
        if self.encoding != Encoding::F32 || cfg!(target_endian = "big") {
            return None;
        }
        // SAFETY: any bytes are f32 values.
        let (before, values, after) = unsafe { self.bytes.bytes().align_to::<f32>() };
        (before.is_empty() && after.is_empty()).then_some(values)
    }

    #[inline(always)]
    pub(super) fn row(&self, output: usize) -> &[u8] {
        &self.bytes.bytes()[output * self.row_bytes..][..self.row_bytes]
    }
}
