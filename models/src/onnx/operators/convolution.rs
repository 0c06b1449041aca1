//! Convolutions over any number of spatial dimensions, and their transposes.

use candle_core::{Result, Tensor};

use super::{
    super::{
        attributes::Attributes,
        fault::{Outcome, refused},
    },
    call::Call,
    host::values,
    pad::constant_pad,
    planes::{planes, wide},
    product::product,
    window::{Window, pads, positive},
};
use crate::kernels::{Epilogue, Limits};

/// The input that is added to a convolution's sums.
pub(in crate::onnx) const ADDED: usize = 3;

/// Checked shapes of a convolution.
struct Shapes {
    groups: usize,
    /// Output channels.
    channels: usize,
}

fn shapes(call: &Call<'_>, input: &Tensor, kernel: &Tensor) -> Outcome<Shapes> {
    let groups = usize::try_from(call.attributes().int("group", 1)?).unwrap_or(0);
    let (input, kernel) = (input.dims(), kernel.dims());
    if input.len() < 3 || kernel.len() != input.len() {
        return Err(refused!("input {input:?} and kernel {kernel:?} must have the same 3 dimensions or more"));
    }
    if let Some(declared) = call.attributes().ints("kernel_shape")?
        && !declared.iter().copied().eq(kernel[2..].iter().map(|&size| size as i64))
    {
        return Err(refused!("kernel_shape is {declared:?}, the kernel has shape {kernel:?}"));
    }
    Ok(Shapes { groups, channels: kernel[0] })
}

pub(super) fn convolution(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let (input, kernel) = (call.float(0)?, call.float(1)?);
    let Shapes { groups, channels } = shapes(call, input, kernel)?;
    let inner = kernel.dims()[1];
    if groups == 0 || inner.checked_mul(groups) != Some(input.dims()[1]) || channels % groups != 0 {
        let (input, kernel) = (input.dims(), kernel.dims());
        return Err(refused!("input {input:?} and kernel {kernel:?} do not fit {groups} groups"));
    }
    let window = Window::read(call.attributes(), &input.dims()[2..], &kernel.dims()[2..])?;
    Ok(vec![slide(call, input, kernel, &window, groups)?])
}

/// What is done with the sums of a convolution.
#[derive(Clone, Copy)]
pub(super) struct Rest<'a> {
    /// One for each channel.
    bias: Option<&'a Tensor>,
    added: Option<&'a Tensor>,
    limits: Limits,
}

impl<'a> Rest<'a> {
    /// Of a convolution of this input with so many output channels.
    fn read(call: &Call<'a>, input: &Tensor, channels: usize) -> Outcome<Self> {
        let (bias, fused) = (call.optional(2), &call.node.fused);
        if let Some(bias) = bias
            && (bias.dims() != [channels] || bias.dtype() != input.dtype())
        {
            let (dims, dtype, wanted) = (bias.dims(), bias.dtype().as_str(), input.dtype().as_str());
            return Err(refused!("its bias has shape {dims:?} of {dtype}, it must be [{channels}] of {wanted}"));
        }
        let added = if fused.adds { Some(call.input(ADDED)?) } else { None };
        Ok(Self { bias, added, limits: fused.limits })
    }

    /// Whether it can be done where the sums are, as long as they are of this shape and type.
    fn fits(&self, dims: &[usize], input: &Tensor) -> bool {
        let like = |added: &Tensor| added.dims() == dims && added.dtype() == input.dtype() && added.device().is_cpu();
        self.added.is_none_or(like)
    }

