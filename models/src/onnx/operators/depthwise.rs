//! Convolutions of each channel by itself, on the processor. The library would run one convolution for each channel.

use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{host, window::Window};

/// A convolution of planes, one kernel for each channel.
struct Depthwise {
    strides: (usize, usize),
    dilations: (usize, usize),
    /// Height and width of the output.
    output: (usize, usize),
}

/// Convolves each channel of `[rows, channels, height, width]`, which is padded already, with its own kernel of
/// `[channels, 1, height, width]`. None where there is no such kernel for the tensors' type and place.
pub(super) fn depthwise(padded: &Tensor, kernel: &Tensor, window: &Window) -> Option<Result<Tensor>> {
    let fits = padded.dtype() == DType::F32 && padded.device().is_cpu() && padded.rank() == 4;
    let single = kernel.dims().first() == padded.dims().get(1) && kernel.dims().get(1) == Some(&1);
    let pair = |values: &[usize]| (values[0], values[1]);
    (fits && single).then(|| {
        let op = Depthwise {
            strides: pair(&window.strides),
            dilations: pair(&window.dilations),
            output: pair(&window.output),
        };
        padded.contiguous()?.apply_op2_no_bwd(&kernel.contiguous()?, &op)
    })
}

impl Depthwise {
    /// One plane: a multiple of a shifted input for each place of the kernel.
    fn plane(&self, input: &[f32], width: usize, kernel: &[f32], kernel_width: usize, output: &mut [f32]) {
        for (place, &weight) in kernel.iter().enumerate() {
            let (down, right) = (place / kernel_width * self.dilations.0, place % kernel_width * self.dilations.1);
            for (row, line) in output.chunks_exact_mut(self.output.1).enumerate() {
                let from = &input[(row * self.strides.0 + down) * width + right..];
                match self.strides.1 {
                    1 => line.iter_mut().zip(from).for_each(|(sum, value)| *sum += weight * value),
                    step => {
                        line.iter_mut().zip(from.iter().step_by(step)).for_each(|(sum, value)| *sum += weight * value)
                    }
                }
            }
        }
    }
}

impl CustomOp2 for Depthwise {
    fn name(&self) -> &'static str {
        "depthwise convolution"
    }

    fn cpu_fwd(
        &self,
        input: &CpuStorage,
        input_layout: &Layout,
        kernel: &CpuStorage,
        kernel_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, channels, height, width) = input_layout.shape().dims4()?;
        let (_, _, kernel_height, kernel_width) = kernel_layout.shape().dims4()?;
        let (input, kernel) = (host::floats(input, input_layout)?, host::floats(kernel, kernel_layout)?);
        let (plane, size) = (self.output.0 * self.output.1, kernel_height * kernel_width);
        let mut output = vec![0.0; rows * channels * plane];
        output.par_chunks_exact_mut(plane).enumerate().for_each(|(index, output)| {
            let kernel = &kernel[index % channels * size..][..size];
            self.plane(&input[index * height * width..][..height * width], width, kernel, kernel_width, output);
        });
        let shape = Shape::from((rows, channels, self.output.0, self.output.1));
        Ok((CpuStorage::F32(output), shape))
    }
}
