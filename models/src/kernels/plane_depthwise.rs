//! A convolution over planes where each channel sees itself alone: a multiple of a shifted plane for each place of the kernel.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{epilogue::Epilogue, plane_convolution::PlaneConvolution};

impl PlaneConvolution {
    pub(super) fn is_depthwise(&self) -> bool {
        self.inputs == self.groups && self.outputs == self.groups
    }

    /// [`forward`](PlaneConvolution::forward) of such a one.
    pub(super) fn depthwise(&self, x: &[f32], weight: &[f32], epilogue: &Epilogue<'_>, out: &mut [f32]) {
        let (plane, pixels) = (self.height.input * self.width.input, self.height.output * self.width.output);
        let (area, arch) = (self.height.kernel * self.width.kernel, Arch::new());
        out.par_chunks_exact_mut(pixels).enumerate().for_each_init(Vec::new, |sums, (index, out)| {
            let channel = index % self.outputs;
            arch.dispatch(Plane {
                convolution: self,
                x: &x[index * plane..][..plane],
                weight: &weight[channel * area..][..area],
                epilogue,
                channel,
                at: index * pixels,
                sums,
                out,
            });
        });
    }
}

/// One channel of one row.
struct Plane<'a> {
    convolution: &'a PlaneConvolution,
    x: &'a [f32],
    weight: &'a [f32],
    epilogue: &'a Epilogue<'a>,
    channel: usize,
    /// Where it begins in the output.
    at: usize,
    /// Room for its sums.
    sums: &'a mut Vec<f32>,
    out: &'a mut [f32],
}

impl WithSimd for Plane<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { convolution: PlaneConvolution { height, width, .. }, x, weight, sums, out, .. } = self;
        // Whole vectors, which the epilogue works on.
        sums.clear();
        sums.resize(out.len().next_multiple_of(S::F32_LANES), 0.0);
        for (place, &weight) in weight.iter().enumerate() {
            let (down, right) = (place / width.kernel, place % width.kernel);
            let (from, to, start) = width.inside(right, 0, width.output);
            for (row, line) in sums[..out.len()].chunks_exact_mut(width.output).enumerate() {
                let (above, below, top) = height.inside(down, row, 1);
                if (above, below) != (0, 1) || from >= to {
                    continue;
                }
                let (sums, values) = (&mut line[from..to], &x[top * width.input + start..]);
                match width.stride {
                    1 => sums.iter_mut().zip(values).for_each(|(sum, value)| *sum = weight.mul_add(*value, *sum)),
                    step => sums
                        .iter_mut()
                        .zip(values.iter().step_by(step))
                        .for_each(|(sum, value)| *sum = weight.mul_add(*value, *sum)),
                }
            }
        }
        self.epilogue.finish(simd, self.channel, sums, self.at, out);
    }
}
