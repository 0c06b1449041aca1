//! Pools: one value for each window, or for all positions of a channel.

use candle_core::{D, Tensor};

use super::{
    super::fault::{Outcome, refused},
    call::{Call, wide},
    window::Window,
};

/// Checks the input and reads the window over it.
fn window(call: &Call<'_>) -> Outcome<(Tensor, Window)> {
    let input = call.float(0)?;
    let sizes = call.attributes().ints("kernel_shape")?.ok_or_else(|| refused!("kernel_shape is missing"))?;
    let kernel: Vec<usize> = sizes.iter().map(|&size| usize::try_from(size).unwrap_or(0)).collect();
    if input.rank() < 3 {
        return Err(refused!("its input has shape {:?}, it must have 3 dimensions or more", input.dims()));
    }
    let window = Window::read(call.attributes(), &input.dims()[2..], &kernel)?;
    call.fits(&window.padded(input.dims()), input.dtype())?;
    call.fits(&pooled_dims(input, &window), input.dtype())?;
    Ok((input.clone(), window))
}

fn pooled_dims(input: &Tensor, window: &Window) -> Vec<usize> {
    input.dims()[..2].iter().chain(&window.output).copied().collect()
}

/// The library's kernel for planes, of such windows at such strides.
type Planes = fn(&Tensor, (usize, usize), (usize, usize)) -> candle_core::Result<Tensor>;

/// One number for each window of the padded input, by the library's kernel for planes or from the windows themselves.
fn pool(
    call: &Call<'_>,
    padded: &Tensor,
    window: &Window,
    planes: Planes,
    windows: fn(&Tensor) -> candle_core::Result<Tensor>,
) -> Outcome<Tensor> {
    let dims = pooled_dims(padded, window);
    if dims.contains(&0) || padded.elem_count() == 0 {
        return Ok(Tensor::zeros(dims, padded.dtype(), padded.device())?);
    }
    let dense = window.dilations.iter().all(|&dilation| dilation == 1);
    Ok(match (window.kernel.as_slice(), window.strides.as_slice()) {
        (&[kernel], &[stride]) if dense => planes(&padded.unsqueeze(2)?.contiguous()?, (1, kernel), (1, stride))?,
        (&[height, width], &[down, right]) if dense => planes(&padded.contiguous()?, (height, width), (down, right))?,
        _ => {
            let positions: usize = window.output.iter().product();
            call.fits(&[padded.dims()[0], padded.dims()[1], window.elements(), positions], padded.dtype())?;
            windows(&window.columns(padded)?)?
        }
    }
    .reshape(dims)?)
}

pub(super) fn max_pool(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let (input, window) = window(call)?;
    let padded = window.pad(&input, f64::NEG_INFINITY)?;
    let planes = |x: &Tensor, kernel, stride| x.max_pool2d_with_stride(kernel, stride);
    Ok(vec![pool(call, &padded, &window, planes, |columns| columns.max(2))?])
}

pub(super) fn average_pool(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let (input, window) = window(call)?;
    let padded = window.pad(&input, 0.0)?;
    let planes = |x: &Tensor, kernel, stride| x.avg_pool2d_with_stride(kernel, stride);
    let means = pool(call, &padded, &window, planes, |columns| columns.mean(2))?;
    if window.pads.iter().all(|pads| *pads == (0, 0)) {
        return Ok(vec![means]);
    }
    // The mean over whole windows, made one over the elements that count.
    let counts_pads = call.attributes().flag("count_include_pad", false)?;
    let mut means = means;
    for (axis, &size) in input.dims()[2..].iter().enumerate() {
        let shares = shares(&window, axis, size, counts_pads);
        let mut shape = vec![1; means.rank()];
        shape[axis + 2] = shares.len();
        let shares = Tensor::from_vec(shares, shape, means.device())?.to_dtype(means.dtype())?;
        means = means.broadcast_mul(&shares)?;
    }
    Ok(vec![means])
}

