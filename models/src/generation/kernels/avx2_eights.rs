//! Eights in one 256-bit register.

use std::arch::x86_64::*;

use super::{
    avx2::Avx2,
    eights::{EIGHT, Eights, PAIRS, WORDS, Words},
};

/// The low and the high parts of two registers, side by side.
macro_rules! beside {
    ($low:ident, $high:ident, $a:expr, $b:expr) => {{
        let (a, b) = ($a, $b);
        [$low(a, b), $high(a, b)]
    }};
}

/// The same, added.
macro_rules! halved {
    ($low:ident, $high:ident, $a:expr, $b:expr) => {{
        let [low, high] = beside!($low, $high, $a, $b);
        _mm256_add_epi32(low, high)
    }};
}

#[inline(always)]
fn both([a, b]: [[u8; 2]; 2]) -> i32 {
    i32::from_le_bytes([a[0], a[1], b[0], b[1]])
}

/// Turns eight rows of eight whole numbers into columns.
///
/// # Safety
/// The machine has AVX2.
#[inline(always)]
unsafe fn turned(rows: [__m256i; EIGHT]) -> [__m256i; EIGHT] {
    // SAFETY: by the caller's word.
    unsafe {
        let [a, b] = beside!(_mm256_unpacklo_epi32, _mm256_unpackhi_epi32, rows[0], rows[1]);
        let [c, d] = beside!(_mm256_unpacklo_epi32, _mm256_unpackhi_epi32, rows[2], rows[3]);
        let [e, f] = beside!(_mm256_unpacklo_epi32, _mm256_unpackhi_epi32, rows[4], rows[5]);
        let [g, h] = beside!(_mm256_unpacklo_epi32, _mm256_unpackhi_epi32, rows[6], rows[7]);
        let [ac, ca] = beside!(_mm256_unpacklo_epi64, _mm256_unpackhi_epi64, a, c);
        let [bd, db] = beside!(_mm256_unpacklo_epi64, _mm256_unpackhi_epi64, b, d);
        let [eg, ge] = beside!(_mm256_unpacklo_epi64, _mm256_unpackhi_epi64, e, g);
        let [fh, hf] = beside!(_mm256_unpacklo_epi64, _mm256_unpackhi_epi64, f, h);
        [
            _mm256_permute2x128_si256::<0x20>(ac, eg),
            _mm256_permute2x128_si256::<0x20>(ca, ge),
            _mm256_permute2x128_si256::<0x20>(bd, fh),
            _mm256_permute2x128_si256::<0x20>(db, hf),
            _mm256_permute2x128_si256::<0x31>(ac, eg),
            _mm256_permute2x128_si256::<0x31>(ca, ge),
            _mm256_permute2x128_si256::<0x31>(bd, fh),
            _mm256_permute2x128_si256::<0x31>(db, hf),
        ]
    }
}

// SAFETY of every block below: a value of `Avx2` exists only where the machine has the instructions, and every address is
// that of a whole array; the loads and stores are those for any alignment.
impl Eights for Avx2 {
    type E = __m256;
    type I = __m256i;

