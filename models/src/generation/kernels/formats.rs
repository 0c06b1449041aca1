//! The elements of plain and of simply quantised rows as f32 (blocks as in ggml's `ggml-common.h`).

use super::lanes::{LANES, Lanes};

/// A block of a row as it lies in memory.
///
/// # Safety
/// The type is made of bytes alone, so that any bytes are a block, wherever they lie.
pub(crate) unsafe trait Format: Sized {
    /// Its elements, a multiple of the lanes.
    const ELEMENTS: usize;

    /// Gives its elements to `sink` in their order, sixteen at a time, with the index of the first. Must be
    /// `#[inline(always)]`.
    fn unpack<L: Lanes>(&self, lanes: L, sink: impl FnMut(usize, L::V));
}

/// The blocks of some bytes.
#[inline(always)]
pub(crate) fn blocks<F: Format>(bytes: &[u8]) -> &[F] {
    // SAFETY: any bytes are blocks, and only whole ones are counted.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / size_of::<F>()) }
}

type Half = [u8; 2];

#[repr(C)]
pub(crate) struct F32([[u8; 4]; LANES]);
#[repr(C)]
pub(crate) struct F16([Half; LANES]);
#[repr(C)]
pub(crate) struct Bf16([Half; LANES]);
#[repr(C)]
pub(crate) struct Q4_0 {
    pub(super) scale: Half,
    pub(super) quants: [u8; 16],
}
#[repr(C)]
pub(crate) struct Q4_1 {
    /// The scale, and the least value.
    pub(super) scales: [Half; 2],
    pub(super) quants: [u8; 16],
}
#[repr(C)]
pub(crate) struct Q5_0 {
    pub(super) scale: Half,
    pub(super) high: [u8; 4],
    pub(super) quants: [u8; 16],
}
#[repr(C)]
pub(crate) struct Q5_1 {
    /// The scale, and the least value.
    pub(super) scales: [Half; 2],
    pub(super) high: [u8; 4],
    pub(super) quants: [u8; 16],
}
#[repr(C)]
pub(crate) struct Q8_0 {
    pub(super) scale: Half,
    pub(super) quants: [u8; 2 * LANES],
}
#[repr(C)]
pub(crate) struct Q8_1 {
    scale: Half,
    sum: Half,
    quants: [[u8; LANES]; 2],
}

// SAFETY of all: each is made of bytes alone.
unsafe impl Format for F32 {
    const ELEMENTS: usize = LANES;

    #[inline(always)]
    fn unpack<L: Lanes>(&self, lanes: L, mut sink: impl FnMut(usize, L::V)) {
        sink(0, lanes.floats(&self.0));
    }
}

unsafe impl Format for F16 {
    const ELEMENTS: usize = LANES;

    #[inline(always)]
    fn unpack<L: Lanes>(&self, lanes: L, mut sink: impl FnMut(usize, L::V)) {
        sink(0, lanes.halves(&self.0));
    }
}

unsafe impl Format for Bf16 {
    const ELEMENTS: usize = LANES;

    #[inline(always)]
    fn unpack<L: Lanes>(&self, lanes: L, mut sink: impl FnMut(usize, L::V)) {
        sink(0, lanes.brains(&self.0));
    }
}

unsafe impl Format for Q4_0 {
    const ELEMENTS: usize = 32;

    #[inline(always)]
    fn unpack<L: Lanes>(&self, lanes: L, mut sink: impl FnMut(usize, L::V)) {
        let (scale, middle) = (lanes.splat_half(self.scale), lanes.splat(8.0));
        let (low, high) = lanes.nibbles(&self.quants);
        sink(0, lanes.mul(lanes.sub(low, middle), scale));
        sink(LANES, lanes.mul(lanes.sub(high, middle), scale));
    }
}

unsafe impl Format for Q4_1 {
    const ELEMENTS: usize = 32;

    #[inline(always)]
    fn unpack<L: Lanes>(&self, lanes: L, mut sink: impl FnMut(usize, L::V)) {
        let (scale, least) = (lanes.splat_half(self.scales[0]), lanes.splat_half(self.scales[1]));
        let (low, high) = lanes.nibbles(&self.quants);
        sink(0, lanes.fma(low, scale, least));
        sink(LANES, lanes.fma(high, scale, least));
    }
}

/// The fifth bit of each of 32 quants, then the low four: two times sixteen bytes.
#[inline(always)]
fn five_bits(high: [u8; 4], quants: &[u8; 16]) -> [[u8; LANES]; 2] {
    let high = u32::from_le_bytes(high);
    let bit = |index: usize| ((high >> index & 1) << 4) as u8;
    [std::array::from_fn(|i| quants[i] & 15 | bit(i)), std::array::from_fn(|i| quants[i] >> 4 | bit(i + LANES))]
}

unsafe impl Format for Q5_0 {
    const ELEMENTS: usize = 32;

    #[inline(always)]
    fn unpack<L: Lanes>(&self, lanes: L, mut sink: impl FnMut(usize, L::V)) {
        let (scale, middle) = (lanes.splat_half(self.scale), lanes.splat(16.0));
        for (half, quants) in five_bits(self.high, &self.quants).iter().enumerate() {
            sink(half * LANES, lanes.mul(lanes.sub(lanes.bytes(quants), middle), scale));
        }
    }
}

unsafe impl Format for Q5_1 {
    const ELEMENTS: usize = 32;

    #[inline(always)]
    fn unpack<L: Lanes>(&self, lanes: L, mut sink: impl FnMut(usize, L::V)) {
        let (scale, least) = (lanes.splat_half(self.scales[0]), lanes.splat_half(self.scales[1]));
        for (half, quants) in five_bits(self.high, &self.quants).iter().enumerate() {
            sink(half * LANES, lanes.fma(lanes.bytes(quants), scale, least));
        }
    }
}

unsafe impl Format for Q8_0 {
    const ELEMENTS: usize = 32;

    #[inline(always)]
    fn unpack<L: Lanes>(&self, lanes: L, mut sink: impl FnMut(usize, L::V)) {
        let scale = lanes.splat_half(self.scale);
        for (half, quants) in self.quants.as_chunks().0.iter().enumerate() {
            sink(half * LANES, lanes.mul(lanes.signed(quants), scale));
        }
    }
}

unsafe impl Format for Q8_1 {
    const ELEMENTS: usize = 32;

    #[inline(always)]
    fn unpack<L: Lanes>(&self, lanes: L, mut sink: impl FnMut(usize, L::V)) {
        let scale = lanes.splat_half(self.scale);
        sink(0, lanes.mul(lanes.signed(&self.quants[0]), scale));
        sink(LANES, lanes.mul(lanes.signed(&self.quants[1]), scale));
    }
}
