//! Sixteen f32 values that are computed together, on whatever instruction set the machine has.
//!
//! Each operation rounds as IEEE 754 says, products are fused with their sums, and a sum over the lanes has one order. So a
//! kernel that is written in these gives the same bits on every instruction set.

use super::eights::Eights;

/// How many there are. The order of every reduction depends on it.
pub(crate) const LANES: usize = 16;

/// An instruction set. A value of it exists only where the machine has it.
pub(crate) trait Lanes: Copy {
    /// Sixteen values in its registers.
    type V: Copy;
    /// What the machine has for whole numbers.
    type Eights: Eights;
    /// Rows of a product's tile, whose sums stay in registers with those of `TILE_COLUMNS`.
    const TILE_ROWS: usize;
    /// Columns of a product's tile.
    const TILE_COLUMNS: usize;

    fn eights(self) -> Self::Eights;
    /// Asks for the memory at an address, which need not exist, without waiting for it.
    fn prefetch(self, at: *const u8);
    fn splat(self, value: f32) -> Self::V;
    /// A number of half precision in all lanes.
    fn splat_half(self, bits: [u8; 2]) -> Self::V;
    fn load(self, from: &[f32; LANES]) -> Self::V;
    fn store(self, values: Self::V, to: &mut [f32; LANES]);
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// The greater; where one is not a number, `b`.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a · b + c`, rounded once.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// Adds the low bits of `rounded`, which hold a whole number, to the exponents of `values`.
    fn add_exponents(self, values: Self::V, rounded: Self::V) -> Self::V;
    /// Halves added to halves, down to one value: lane `i` to `i + 8`, then `i + 4`, `i + 2`, `i + 1`.
    fn sum(self, values: Self::V) -> f32;
    /// The sums of four, each in that order.
    fn four_sums(self, values: [Self::V; 4]) -> [f32; 4];

    /// From numbers of half precision.
    fn halves(self, from: &[[u8; 2]; LANES]) -> Self::V;
    /// From bfloat16.
    fn brains(self, from: &[[u8; 2]; LANES]) -> Self::V;
    /// From f32 wherever they lie.
    fn floats(self, from: &[[u8; 4]; LANES]) -> Self::V;
    /// From bytes without a sign.
    fn bytes(self, from: &[u8; LANES]) -> Self::V;
    /// From bytes with a sign.
    fn signed(self, from: &[u8; LANES]) -> Self::V;
    /// The low four bits of each byte, and the high four.
    fn nibbles(self, from: &[u8; LANES]) -> (Self::V, Self::V);
}

/// A computation over lanes.
pub(crate) trait Kernel {
    type Output;

    /// Must be `#[inline(always)]`, so that it is compiled for the instruction set.
    fn run<L: Lanes>(self, lanes: L) -> Self::Output;
}

/// Runs a kernel on the widest instruction set that the machine has.
#[inline]
pub(crate) fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    {
        if let Some(lanes) = super::avx512::Avx512::detect() {
            // SAFETY: the value exists, so the machine has the instructions.
            return unsafe { super::avx512::run(kernel, lanes) };
        }
        if let Some(lanes) = super::avx2::Avx2::detect() {
            // SAFETY: as above.
            return unsafe { super::avx2::run(kernel, lanes) };
        }
    }
    kernel.run(super::portable::Portable)
}