    #[inline(always)]
    fn splat(self, value: f32) -> __m256 {
        unsafe { _mm256_set1_ps(value) }
    }
    #[inline(always)]
    fn load(self, from: &[f32; EIGHT]) -> __m256 {
        unsafe { _mm256_loadu_ps(from.as_ptr()) }
    }
    #[inline(always)]
    fn store(self, values: __m256, to: &mut [f32; EIGHT]) {
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), values) }
    }
    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn halves(self, from: [[u8; 2]; EIGHT]) -> __m256 {
        let [a, b, c, d, e, f, g, h] = from;
        let word = i16::from_le_bytes;
        unsafe {
            let words = _mm_setr_epi16(word(a), word(b), word(c), word(d), word(e), word(f), word(g), word(h));
            _mm256_cvtph_ps(words)
        }
    }
    #[inline(always)]
    fn half_pairs(self, from: [[[u8; 2]; 2]; EIGHT]) -> [__m256; 2] {
        let [a, b, c, d, e, f, g, h] = from;
        unsafe {
            let both = _mm256_setr_epi32(both(a), both(b), both(c), both(d), both(e), both(f), both(g), both(h));
            // In each half of the register the first of four pairs, then the second ones.
            let apart = _mm256_setr_epi64x(
                0x0d0c_0908_0504_0100,
                0x0f0e_0b0a_0706_0302,
                0x0d0c_0908_0504_0100,
                0x0f0e_0b0a_0706_0302,
            );
            let pairs = _mm256_shuffle_epi8(both, apart);
            let apart = _mm256_permute4x64_epi64::<0b11_01_10_00>(pairs);
            [_mm256_cvtph_ps(_mm256_castsi256_si128(apart)), _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(apart))]
        }
    }
    #[inline(always)]
    fn floats(self, whole: __m256i) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(whole) }
    }

    #[inline(always)]
    fn zeros(self) -> __m256i {
        unsafe { _mm256_setzero_si256() }
    }
    #[inline(always)]
    fn load_whole(self, from: &[i32; EIGHT]) -> __m256i {
        unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
    }
    #[inline(always)]
    fn store_whole(self, whole: __m256i, to: &mut [i32; EIGHT]) {
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), whole) }
    }
    #[inline(always)]
    fn words(self, from: &Words) -> [__m256i; 2] {
        let at = from.0.as_ptr().cast::<__m256i>();
        unsafe { [_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1))] }
    }
    #[inline(always)]
    fn pair(self, from: &Words, index: usize) -> __m256i {
        assert!(index < PAIRS);
        unsafe { _mm256_set1_epi32(from.0.as_ptr().cast::<i32>().add(index).read_unaligned()) }
    }
    #[inline(always)]
    fn signed(self, from: &[u8; WORDS]) -> [__m256i; 2] {
        let at = from.as_ptr().cast::<__m128i>();
        unsafe { [_mm256_cvtepi8_epi16(_mm_loadu_si128(at)), _mm256_cvtepi8_epi16(_mm_loadu_si128(at.add(1)))] }
    }
    #[inline(always)]
    fn nibbles(self, from: &[u8; WORDS / 2]) -> [__m256i; 2] {
        unsafe {
            let (bytes, mask) = (_mm_loadu_si128(from.as_ptr().cast()), _mm_set1_epi8(15));
            let high = _mm_and_si128(_mm_srli_epi16::<4>(bytes), mask);
            [_mm256_cvtepu8_epi16(_mm_and_si128(bytes, mask)), _mm256_cvtepu8_epi16(high)]
        }
    }
    #[inline(always)]
    fn five_bits(self, low: &[u8; WORDS / 2], high: [u8; 4]) -> [__m256i; 2] {
        let low = self.nibbles(low);
        unsafe {
            // Sixteen of the bits beside each word, then one of them in each.
            let bits =
                _mm256_setr_epi16(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, i16::MIN);
            let (sixteen, zero) = (_mm256_set1_epi16(16), _mm256_setzero_si256());
            let first = _mm256_and_si256(_mm256_set1_epi16(i16::from_le_bytes([high[0], high[1]])), bits);
            let second = _mm256_and_si256(_mm256_set1_epi16(i16::from_le_bytes([high[2], high[3]])), bits);
            [
                _mm256_or_si256(low[0], _mm256_andnot_si256(_mm256_cmpeq_epi16(first, zero), sixteen)),
                _mm256_or_si256(low[1], _mm256_andnot_si256(_mm256_cmpeq_epi16(second, zero), sixteen)),
            ]
        }
    }
    #[inline(always)]
    fn add_products(self, a: __m256i, b: __m256i, to: __m256i) -> __m256i {
        unsafe { _mm256_add_epi32(_mm256_madd_epi16(a, b), to) }
    }
    #[inline(always)]
    fn sums(self, of: [__m256i; EIGHT]) -> __m256i {
        unsafe {
            // Each step halves what is left of each: its parts come to lie side by side and are added.
            let twos = [
                halved!(_mm256_unpacklo_epi32, _mm256_unpackhi_epi32, of[0], of[1]),
                halved!(_mm256_unpacklo_epi32, _mm256_unpackhi_epi32, of[2], of[3]),
                halved!(_mm256_unpacklo_epi32, _mm256_unpackhi_epi32, of[4], of[5]),
                halved!(_mm256_unpacklo_epi32, _mm256_unpackhi_epi32, of[6], of[7]),
            ];
            let four = halved!(_mm256_unpacklo_epi64, _mm256_unpackhi_epi64, twos[0], twos[1]);
            let others = halved!(_mm256_unpacklo_epi64, _mm256_unpackhi_epi64, twos[2], twos[3]);
            _mm256_add_epi32(
                _mm256_permute2x128_si256::<0x20>(four, others),
                _mm256_permute2x128_si256::<0x31>(four, others),
            )
        }
    }
    #[inline(always)]
    fn turn(self, columns: [[__m256i; 2]; EIGHT]) -> [__m256i; PAIRS] {
        let [a, b, c, d, e, f, g, h] = columns;
        unsafe {
            let first = turned([a[0], b[0], c[0], d[0], e[0], f[0], g[0], h[0]]);
            let second = turned([a[1], b[1], c[1], d[1], e[1], f[1], g[1], h[1]]);
            let mut all = [first[0]; PAIRS];
            all[..EIGHT].copy_from_slice(&first);
            all[EIGHT..].copy_from_slice(&second);
            all
        }
    }
}
