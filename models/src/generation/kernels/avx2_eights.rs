//! Eights in one 256-bit register.

use std::arch::x86_64::*;

use super::{
    avx2::{Avx2, sums_of_eights},
    eights::{Eights, WORDS, Words},
};

type W = [__m256i; 2];

// SAFETY of every block below: a value of `Avx2` exists only where the machine has the instructions, and every address is
// that of a whole array; the loads and stores are those for any alignment.
impl Eights for Avx2 {
    type E = __m256;
    type W = W;

    #[inline(always)]
    fn splat(self, value: f32) -> __m256 {
        unsafe { _mm256_set1_ps(value) }
    }
    #[inline(always)]
    fn pairs(self, [a, b]: [f32; 2]) -> __m256 {
        let both = u64::from(a.to_bits()) | u64::from(b.to_bits()) << 32;
        unsafe { _mm256_castsi256_ps(_mm256_set1_epi64x(both.cast_signed())) }
    }
    #[inline(always)]
    fn half_pairs(self, [a, b]: [[u8; 2]; 2]) -> __m256 {
        unsafe { _mm256_cvtph_ps(_mm_set1_epi32(i32::from_le_bytes([a[0], a[1], b[0], b[1]]))) }
    }
    #[inline(always)]
    fn pair(self, values: __m256) -> [f32; 2] {
        let mut pair = [0.0; 2];
        unsafe { _mm_storel_epi64((&raw mut pair).cast(), _mm_castps_si128(_mm256_castps256_ps128(values))) };
        pair
    }
    #[inline(always)]
    fn evens(self, values: __m256) -> __m256 {
        unsafe { _mm256_moveldup_ps(values) }
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
    fn sums(self, values: [__m256; 4]) -> [f32; 4] {
        unsafe { sums_of_eights(values) }
    }

    #[inline(always)]
    fn load(self, from: &Words) -> W {
        let at = from.0.as_ptr().cast::<__m256i>();
        unsafe { [_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1))] }
    }
    #[inline(always)]
    fn store(self, words: W, to: &mut Words) {
        let at = to.0.as_mut_ptr().cast::<__m256i>();
        unsafe {
            _mm256_storeu_si256(at, words[0]);
            _mm256_storeu_si256(at.add(1), words[1]);
        }
    }
    #[inline(always)]
    fn signed(self, from: &[u8; WORDS]) -> W {
        let at = from.as_ptr().cast::<__m128i>();
        unsafe { [_mm256_cvtepi8_epi16(_mm_loadu_si128(at)), _mm256_cvtepi8_epi16(_mm_loadu_si128(at.add(1)))] }
    }
    #[inline(always)]
    fn nibbles(self, from: &[u8; WORDS / 2]) -> W {
        unsafe {
            let (bytes, mask) = (_mm_loadu_si128(from.as_ptr().cast()), _mm_set1_epi8(15));
            let high = _mm_and_si128(_mm_srli_epi16::<4>(bytes), mask);
            [_mm256_cvtepu8_epi16(_mm_and_si128(bytes, mask)), _mm256_cvtepu8_epi16(high)]
        }
    }
    #[inline(always)]
    fn five_bits(self, low: &[u8; WORDS / 2], high: [u8; 4]) -> W {
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
    fn dot(self, a: W, b: &Words) -> __m256 {
        let b = self.load(b);
        unsafe { _mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_madd_epi16(a[0], b[0]), _mm256_madd_epi16(a[1], b[1]))) }
    }
}
