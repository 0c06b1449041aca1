//! Products of bfloat16 values whose sums are f32, where the machine has an instruction for them (AVX512-BF16).

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::Bf16Dot;

/// The instructions; no other machine has them.
#[cfg(not(target_arch = "x86_64"))]
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bf16Dot {}

#[cfg(not(target_arch = "x86_64"))]
impl Bf16Dot {
    pub(crate) fn detect() -> Option<Self> {
        None
    }

    pub(super) fn multiply(self, _: &[half::bf16], _: usize, _: usize, _: &[half::bf16], _: &mut super::panels::Tile) {
        match self {}
    }

    pub(super) fn round(self, _: &[f32], _: &mut [half::bf16]) {
        match self {}
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use half::bf16;

    use crate::kernels::panels::{MOST_ROWS, MOST_WIDTH, Tile};

    /// Values of a vector.
    const LANES: usize = 16;

    /// The instructions. A value of it exists only where the machine has them.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Bf16Dot(());

    impl Bf16Dot {
        /// Where the machine has them.
        pub(crate) fn detect() -> Option<Self> {
            let has = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512bf16");
            has.then_some(Self(()))
        }

        /// `rows` rows of `left`, `stride` apart, times one panel, into `tile`. The panel holds pair after pair of
        /// inputs, of each pair [`MOST_WIDTH`] columns of two values.
        #[inline(always)]
        pub(in crate::kernels) fn multiply(
            self,
            left: &[bf16],
            stride: usize,
            rows: usize,
            panel: &[bf16],
            tile: &mut Tile,
        ) {
            macro_rules! by_rows {
                ($($rows:literal)*) => {
                    match rows {
                        // SAFETY: the value exists, so the machine has the instructions.
                        $($rows => unsafe { multiply_rows::<$rows>(left, stride, panel, tile) },)*
                        _ => {}
                    }
                };
            }
            by_rows!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);
        }

        /// Rounds to the nearest, ties to even; what is below the normal numbers may become 0.
        #[inline(always)]
        pub(in crate::kernels) fn round(self, from: &[f32], to: &mut [bf16]) {
            // SAFETY: the value exists, so the machine has the instructions.
            unsafe { round(from, to) }
        }
    }

    /// # Safety
    /// The machine has the instructions.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    unsafe fn multiply_rows<const ROWS: usize>(left: &[bf16], stride: usize, panel: &[bf16], tile: &mut Tile) {
        const { assert!(ROWS <= MOST_ROWS) };
        let (pairs, _) = panel.as_chunks::<{ 2 * MOST_WIDTH }>();
        assert!(left.len() >= (ROWS - 1) * stride + 2 * pairs.len(), "the rows lie inside the slice");
        let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
        for (step, pair) in pairs.iter().enumerate() {
            let at = pair.as_ptr().cast::<__m512i>();
            // SAFETY: a pair of each column is two vectors; any bits are bf16 values.
            let columns = unsafe {
                [_mm512_loadu_si512(at), _mm512_loadu_si512(at.add(1))].map(|v| std::mem::transmute::<_, __m512bh>(v))
            };
            let first = left.as_ptr().wrapping_add(2 * step).cast::<i32>();
            let mut row = 0;
            while row < ROWS {
                // SAFETY: two values of a row below ROWS, which the assertion covers.
                let value = unsafe {
                    let pair = first.byte_add(2 * stride * row).read_unaligned();
                    std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(pair))
                };
                sums[row][0] = _mm512_dpbf16_ps(sums[row][0], value, columns[0]);
                sums[row][1] = _mm512_dpbf16_ps(sums[row][1], value, columns[1]);
                row += 1;
            }
        }
        for (sum, out) in sums.iter().zip(tile.chunks_exact_mut(MOST_WIDTH)) {
            // SAFETY: a row of a tile is two vectors.
            unsafe {
                _mm512_storeu_ps(out.as_mut_ptr(), sum[0]);
                _mm512_storeu_ps(out.as_mut_ptr().add(LANES), sum[1]);
            }
        }
    }

    /// # Safety
    /// As [`multiply_rows`].
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    unsafe fn round(from: &[f32], to: &mut [bf16]) {
        let (vectors, rest) = from.as_chunks::<LANES>();
        let (to_vectors, to_rest) = to.as_chunks_mut::<LANES>();
        for (from, to) in vectors.iter().zip(to_vectors) {
            // SAFETY: sixteen values each; any bits are bf16 values.
            unsafe {
                let halves = _mm512_cvtneps_pbh(_mm512_loadu_ps(from.as_ptr()));
                to.as_mut_ptr().cast::<__m256bh>().write_unaligned(halves);
            }
        }
        rest.iter().zip(to_rest).for_each(|(from, to)| *to = bf16::from_f32(*from));
    }
}
