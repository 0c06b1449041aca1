//! Rounded rows times a weight of small whole numbers, sixteen outputs in one 512-bit register.
//!
//! The weight is never unpacked into memory: of each block, the same four bytes of sixteen rows come to lie side by side,
//! and are widened to pairs of words, which all rows of the other side are multiplied with while they are in registers. What
//! is added, and in which order, is as in [`WholeProduct`] on other instruction sets.

use std::arch::x86_64::*;

use super::{
    avx512::Avx512,
    eights::{PAIRS, WORDS},
    formats::{Format, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, blocks},
    lanes::Lanes,
    matrix::{LINE_BYTES, with_format},
    rounded::Rounded,
    whole_product::WholeProduct,
};
use crate::gguf::Encoding;

/// Outputs that are computed side by side.
const SIXTEEN: usize = 16;
/// Rows whose sums are brought through all blocks at once: few enough for the nearest cache.
const MOST_ROWS: usize = 64;
/// Rows whose products are in registers.
const TILE_ROWS: usize = 4;
/// Most sums of one row's products.
const MOST_SUMS: usize = 4;

/// Sums of a row's products where so many rows are in registers, so that no product waits for the one before.
const fn sums_of(rows: usize) -> usize {
    if rows == 1 { MOST_SUMS } else { 2 }
}

/// AVX-512 with VNNI.
#[derive(Clone, Copy)]
pub(super) struct Sixteens(Avx512);

impl Sixteens {
    /// Where the machine has them.
    #[inline(always)]
    pub(super) fn detect() -> Option<Self> {
        Avx512::detect().filter(|_| is_x86_feature_detected!("avx512vnni")).map(Self)
    }

    /// Computes a product.
    pub(super) fn compute(self, product: WholeProduct<'_>) {
        // SAFETY: the value exists, so the machine has the instructions.
        unsafe { compute(self, product) }
    }
}

/// The same of each of sixteen; a call of `map` would stay one, and registers be saved for it.
macro_rules! each {
    ($all:expr, $one:ident => $value:expr) => {
        each!(@ $all, $one, $value, a b c d e f g h i j k l m n o p)
    };
    (@ $all:expr, $one:ident, $value:expr, $($name:ident)*) => {{
        let [$($name),*] = $all;
        [$({ let $one = $name; $value }),*]
    }};
}

type V = __m512i;

/// A block of each of sixteen rows.
type Blocks<'a, F> = [&'a F; SIXTEEN];

