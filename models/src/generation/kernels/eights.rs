//! Eight f32 values, and eight sums of products of whole numbers, on whatever instruction set the machine has.
//!
//! The sums of whole numbers are exact, and what is done with them in f32 rounds as IEEE 754 says: a kernel that is written
//! in these gives the same bits on every instruction set.

/// Whole numbers that are multiplied at once.
pub(crate) const WORDS: usize = 32;

/// So many, each half of them in one cache line.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(32))]
pub(crate) struct Words(pub(crate) [i16; WORDS]);

/// An instruction set. A value of it exists only where the machine has it.
pub(crate) trait Eights: Copy {
    /// Eight values.
    type E: Copy;
    /// 32 whole numbers.
    type W: Copy;

    fn splat(self, value: f32) -> Self::E;
    /// Two values, four times.
    fn pairs(self, pair: [f32; 2]) -> Self::E;
    /// Two numbers of half precision, four times.
    fn half_pairs(self, pair: [[u8; 2]; 2]) -> Self::E;
    /// The first two values.
    fn pair(self, values: Self::E) -> [f32; 2];
    /// Each value at an even place, twice.
    fn evens(self, values: Self::E) -> Self::E;
    fn mul(self, a: Self::E, b: Self::E) -> Self::E;
    /// `a · b + c`, rounded once.
    fn fma(self, a: Self::E, b: Self::E, c: Self::E) -> Self::E;
    /// The sums of four, each by halves: value `i` to `i + 4`, then `i + 2`, `i + 1`.
    fn sums(self, values: [Self::E; 4]) -> [f32; 4];

    fn load(self, from: &Words) -> Self::W;
    fn store(self, words: Self::W, to: &mut Words);
    /// Bytes with a sign.
    fn signed(self, from: &[u8; WORDS]) -> Self::W;
    /// The low four bits of each byte, then the high four.
    fn nibbles(self, from: &[u8; WORDS / 2]) -> Self::W;
    /// The same with a fifth bit each.
    fn five_bits(self, low: &[u8; WORDS / 2], high: [u8; 4]) -> Self::W;
    /// The sums of products: `i` of those of the words `2 i`, `2 i + 1`, `2 i + 16` and `2 i + 17`, as f32. The words of
    /// one side are below 256 in size.
    fn dot(self, a: Self::W, b: &Words) -> Self::E;
}
