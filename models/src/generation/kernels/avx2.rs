//! Lanes in two 256-bit registers.

use std::arch::x86_64::*;

use super::lanes::{Kernel, LANES, Lanes};

/// AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// Where the machine has them.
    #[inline(always)]
    pub(crate) fn detect() -> Option<Self> {
        let has =
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        has.then_some(Self(()))
    }
}

/// Compiles a kernel for this instruction set.
#[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
pub(super) fn run<K: Kernel>(kernel: K, lanes: Avx2) -> K::Output {
    kernel.run(lanes)
}

type V = [__m256; 2];

/// Sixteen bytes, their lower and upper eight as f32.
macro_rules! widened {
    ($convert:ident, $bytes:expr) => {{
        let bytes: __m128i = $bytes;
        [_mm256_cvtepi32_ps($convert(bytes)), _mm256_cvtepi32_ps($convert(_mm_unpackhi_epi64(bytes, bytes)))]
    }};
}

// SAFETY of every block below: a value of `Avx2` exists only where the machine has the instructions, and every address is
// that of a whole array; the loads and stores are those for any alignment.
impl Lanes for Avx2 {
    type V = V;
    const TILE_ROWS: usize = 3;
    const TILE_COLUMNS: usize = 2;

    #[inline(always)]
    fn splat(self, value: f32) -> V {
        unsafe { [_mm256_set1_ps(value); 2] }
    }
    #[inline(always)]
    fn splat_half(self, bits: [u8; 2]) -> V {
        unsafe {
            let bits = _mm_cvtsi32_si128(u16::from_le_bytes(bits).into());
            [_mm256_broadcastss_ps(_mm_cvtph_ps(bits)); 2]
        }
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> V {
        let at = from.as_ptr();
        unsafe { [_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8))] }
    }
    #[inline(always)]
    fn store(self, values: V, to: &mut [f32; LANES]) {
        let at = to.as_mut_ptr();
        unsafe {
            _mm256_storeu_ps(at, values[0]);
            _mm256_storeu_ps(at.add(8), values[1]);
        }
    }
    #[inline(always)]
    fn add(self, a: V, b: V) -> V {
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }
    #[inline(always)]
    fn sub(self, a: V, b: V) -> V {
        unsafe { [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])] }
    }
    #[inline(always)]
    fn mul(self, a: V, b: V) -> V {
        unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
    }
    #[inline(always)]
    fn div(self, a: V, b: V) -> V {
        unsafe { [_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])] }
    }
    #[inline(always)]
    fn max(self, a: V, b: V) -> V {
        unsafe { [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])] }
    }
    #[inline(always)]
    fn fma(self, a: V, b: V, c: V) -> V {
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
    }
    #[inline(always)]
    fn add_exponents(self, values: V, rounded: V) -> V {
        unsafe {
            let one = |value, rounded| {
                let exponents = _mm256_slli_epi32::<23>(_mm256_castps_si256(rounded));
                _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(value), exponents))
            };
            [one(values[0], rounded[0]), one(values[1], rounded[1])]
        }
    }
    #[inline(always)]
    fn sum(self, values: V) -> f32 {
        unsafe {
            let eight = _mm256_add_ps(values[0], values[1]);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }
    #[inline(always)]
    fn halves(self, from: &[[u8; 2]; LANES]) -> V {
        let at = from.as_ptr().cast::<__m128i>();
        unsafe { [_mm256_cvtph_ps(_mm_loadu_si128(at)), _mm256_cvtph_ps(_mm_loadu_si128(at.add(1)))] }
    }
    #[inline(always)]
    fn brains(self, from: &[[u8; 2]; LANES]) -> V {
        let at = from.as_ptr().cast::<__m128i>();
        unsafe {
            let one = |halves| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(halves)));
            [one(_mm_loadu_si128(at)), one(_mm_loadu_si128(at.add(1)))]
        }
    }
    #[inline(always)]
    fn floats(self, from: &[[u8; 4]; LANES]) -> V {
        let at = from.as_ptr().cast::<f32>();
        unsafe { [_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8))] }
    }
    #[inline(always)]
    fn bytes(self, from: &[u8; LANES]) -> V {
        unsafe { widened!(_mm256_cvtepu8_epi32, _mm_loadu_si128(from.as_ptr().cast())) }
    }
    #[inline(always)]
    fn signed(self, from: &[u8; LANES]) -> V {
        unsafe { widened!(_mm256_cvtepi8_epi32, _mm_loadu_si128(from.as_ptr().cast())) }
    }
    #[inline(always)]
    fn nibbles(self, from: &[u8; LANES]) -> (V, V) {
        unsafe {
            let (bytes, mask) = (_mm_loadu_si128(from.as_ptr().cast()), _mm_set1_epi8(15));
            let high = _mm_and_si128(_mm_srli_epi16::<4>(bytes), mask);
            (widened!(_mm256_cvtepu8_epi32, _mm_and_si128(bytes, mask)), widened!(_mm256_cvtepu8_epi32, high))
        }
    }
}