    /// Calls a kernel that does it where the sums are.
    pub(super) fn with_epilogue(&self, run: impl FnOnce(&Epilogue<'_>) -> Result<()>) -> Result<()> {
        let (bias, added) = (self.bias.map(wide).transpose()?, self.added.map(wide).transpose()?);
        let (bias, added) = (bias.as_ref().map(values).transpose()?, added.as_ref().map(values).transpose()?);
        run(&Epilogue { bias: bias.as_deref(), added: added.as_deref(), limits: self.limits })
    }

    /// Does it with sums of any shape, on any device.
    fn apply(&self, call: &Call<'_>, mut sums: Tensor) -> Outcome<Tensor> {
        if let Some(bias) = self.bias {
            let mut shape = vec![1; sums.rank()];
            shape[1] = bias.dims()[0];
            sums = sums.broadcast_add(&bias.reshape(shape)?)?;
        }
        if let Some(added) = self.added {
            let (left, right, _) = call.broadcast(&sums, added)?;
            sums = left.broadcast_add(&right)?;
        }
        let Limits(least, most) = self.limits;
        if least > f32::NEG_INFINITY {
            sums = sums.maximum(f64::from(least))?;
        }
        Ok(if most < f32::INFINITY { sums.minimum(f64::from(most))? } else { sums })
    }
}

/// The convolution of shapes that fit, with what follows.
fn slide(call: &Call<'_>, input: &Tensor, kernel: &Tensor, window: &Window, groups: usize) -> Outcome<Tensor> {
    let (rows, channels) = (input.dims()[0], kernel.dims()[0]);
    let rest = Rest::read(call, input, channels)?;
    let dims: Vec<usize> = [rows, channels].into_iter().chain(window.output.iter().copied()).collect();
    call.fits(&dims, input.dtype())?;
    call.fits(&window.padded(input.dims()), input.dtype())?;
    if dims.contains(&0) || input.elem_count() == 0 {
        return rest.apply(call, Tensor::zeros(dims, input.dtype(), input.device())?);
    }
    let fits = rest.fits(&dims, input);
    // What does not fit is done with the sums of the same kernels.
    let near = if fits { rest } else { Rest { added: None, limits: Limits::NONE, ..rest } };
    let finish = |sums: Tensor| if fits { Ok(sums) } else { Rest { bias: None, ..rest }.apply(call, sums) };
    if let Some(convolved) = planes(input, kernel, &near, window, groups) {
        return finish(convolved?);
    }
    rest.apply(call, general(call, &window.pad(input, 0.0)?, kernel, window, groups)?)
}

/// As a product of matrices, over any number of dimensions and on any device.
fn general(call: &Call<'_>, padded: &Tensor, kernel: &Tensor, window: &Window, groups: usize) -> Outcome<Tensor> {
    let (rows, channels, inner) = (padded.dims()[0], kernel.dims()[0], kernel.dims()[1]);
    let positions: usize = window.output.iter().product();
    call.fits(&[rows, padded.dims()[1], window.elements(), positions], padded.dtype())?;
    let columns = window.columns(padded)?.reshape((rows, groups, inner * window.elements(), positions))?;
    let kernel = kernel.reshape((1, groups, channels / groups, inner * window.elements()))?;
    let dims: Vec<usize> = [rows, channels].into_iter().chain(window.output.iter().copied()).collect();
    Ok(product(call, &kernel, &columns)?.reshape(dims)?)
}

/// The transpose of a convolution: a convolution of the input with zeros between its elements.
pub(super) fn transposed(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let (input, kernel) = (call.float(0)?, call.float(1)?);
    let Shapes { groups, .. } = shapes(call, input, kernel)?;
    let (inner, outer) = (kernel.dims()[0], kernel.dims()[1]);
    if groups == 0 || inner != input.dims()[1] || inner % groups != 0 {
        let (input, kernel) = (input.dims(), kernel.dims());
        return Err(refused!("input {input:?} and kernel {kernel:?} do not fit {groups} groups"));
    }
    let plan = Transposed::read(call.attributes(), &input.dims()[2..], &kernel.dims()[2..])?;
    let channels = outer.checked_mul(groups).ok_or_else(|| refused!("its kernel has too many channels"))?;
    let dims: Vec<usize> = [input.dims()[0], channels].into_iter().chain(plan.output.iter().copied()).collect();
    call.fits(&dims, input.dtype())?;
    if input.elem_count() == 0 || dims.contains(&0) {
        return Ok(vec![Tensor::zeros(dims, input.dtype(), input.device())?]);
    }
    let mut spread = input.clone();
    for axis in 0..plan.output.len() {
        spread = plan.spread(call, &spread, axis)?;
    }
    let spatial = kernel.dims()[2..].to_vec();
    // [groups, inner / groups, outer, …] to [groups · outer, inner / groups, …], each window turned around.
    let split = [&[groups, inner / groups, outer][..], &spatial].concat();
    let joined = [&[channels, inner / groups][..], &spatial].concat();
    let turned = kernel.reshape(split)?.transpose(1, 2)?.reshape(joined)?;
    let turned = turned.flip(&(2..turned.rank()).collect::<Vec<_>>())?;
    let window = Window {
        kernel: spatial,
        strides: vec![1; plan.output.len()],
        dilations: plan.dilations,
        pads: vec![(0, 0); plan.output.len()],
        ceiling: vec![0; plan.output.len()],
        output: plan.output,
    };
    Ok(vec![slide(call, &spread, &turned, &window, groups)?])
}

/// Where the elements of a transposed convolution's input go.
pub(in crate::onnx) struct Transposed {
    strides: Vec<usize>,
    dilations: Vec<usize>,
    /// Zeros before and after each dimension, once there are zeros between its elements; fewer than none cut off.
    pads: Vec<(i64, i64)>,
    pub(in crate::onnx) output: Vec<usize>,
}

impl Transposed {
    /// From a node's attributes.
    pub(in crate::onnx) fn read(attributes: &Attributes, input: &[usize], kernel: &[usize]) -> Outcome<Self> {
        let count = input.len();
        let (strides, dilations) = (positive(attributes, "strides", count)?, positive(attributes, "dilations", count)?);
        let given = pads(attributes, count)?;
        let automatic = attributes.text("auto_pad", "NOTSET")?;
        let extra = attributes.ints("output_padding")?.cloned().unwrap_or_else(|| vec![0; count]);
        let wanted = attributes.ints("output_shape")?;
        let mut plan = Self { strides, dilations, pads: Vec::new(), output: Vec::new() };
        for (axis, given) in given.into_iter().enumerate() {
            let size =
                |value: Option<&usize>| value.and_then(|&value| i64::try_from(value).ok()).filter(|v| *v < 1 << 40);
            let (stride, dilation) = (plan.strides[axis] as i64, plan.dilations[axis] as i64);
            let sizes = size(input.get(axis)).zip(size(kernel.get(axis)).filter(|size| (1..1 << 20).contains(size)));
            let extra = extra.get(axis).copied().filter(|extra| (0..1 << 20).contains(extra));
            let ((input, kernel), extra) =
                sizes.zip(extra).ok_or_else(|| refused!("its kernel or output_padding does not fit"))?;
            let reach = (kernel - 1) * dilation + 1;
            // Without pads.
            let whole = stride * (input - 1).max(0) + reach + extra;
            let (before, after) = match (wanted, automatic) {
                (Some(wanted), _) => {
                    // The shape may be given with rows and channels.
                    let output = wanted.get(wanted.len().saturating_sub(count) + axis).copied().unwrap_or(-1);
                    match whole.saturating_sub(output) {
                        // A part of a stride more ends in zeros.
                        beyond @ ..0 if -beyond < stride => (0, beyond),
                        ..0 => return Err(refused!("its output_shape {output} is more than the {whole} of its input")),
                        total => share(total, automatic),
                    }
                }
                (None, "NOTSET") => (given.0 as i64, given.1 as i64),
                (None, "VALID") => (0, 0),
                (None, "SAME_UPPER" | "SAME_LOWER") => share((whole - input * stride).max(0), automatic),
                (None, other) => return Err(refused!("auto_pad is '{other}', which is unknown")),
            };
            let output = usize::try_from(whole - before - after).ok().filter(|output| *output > 0 || input == 0);
            plan.output.push(output.ok_or_else(|| refused!("its pads leave nothing of {whole}"))?);
            plan.pads.push((reach - 1 - before, reach - 1 - after + extra));
        }
        Ok(plan)
    }

