//! Eight values or whole numbers that are computed together, on whatever instruction set the machine has.
//!
//! The sums of whole numbers are exact, and what is done with them in f32 rounds as IEEE 754 says: a kernel that is written
//! in these gives the same bits on every instruction set.

/// How many there are.
pub(crate) const EIGHT: usize = 8;
/// Words of a block.
pub(crate) const WORDS: usize = 32;
/// Pairs of neighbouring words in a block.
pub(crate) const PAIRS: usize = WORDS / 2;

/// The words of a block, each half of them in one cache line.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(32))]
pub(crate) struct Words(pub(crate) [i16; WORDS]);

/// An instruction set. A value of it exists only where the machine has it.
pub(crate) trait Eights: Copy {
    /// Eight values.
    type E: Copy;
    /// Eight whole numbers, or sixteen words, or eight pairs of words.
    type I: Copy;

    fn splat(self, value: f32) -> Self::E;
    fn load(self, from: &[f32; EIGHT]) -> Self::E;
    fn store(self, values: Self::E, to: &mut [f32; EIGHT]);
    fn mul(self, a: Self::E, b: Self::E) -> Self::E;
    /// `a · b + c`, rounded once.
    fn fma(self, a: Self::E, b: Self::E, c: Self::E) -> Self::E;
    /// From numbers of half precision.
    fn halves(self, from: [[u8; 2]; EIGHT]) -> Self::E;
    /// From pairs of them: all that are first, and all that are second.
    fn half_pairs(self, from: [[[u8; 2]; 2]; EIGHT]) -> [Self::E; 2];
    /// Whole numbers, rounded to the nearest f32.
    fn floats(self, whole: Self::I) -> Self::E;

    fn zeros(self) -> Self::I;
    fn load_whole(self, from: &[i32; EIGHT]) -> Self::I;
    fn store_whole(self, whole: Self::I, to: &mut [i32; EIGHT]);
    /// The words of a block.
    fn words(self, from: &Words) -> [Self::I; 2];
    /// A pair of words of a block, eight times.
    fn pair(self, from: &Words, index: usize) -> Self::I;
    /// Bytes with a sign, as words.
    fn signed(self, from: &[u8; WORDS]) -> [Self::I; 2];
    /// The low four bits of each byte, then the high four, as words.
    fn nibbles(self, from: &[u8; WORDS / 2]) -> [Self::I; 2];
    /// The same with a fifth bit each.
    fn five_bits(self, low: &[u8; WORDS / 2], high: [u8; 4]) -> [Self::I; 2];
    /// To each whole number, the products of both words of a pair. The words of one side are below 256 in size.
    fn add_products(self, a: Self::I, b: Self::I, to: Self::I) -> Self::I;
    /// Of each, the sum of its eight whole numbers.
    fn sums(self, of: [Self::I; EIGHT]) -> Self::I;
    /// The words of eight columns, turned: pair after pair, of each the eight columns.
    fn turn(self, columns: [[Self::I; 2]; EIGHT]) -> [Self::I; PAIRS];
}
