//! Convolutions over one or two dimensions on the processor, on our own kernel.

use candle_core::{DType, Device, Result, Tensor};

use super::{convolution::Rest, host::values, window::Window};
use crate::kernels::{Axis, PlaneConvolution};

/// Convolves `[rows, channels, …]` with a kernel, and does the rest; what is in half precision is computed in f32. None for
/// more dimensions than two, for other types, and on other devices.
pub(super) fn planes(
    input: &Tensor,
    kernel: &Tensor,
    rest: &Rest<'_>,
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
    let convolve = || {
        let (input, kernel) = (wide(input)?, wide(kernel)?);
        let mut out = vec![0.0; dims.iter().product()];
        rest.with_epilogue(|epilogue| {
            convolution.forward(&values(&input)?, &values(&kernel)?, epilogue, &mut out);
            Ok(())
        })?;
        Tensor::from_vec(out, dims, &Device::Cpu)?.to_dtype(dtype)
    };
    Some(convolve())
}

/// In f32, one value beside the other.
pub(super) fn wide(tensor: &Tensor) -> Result<Tensor> {
    tensor.to_dtype(DType::F32)?.contiguous()
}