    /// The input with zeros between, before and after the elements of one spatial dimension.
    fn spread(&self, call: &Call<'_>, input: &Tensor, spatial: usize) -> Outcome<Tensor> {
        let (axis, stride) = (spatial + 2, self.strides[spatial]);
        let mut input = input.clone();
        if stride > 1 {
            let (dims, size) = (input.dims().to_vec(), input.dims()[axis]);
            let mut gaps = dims.clone();
            gaps.insert(axis + 1, stride - 1);
            let mut joined = dims;
            joined[axis] = size * stride;
            call.fits(&joined, input.dtype())?;
            let zeros = Tensor::zeros(gaps, input.dtype(), input.device())?;
            let between = Tensor::cat(&[input.unsqueeze(axis + 1)?, zeros], axis + 1)?;
            input = between.reshape(joined)?.narrow(axis, 0, (size - 1) * stride + 1)?;
        }
        let (before, after) = self.pads[spatial];
        let mut padded = input.dims().to_vec();
        padded[axis] = padded[axis].saturating_add((before.max(0) + after.max(0)) as usize);
        call.fits(&padded, input.dtype())?;
        constant_pad(&input, axis, before, after, 0.0)
    }
}

/// Pads before and after of so many in all.
fn share(total: i64, automatic: &str) -> (i64, i64) {
    let less = total / 2;
    if automatic == "SAME_UPPER" { (less, total - less) } else { (total - less, less) }
}
