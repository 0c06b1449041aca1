//! Convolutions over one or two dimensions on the processor, on our own kernel.

use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor};

use super::{host, window::Window};
use crate::kernels::{Axis, PlaneConvolution};

/// A convolution of checked shapes.
struct Planes {
    convolution: PlaneConvolution,
    bias: Option<Vec<f32>>,
    output: Shape,
}

/// Convolves `[rows, channels, …]` with a kernel and adds the bias; what is in half precision is computed in f32. None for more dimensions than
/// two, for other types, and on other devices.
pub(super) fn planes(
    input: &Tensor,
    kernel: &Tensor,
    bias: Option<&Tensor>,
    window: &Window,
    groups: usize,
) -> Option<Result<Tensor>> {
    let dtype = input.dtype();
    let fits = matches!(dtype, DType::F32 | DType::F16 | DType::BF16) && kernel.dtype() == dtype;
    if !fits || !input.device().is_cpu() || !(1..=2).contains(&window.output.len()) {
        return None;
    }
    let axis = |spatial: usize| Axis {
        input: input.dims()[2 + spatial],
        kernel: window.kernel[spatial],
        stride: window.strides[spatial],
        dilation: window.dilations[spatial],
        before: window.pads[spatial].0,
        output: window.output[spatial],
    };
    let (height, width) = match window.output.len() {
        1 => (Axis { input: 1, kernel: 1, stride: 1, dilation: 1, before: 0, output: 1 }, axis(0)),
        _ => (axis(0), axis(1)),
    };
    let (inputs, outputs) = (input.dims()[1], kernel.dims()[0]);
    let convolution = PlaneConvolution { inputs, outputs, groups, height, width };
    let dims: Vec<usize> = [input.dims()[0], outputs].into_iter().chain(window.output.iter().copied()).collect();
    let wide = |tensor: &Tensor| tensor.to_dtype(DType::F32)?.contiguous();
    let convolve = || {
        let bias = bias.map(|bias| wide(bias)?.to_vec1()).transpose()?;
        let op = Planes { convolution, bias, output: Shape::from(dims) };
        wide(input)?.apply_op2_no_bwd(&wide(kernel)?, &op)?.to_dtype(dtype)
    };
    Some(convolve())
}

impl CustomOp2 for Planes {
    fn name(&self) -> &'static str {
        "convolution of planes"
    }

    fn cpu_fwd(
        &self,
        input: &CpuStorage,
        input_layout: &Layout,
        kernel: &CpuStorage,
        kernel_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (input, kernel) = (host::floats(input, input_layout)?, host::floats(kernel, kernel_layout)?);
        let mut output = vec![0.0; self.output.elem_count()];
        self.convolution.forward(input, kernel, self.bias.as_deref(), &mut output);
        Ok((CpuStorage::F32(output), self.output.clone()))
    }
}
