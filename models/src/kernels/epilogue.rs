//! What is done with the sums of a convolution over planes while they are at hand.

use pulp::Simd;

use super::convolution::Limits;

/// `limits(sums + bias + added)`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Epilogue<'a> {
    /// One for each channel.
    pub(crate) bias: Option<&'a [f32]>,
    /// In the shape of the output.
    pub(crate) added: Option<&'a [f32]>,
    pub(crate) limits: Limits,
}

impl Epilogue<'_> {
    /// Of a channel's sums, which are written to some pixels from `at` on in the output; there are whole vectors of sums, and
    /// maybe fewer pixels.
    #[inline(always)]
    pub(super) fn finish<S: Simd>(&self, simd: S, channel: usize, sums: &mut [f32], at: usize, out: &mut [f32]) {
        if let Some(bias) = self.bias {
            let bias = simd.splat_f32s(bias[channel]);
            S::as_mut_simd_f32s(sums).0.iter_mut().for_each(|sum| *sum = simd.add_f32s(*sum, bias));
        }
        if let Some(added) = self.added {
            let added = &added[at..][..out.len()];
            let ((sums, rest), (added, added_rest)) =
                (S::as_mut_simd_f32s(&mut sums[..out.len()]), S::as_simd_f32s(added));
            sums.iter_mut().zip(added).for_each(|(sum, added)| *sum = simd.add_f32s(*sum, *added));
            rest.iter_mut().zip(added_rest).for_each(|(sum, added)| *sum += added);
        }
        if self.limits != Limits::NONE {
            let (least, most) = (simd.splat_f32s(self.limits.0), simd.splat_f32s(self.limits.1));
            let (sums, _) = S::as_mut_simd_f32s(sums);
            // In this order what is no number stays none.
            sums.iter_mut().for_each(|sum| *sum = simd.min_f32s(most, simd.max_f32s(least, *sum)));
        }
        out.copy_from_slice(&sums[..out.len()]);
    }
}
