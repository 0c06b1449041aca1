//! Convolutions of each channel by itself, on the processor. The library would run one convolution for each channel.

use candle_core::{DType, Device, Result, Tensor};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{convolution::Rest, host::values, window::Window};
use crate::kernels::Epilogue;

/// A convolution of planes, one kernel for each channel.
struct Depthwise {
    strides: (usize, usize),
    dilations: (usize, usize),
    /// Widths of the padded input, and of the kernel.
    widths: (usize, usize),
    /// Width of the output.
    output: usize,
}

/// One channel of one row.
struct Plane<'a> {
    of: &'a Depthwise,
    input: &'a [f32],
    kernel: &'a [f32],
    epilogue: &'a Epilogue<'a>,
    channel: usize,
    /// Where it begins in the output.
    at: usize,
    sums: &'a mut Vec<f32>,
    output: &'a mut [f32],
}

/// Convolves each channel of `[rows, channels, height, width]`, which is padded already, with its own kernel of
/// `[channels, 1, height, width]`, and does the rest. None where there is no such kernel for the tensors' type and place.
pub(super) fn depthwise(padded: &Tensor, kernel: &Tensor, rest: &Rest<'_>, window: &Window) -> Option<Result<Tensor>> {
    let fits = padded.dtype() == DType::F32 && padded.device().is_cpu() && padded.rank() == 4;
    let single = kernel.dims().first() == padded.dims().get(1) && kernel.dims().get(1) == Some(&1);
    let pair = |values: &[usize]| (values[0], values[1]);
    let convolve = || {
        let (rows, channels, height, width) = padded.dims4()?;
        let (_, _, kernel_height, kernel_width) = kernel.dims4()?;
        let (output_height, output_width) = pair(&window.output);
        let of = Depthwise {
            strides: pair(&window.strides),
            dilations: pair(&window.dilations),
            widths: (width, kernel_width),
            output: output_width,
        };
        let (padded, kernel) = (padded.contiguous()?, kernel.contiguous()?);
        let (input, kernel) = (values(&padded)?, values(&kernel)?);
        let (input, kernel) = (&*input, &*kernel);
        let (plane, size) = (output_height * output_width, kernel_height * kernel_width);
        let mut output = vec![0.0; rows * channels * plane];
        rest.with_epilogue(|epilogue| {
            let arch = Arch::new();
            output.par_chunks_exact_mut(plane).enumerate().for_each_init(Vec::new, |sums, (index, output)| {
                let channel = index % channels;
                arch.dispatch(Plane {
                    of: &of,
                    input: &input[index * height * width..][..height * width],
                    kernel: &kernel[channel * size..][..size],
                    epilogue,
                    channel,
                    at: index * plane,
                    sums,
                    output,
                });
            });
            Ok(())
        })?;
        Tensor::from_vec(output, (rows, channels, output_height, output_width), &Device::Cpu)
    };
    (fits && single).then(convolve)
}

impl WithSimd for Plane<'_> {
    type Output = ();

    /// A multiple of a shifted input for each place of the kernel.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { of, input, kernel, epilogue, channel, at, sums, output } = self;
        // Whole vectors, which the epilogue works on.
        let lanes = size_of::<S::f32s>() / size_of::<f32>();
        sums.clear();
        sums.resize(output.len().next_multiple_of(lanes), 0.0);
        for (place, &weight) in kernel.iter().enumerate() {
            let (down, right) = (place / of.widths.1 * of.dilations.0, place % of.widths.1 * of.dilations.1);
            for (row, line) in sums[..output.len()].chunks_exact_mut(of.output).enumerate() {
                let from = &input[(row * of.strides.0 + down) * of.widths.0 + right..];
                match of.strides.1 {
                    1 => line.iter_mut().zip(from).for_each(|(sum, value)| *sum = weight.mul_add(*value, *sum)),
                    step => {
                        line.iter_mut().zip(from.iter().step_by(step)).for_each(|(sum, value)| *sum += weight * value)
                    }
                }
            }
        }
        epilogue.finish(simd, channel, sums, at, output);
    }
}