/// A block of 32 elements whose values are whole numbers times a scale, plus a least value.
trait Sixteen: Format {
    /// The whole numbers as words: pair after pair, of each the sixteen rows.
    ///
    /// # Safety
    /// The machine has AVX-512 with VNNI.
    unsafe fn pairs(blocks: Blocks<'_, Self>) -> [V; PAIRS];

    /// The scales and the least values.
    ///
    /// # Safety
    /// As of `pairs`.
    unsafe fn scales(blocks: Blocks<'_, Self>) -> [__m512; 2];
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
fn compute(lanes: Sixteens, product: WholeProduct<'_>) {
    let mut sums = std::mem::take(&mut product.unpacked.sums);
    with_format!(
        product.matrix.encoding,
        [Q4_0 Q4_1 Q5_0 Q5_1 Q8_0],
        // SAFETY: this function is compiled for the instructions.
        F => for first in product.outputs.clone().step_by(SIXTEEN) {
            unsafe { sixteen::<F>(lanes, &product, first, &mut sums) };
        },
        ()
    );
    product.unpacked.sums = sums;
}

/// Sixteen outputs of all rows.
///
/// # Safety
/// The machine has AVX-512 with VNNI.
#[inline(always)]
unsafe fn sixteen<F: Sixteen>(
    lanes: Sixteens,
    product: &WholeProduct<'_>,
    first: usize,
    sums: &mut Vec<[f32; SIXTEEN]>,
) {
    let (matrix, x, last) = (product.matrix, product.x, product.outputs.end - 1);
    let depth = matrix.inputs / WORDS;
    // Where fewer outputs are left, the last comes several times.
    let mut rows: [&[F]; SIXTEEN] = [&[]; SIXTEEN];
    for (next, row) in rows.iter_mut().enumerate() {
        *row = blocks(matrix.row((first + next).min(last)));
    }
    assert!(rows.iter().all(|row| row.len() == depth), "rows have the same blocks");
    let all = x.quants.len() / depth;
    assert!(x.quants.len() == all * depth && x.scales.len() == all * depth, "rows are whole");
    for start in (0..all).step_by(MOST_ROWS) {
        let count = MOST_ROWS.min(all - start);
        sums.clear();
        sums.resize(count, [0.0; SIXTEEN]);
        for block in 0..depth {
            // Of the next sixteen outputs, as much as is read of these now.
            let next = rows[0].as_ptr().wrapping_add(SIXTEEN * (depth + block)).cast::<u8>();
            for line in (0..SIXTEEN * size_of::<F>()).step_by(LINE_BYTES) {
                lanes.0.prefetch(next.wrapping_add(line));
            }
            // SAFETY: each row has the block, and each row of x; the machine has the instructions.
            unsafe {
                let blocks = each!(rows, row => row.get_unchecked(block));
                let weights = (F::pairs(blocks), F::scales(blocks));
                let mut row = 0;
                while row + TILE_ROWS <= count {
                    tile::<TILE_ROWS>(x, (start + row) * depth + block, depth, &weights, &mut sums[row..]);
                    row += TILE_ROWS;
                }
                match count - row {
                    1 => tile::<1>(x, (start + row) * depth + block, depth, &weights, &mut sums[row..]),
                    2 => tile::<2>(x, (start + row) * depth + block, depth, &weights, &mut sums[row..]),
                    3 => tile::<3>(x, (start + row) * depth + block, depth, &weights, &mut sums[row..]),
                    _ => {}
                }
            }
        }
        for (row, values) in sums.iter().enumerate() {
            product.put(start + row, first, values);
        }
    }
}

/// Adds what a block gives to the sums of `R` rows; the first row's block is at `at`, the next `stride` behind it.
///
/// # Safety
/// These blocks are in `x`, so many sums there; the machine has AVX-512 with VNNI.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "with iterators the sums leave their registers")]
unsafe fn tile<const R: usize>(
    x: &Rounded,
    at: usize,
    stride: usize,
    (pairs, scales): &([V; PAIRS], [__m512; 2]),
    sums: &mut [[f32; SIXTEEN]],
) {
    // SAFETY: by the caller's word.
    unsafe {
        let mut products = [[_mm512_setzero_si512(); MOST_SUMS]; R];
        let mut words = [std::ptr::null::<i32>(); R];
        for row in 0..R {
            words[row] = x.quants.get_unchecked(at + row * stride).0.as_ptr().cast();
        }
        // Written out: as a loop it is not unrolled, and its sums would then lie in memory.
        macro_rules! add_pairs {
            ($($pair:literal)*) => {$(
                for row in 0..R {
                    let word = _mm512_set1_epi32(words[row].add($pair).read_unaligned());
                    let sum = &mut products[row][$pair % sums_of(R)];
                    *sum = _mm512_dpwssd_epi32(*sum, word, pairs[$pair]);
                }
            )*};
        }
        add_pairs!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
        for row in 0..R {
            let [scale, sum] = *x.scales.get_unchecked(at + row * stride);
            let to = sums.get_unchecked_mut(row).as_mut_ptr();
            let mut whole = products[row][0];
            for part in 1..sums_of(R) {
                whole = _mm512_add_epi32(whole, products[row][part]);
            }
            let added = _mm512_fmadd_ps(scales[1], _mm512_set1_ps(sum), _mm512_loadu_ps(to));
            let scale = _mm512_mul_ps(scales[0], _mm512_set1_ps(scale));
            _mm512_storeu_ps(to, _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole), scale, added));
        }
    }
}

/// Four neighbouring bytes of each of sixteen rows, sixteen bytes in all: of the first four, the second, and so on. In each
/// four the middle two have changed places, so that the even ones are the first pair of words.
///
/// # Safety
/// There are sixteen bytes at each address; the machine has AVX-512.
#[inline(always)]
unsafe fn fours(rows: [*const u8; SIXTEEN]) -> [V; 4] {
    // SAFETY: by the caller's word.
    unsafe {
        let mut four = [_mm512_setzero_si512(); 4];
        for next in 0..4 {
            // Every fourth row: then what is turned within a quarter of the register comes out in the rows' order.
            let first = _mm512_castsi128_si512(_mm_loadu_si128(rows[next].cast()));
            let two = _mm512_inserti32x4::<1>(first, _mm_loadu_si128(rows[4 + next].cast()));
            let three = _mm512_inserti32x4::<2>(two, _mm_loadu_si128(rows[8 + next].cast()));
            four[next] = _mm512_inserti32x4::<3>(three, _mm_loadu_si128(rows[12 + next].cast()));
        }
        let order = _mm512_set1_epi64(0x0705_0604_0301_0200);
        let order = _mm512_add_epi8(order, _mm512_set4_epi32(0x0808_0808, 0x0808_0808, 0, 0));
        let [a, b, c, d] = four;
        let (a, b) = (_mm512_shuffle_epi8(a, order), _mm512_shuffle_epi8(b, order));
        let (c, d) = (_mm512_shuffle_epi8(c, order), _mm512_shuffle_epi8(d, order));
        let (ab, cd) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
        let (ba, dc) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
        [
            _mm512_unpacklo_epi64(ab, cd),
            _mm512_unpackhi_epi64(ab, cd),
            _mm512_unpacklo_epi64(ba, dc),
            _mm512_unpackhi_epi64(ba, dc),
        ]
    }
}

/// The low four bits of sixteen bytes of each row, then the high four, as words.
///
/// # Safety
/// The machine has AVX-512.
#[inline(always)]
unsafe fn nibbles(rows: [&[u8; WORDS / 2]; SIXTEEN]) -> [V; PAIRS] {
    // SAFETY: by the caller's word.
    unsafe {
        let mask = _mm512_set1_epi32(0x000f_000f);
        let mut pairs = [_mm512_setzero_si512(); PAIRS];
        let fours = fours(each!(rows, row => row.as_ptr()));
        for next in 0..4 {
            let four = fours[next];
            pairs[2 * next] = _mm512_and_si512(four, mask);
            pairs[2 * next + 1] = _mm512_and_si512(_mm512_srli_epi16::<8>(four), mask);
            pairs[8 + 2 * next] = _mm512_and_si512(_mm512_srli_epi16::<4>(four), mask);
            pairs[8 + 2 * next + 1] = _mm512_srli_epi16::<12>(four);
        }
        pairs
    }
}

/// The same with a fifth bit each, all of a row's in one number.
///
/// # Safety
/// As of [`nibbles`].
#[inline(always)]
unsafe fn five_bits(low: [&[u8; WORDS / 2]; SIXTEEN], high: [[u8; 4]; SIXTEEN]) -> [V; PAIRS] {
    // SAFETY: by the caller's word.
    unsafe {
        let mut pairs = nibbles(low);
        let bits = _mm512_loadu_si512(high.as_ptr().cast());
        let (first, second) = (_mm512_set1_epi32(1 << 4), _mm512_set1_epi32(1 << 20));
        for (pair, words) in pairs.iter_mut().enumerate() {
            // Element 2 · pair belongs to the low word, the next to the high one.
            let (even, odd) = (2 * pair as i32 + 32 - 4, 2 * pair as i32 + 1 + 32 - 20);
            let low = _mm512_and_si512(_mm512_rorv_epi32(bits, _mm512_set1_epi32(even % 32)), first);
            let high = _mm512_and_si512(_mm512_rorv_epi32(bits, _mm512_set1_epi32(odd % 32)), second);
            *words = _mm512_or_si512(*words, _mm512_or_si512(low, high));
        }
        pairs
    }
}

/// Thirty-two bytes with a sign of each row, as words.
///
/// # Safety
/// As of [`nibbles`].
#[inline(always)]
unsafe fn signed(rows: [&[u8; WORDS]; SIXTEEN]) -> [V; PAIRS] {
    // SAFETY: by the caller's word.
    unsafe {
        let mut pairs = [_mm512_setzero_si512(); PAIRS];
        for half in 0..2 {
            let fours = fours(each!(rows, row => row.as_ptr().add(half * WORDS / 2)));
            for next in 0..4 {
                let four = fours[next];
                pairs[8 * half + 2 * next] = _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(four));
                pairs[8 * half + 2 * next + 1] = _mm512_srai_epi16::<8>(four);
            }
        }
        pairs
    }
}

