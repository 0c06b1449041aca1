//! Lanes in two 256-bit registers.

use std::arch::x86_64::*;

use super::{
    avx512::Avx512,
    lanes::{Kernel, LANES, Lanes},
};

/// AVX2, FMA and F16C.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// Where the machine has them.
    #[inline(always)]
    pub(crate) fn detect() -> Option<Self> {
        let has =
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        has.then_some(Self(()))
    }

    /// A machine that has AVX-512 has them.
    #[inline(always)]
    pub(super) fn of_wider(_: Avx512) -> Self {
        Self(())
    }
}

/// Compiles a kernel for this instruction set.
#[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
pub(super) fn run<K: Kernel>(kernel: K, lanes: Avx2) -> K::Output {
    kernel.run(lanes)
}

type V = [__m256; 2];

/// The sums of four times eight lanes: lane `i` to `i + 4`, then `i + 2`, `i + 1`.
///
/// # Safety
/// The machine has AVX.
#[inline(always)]
pub(super) unsafe fn sums_of_eights([a, b, c, d]: [__m256; 4]) -> [f32; 4] {
    // SAFETY: by the caller's word.
    unsafe {
        // Four lanes of a beside four of b, of c beside d.
        let ab = _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(a, b), _mm256_permute2f128_ps::<0x31>(a, b));
        let cd = _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(c, d), _mm256_permute2f128_ps::<0x31>(c, d));
        // Two lanes each of a, c, b, d, then one.
        let twos = _mm256_add_ps(_mm256_shuffle_ps::<0x44>(ab, cd), _mm256_shuffle_ps::<0xee>(ab, cd));
        let ones = _mm256_add_ps(_mm256_shuffle_ps::<0x88>(twos, twos), _mm256_shuffle_ps::<0xdd>(twos, twos));
        let both = _mm_unpacklo_ps(_mm256_castps256_ps128(ones), _mm256_extractf128_ps::<1>(ones));
        let mut sums = [0.0; 4];
        _mm_storeu_ps(sums.as_mut_ptr(), both);
        sums
    }
}

/// Sixteen bytes, their lower and upper eight as f32.
macro_rules! widened {
    ($convert:ident, $bytes:expr) => {{
        let bytes: __m128i = $bytes;
        [_mm256_cvtepi32_ps($convert(bytes)), _mm256_cvtepi32_ps($convert(_mm_unpackhi_epi64(bytes, bytes)))]
    }};
}

// A closure is no part of the function that is compiled for the instruction set, so none is used here.
//
// SAFETY of every block below: a value of `Avx2` exists only where the machine has the instructions, and every address is
// that of a whole array or only prefetched; the loads and stores are those for any alignment.
impl Lanes for Avx2 {
    type V = V;
    type Eights = Avx2;
    const TILE_ROWS: usize = 3;
    const TILE_COLUMNS: usize = 2;

    #[inline(always)]
    fn eights(self) -> Avx2 {
        self
    }
    #[inline(always)]
    fn prefetch(self, at: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
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
            let low = _mm256_slli_epi32::<23>(_mm256_castps_si256(rounded[0]));
            let high = _mm256_slli_epi32::<23>(_mm256_castps_si256(rounded[1]));
            [
                _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(values[0]), low)),
                _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(values[1]), high)),
            ]
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
    fn four_sums(self, [a, b, c, d]: [V; 4]) -> [f32; 4] {
        unsafe {
            sums_of_eights([
                _mm256_add_ps(a[0], a[1]),
                _mm256_add_ps(b[0], b[1]),
                _mm256_add_ps(c[0], c[1]),
                _mm256_add_ps(d[0], d[1]),
            ])
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
            let low = _mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(at)));
            let high = _mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(at.add(1))));
            [_mm256_castsi256_ps(low), _mm256_castsi256_ps(high)]
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
