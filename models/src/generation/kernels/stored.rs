//! What keys and values are stored as.

use half::{f16, slice::HalfFloatSliceExt};

use super::lanes::{LANES, Lanes};

/// A number of half precision (IEEE 754 binary16), its low byte first.
pub(crate) type Half = [u8; 2];

/// f32 or half precision.
pub(crate) trait Stored: Copy + 'static {
    /// Sixteen of them.
    fn lanes<L: Lanes>(lanes: L, from: &[Self; LANES]) -> L::V;
}

impl Stored for f32 {
    #[inline(always)]
    fn lanes<L: Lanes>(lanes: L, from: &[Self; LANES]) -> L::V {
        lanes.load(from)
    }
}

impl Stored for Half {
    #[inline(always)]
    fn lanes<L: Lanes>(lanes: L, from: &[Self; LANES]) -> L::V {
        lanes.halves(from)
    }
}

/// Rounds a row to half precision; what that does not reach becomes its greatest, since an infinite one would make all
/// later answers not a number.
pub(crate) fn to_halves(from: &[f32], to: &mut Vec<Half>) {
    const REACH: f32 = f16::MAX.to_f32_const();
    to.clear();
    let (mut near, mut rounded) = ([0.0; 64], [f16::ZERO; 64]);
    for from in from.chunks(near.len()) {
        let (near, rounded) = (&mut near[..from.len()], &mut rounded[..from.len()]);
        near.iter_mut().zip(from).for_each(|(near, value)| *near = value.clamp(-REACH, REACH));
        rounded.convert_from_f32_slice(near);
        to.extend(rounded.iter().map(|value| value.to_le_bytes()));
    }
}