/// From numbers of half precision.
///
/// # Safety
/// The machine has AVX-512.
#[inline(always)]
unsafe fn halves(of: [[u8; 2]; SIXTEEN]) -> __m512 {
    // SAFETY: by the caller's word.
    unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(of.as_ptr().cast())) }
}

/// From pairs of them: all that are first, and all that are second.
///
/// # Safety
/// The machine has AVX-512.
#[inline(always)]
unsafe fn half_pairs(of: [[[u8; 2]; 2]; SIXTEEN]) -> [__m512; 2] {
    // SAFETY: by the caller's word.
    unsafe {
        let both = _mm512_loadu_si512(of.as_ptr().cast());
        [
            _mm512_cvtph_ps(_mm512_cvtepi32_epi16(both)),
            _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(both))),
        ]
    }
}

/// Scales, and as least values so many times the scales.
///
/// # Safety
/// The machine has AVX-512.
#[inline(always)]
unsafe fn times(scales: [[u8; 2]; SIXTEEN], least: f32) -> [__m512; 2] {
    // SAFETY: by the caller's word.
    unsafe {
        let scales = halves(scales);
        [scales, _mm512_mul_ps(scales, _mm512_set1_ps(least))]
    }
}

/// The two functions of a format.
macro_rules! sixteen {
    ($name:ident, $block:ident, $pairs:expr, $scales:expr) => {
        impl Sixteen for $name {
            #[inline(always)]
            unsafe fn pairs($block: Blocks<'_, Self>) -> [V; PAIRS] {
                // SAFETY: by the caller's word.
                unsafe { $pairs }
            }
            #[inline(always)]
            unsafe fn scales($block: Blocks<'_, Self>) -> [__m512; 2] {
                // SAFETY: by the caller's word.
                unsafe { $scales }
            }
        }
    };
}

sixteen!(
    Q4_0,
    blocks,
    nibbles(each!(blocks, block => &block.quants)),
    times(each!(blocks, block => block.scale), -8.0)
);
sixteen!(
    Q4_1,
    blocks,
    nibbles(each!(blocks, block => &block.quants)),
    half_pairs(each!(blocks, block => block.scales))
);
sixteen!(
    Q5_0,
    blocks,
    five_bits(each!(blocks, block => &block.quants), each!(blocks, block => block.high)),
    times(each!(blocks, block => block.scale), -16.0)
);
sixteen!(
    Q5_1,
    blocks,
    five_bits(each!(blocks, block => &block.quants), each!(blocks, block => block.high)),
    half_pairs(each!(blocks, block => block.scales))
);
sixteen!(
    Q8_0,
    blocks,
    signed(each!(blocks, block => &block.quants)),
    [halves(each!(blocks, block => block.scale)), _mm512_setzero_ps()]
);