/// For each position along one dimension, a window's elements over those of them that count.
fn shares(window: &Window, axis: usize, size: usize, counts_pads: bool) -> Vec<f32> {
    let (before, after) = window.pads[axis];
    let end = before + size + if counts_pads { after - window.ceiling[axis] } else { 0 };
    let counted = if counts_pads { 0..end } else { before..end };
    let share = |position: usize| {
        let places = (0..window.kernel[axis]).map(|at| position * window.strides[axis] + at * window.dilations[axis]);
        let count = places.filter(|place| counted.contains(place)).count();
        window.kernel[axis] as f32 / count.max(1) as f32
    };
    (0..window.output[axis]).map(share).collect()
}

/// The input with all positions of a channel in one dimension, and the shape of one value for each channel.
fn channels(call: &Call<'_>) -> Outcome<(Tensor, Vec<usize>)> {
    let input = call.float(0)?;
    if input.rank() < 3 || input.elem_count() == 0 {
        return Err(refused!("its input has shape {:?}, it must have 3 dimensions or more", input.dims()));
    }
    let mut dims = input.dims().to_vec();
    dims[2..].fill(1);
    Ok((input.flatten_from(2)?, dims))
}

pub(super) fn global_max_pool(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let (positions, dims) = channels(call)?;
    Ok(vec![positions.max(D::Minus1)?.reshape(dims)?])
}

pub(super) fn global_average_pool(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let (positions, dims) = channels(call)?;
    let dtype = positions.dtype();
    Ok(vec![wide(&positions)?.mean(D::Minus1)?.reshape(dims)?.to_dtype(dtype)?])
}

/// Inside a tensor of images `[rows, channels · block², height, width]`, blocks of channels become planes.
pub(super) fn depth_to_space(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let (input, block) = (call.input(0)?, block(call)?);
    let (rows, depth, height, width) = four(input)?;
    let channels = depth / (block * block);
    if depth % (block * block) != 0 {
        return Err(refused!("{depth} channels do not divide into blocks of {block}"));
    }
    let (split, order) = match call.attributes().text("mode", "DCR")? {
        "DCR" => ([rows, block, block, channels, height, width], [0, 3, 4, 1, 5, 2]),
        "CRD" => ([rows, channels, block, block, height, width], [0, 1, 4, 2, 5, 3]),
        other => return Err(refused!("mode is '{other}', it must be DCR or CRD")),
    };
    let moved = input.reshape(split.as_slice())?.permute(order.as_slice())?;
    Ok(vec![moved.reshape((rows, channels, height * block, width * block))?])
}

pub(super) fn space_to_depth(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let (input, block) = (call.input(0)?, block(call)?);
    let (rows, channels, height, width) = four(input)?;
    if height % block != 0 || width % block != 0 {
        return Err(refused!("{height} × {width} does not divide into blocks of {block}"));
    }
    let split = [rows, channels, height / block, block, width / block, block];
    let moved = input.reshape(split.as_slice())?.permute([0, 3, 5, 1, 2, 4].as_slice())?;
    Ok(vec![moved.reshape((rows, channels * block * block, height / block, width / block))?])
}

fn block(call: &Call<'_>) -> Outcome<usize> {
    let block = call.attributes().int("blocksize", 0)?;
    usize::try_from(block)
        .ok()
        .filter(|block| (1..=1 << 16).contains(block))
        .ok_or_else(|| refused!("blocksize is {block}, it must be 1 to {}", 1 << 16))
}

fn four(input: &Tensor) -> Outcome<(usize, usize, usize, usize)> {
    input.dims4().map_err(|_| refused!("its input has shape {:?}, it must have 4 dimensions", input.dims()))
}

/// Refuses what a pool would have to give beside its values.
pub(super) fn refuse_indices(node: &super::super::graph::Node) -> Result<(), String> {
    match node.outputs.iter().skip(1).any(Option::is_some) {
        false => Ok(()),
        true => Err("its output Indices is not served".into()),
    }
}
