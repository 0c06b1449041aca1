//! Normalisations, and soft-max. In half precision they are computed in f32.

use candle_core::{D, DType, Tensor};

use super::{
    super::fault::{Outcome, refused},
    call::{Call, axis as axis_of, wide},
};
use crate::kernels::Norm;

/// A tensor of one value for each channel, in a shape that broadcasts over `[rows, channels, …]`.
fn by_channel(values: &Tensor, input: &Tensor) -> Outcome<Tensor> {
    let channels = input.dims().get(1).copied().unwrap_or(1);
    if values.dims() != [channels] {
        return Err(refused!("one of its inputs has shape {:?}, it must be [{channels}]", values.dims()));
    }
    let mut shape = vec![1; input.rank()];
    shape[input.rank().min(2) - 1] = channels;
    Ok(wide(values)?.reshape(shape)?)
}

pub(super) fn batch(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let input = call.float(0)?;
    if call.attributes().flag("training_mode", false)? {
        return Err(refused!("training_mode is set, only inference is served"));
    }
    if input.rank() < 2 {
        return Err(refused!("its input has shape {:?}, it must have 2 dimensions or more", input.dims()));
    }
    let part = |index| by_channel(call.float(index)?, input);
    let (scale, offset, mean, variance) = (part(1)?, part(2)?, part(3)?, part(4)?);
    let epsilon = f64::from(call.attributes().float("epsilon", 1e-5)?);
    let scale = scale.div(&(variance + epsilon)?.sqrt()?)?;
    let offset = (offset - mean.mul(&scale)?)?;
    Ok(vec![wide(input)?.broadcast_mul(&scale)?.broadcast_add(&offset)?.to_dtype(input.dtype())?])
}

/// `x` with mean 0 and variance 1 over its last dimension; its mean and the inverse of its deviation.
fn standardised(x: &Tensor, epsilon: f64) -> candle_core::Result<[Tensor; 3]> {
    let mean = x.mean_keepdim(D::Minus1)?;
    let centred = x.broadcast_sub(&mean)?;
    let inverse = (centred.sqr()?.mean_keepdim(D::Minus1)? + epsilon)?.sqrt()?.recip()?;
    Ok([centred.broadcast_mul(&inverse)?, mean, inverse])
}

/// Groups of channels of `[rows, channels, …]` are standardised; one group for each channel where none are given.
fn grouped(call: &Call<'_>, input: &Tensor, groups: usize) -> Outcome<Tensor> {
    let (rows, channels) = (input.dims()[0], input.dims()[1]);
    if groups == 0 || channels % groups != 0 || input.elem_count() == 0 {
        return Err(refused!("its input has shape {:?}, which does not fit {groups} groups", input.dims()));
    }
    let epsilon = call.attributes().float("epsilon", 1e-5)?.into();
    let flat = wide(input)?.reshape((rows, groups, input.elem_count() / rows / groups))?;
    let [values, ..] = standardised(&flat, epsilon)?;
    Ok(values.reshape(input.shape())?)
}

fn with_channels<'a>(call: &Call<'a>) -> Outcome<&'a Tensor> {
    let input = call.float(0)?;
    match input.rank() >= 2 {
        true => Ok(input),
        false => Err(refused!("its input has shape {:?}, it must have 2 dimensions or more", input.dims())),
    }
}

pub(super) fn instance(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let input = with_channels(call)?;
    let (scale, offset) = (by_channel(call.float(1)?, input)?, by_channel(call.float(2)?, input)?);
    let values = grouped(call, input, input.dims()[1])?;
    Ok(vec![values.broadcast_mul(&scale)?.broadcast_add(&offset)?.to_dtype(input.dtype())?])
}

/// Scale and offset are one for each group up to version 20, one for each channel from 21 on.
pub(super) fn group(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let input = with_channels(call)?;
    let groups = usize::try_from(call.attributes().int("num_groups", 0)?).unwrap_or(0);
    let values = grouped(call, input, groups)?;
    let channels = input.dims()[1];
    let part = |index| -> Outcome<Tensor> {
        let values = call.float(index)?;
        let spread = match values.dims() {
            [count] if *count == groups && groups != channels => {
                values.unsqueeze(1)?.broadcast_as((groups, channels / groups))?.flatten_all()?
            }
            _ => values.clone(),
        };
        by_channel(&spread, input)
    };
    Ok(vec![values.broadcast_mul(&part(1)?)?.broadcast_add(&part(2)?)?.to_dtype(input.dtype())?])
}

/// Over all dimensions from `axis` on.
pub(super) fn layer(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let input = call.float(0)?;
    let axis = axis_of(call.attributes().int("axis", -1)?, input.rank())?;
    let (outer, inner) = input.dims().split_at(axis);
    if input.elem_count() == 0 {
        return Err(refused!("its input has shape {:?}, it must have elements", input.dims()));
    }
    if let Some(values) = normalised_rows(call, input, inner)? {
        return Ok(vec![values]);
    }
    let flat = wide(input)?.reshape((outer.iter().product::<usize>(), inner.iter().product::<usize>()))?;
    let [values, mean, inverse] = standardised(&flat, call.attributes().float("epsilon", 1e-5)?.into())?;
    let values = values.reshape(input.shape())?;
    let scaled = values.broadcast_mul(&fitting(call, 1, input)?)?;
    let shifted = match call.optional(2) {
        Some(_) => scaled.broadcast_add(&fitting(call, 2, input)?)?,
        None => scaled,
    };
    let statistics: Vec<usize> = outer.iter().copied().chain(inner.iter().map(|_| 1)).collect();
    let statistics = |tensor: Tensor| tensor.reshape(statistics.as_slice());
    Ok(vec![shifted.to_dtype(input.dtype())?, statistics(mean)?, statistics(inverse)?])
}

/// Rows of whole vectors on the processor, where nobody wants their statistics.
fn normalised_rows(call: &Call<'_>, input: &Tensor, inner: &[usize]) -> Outcome<Option<Tensor>> {
    let fits = input.dtype() == DType::F32 && input.device().is_cpu() && !call.wants(1) && !call.wants(2);
    let (weight, bias) = (call.float(1)?, call.optional(2));
    let like = |tensor: &Tensor| tensor.dims() == inner && tensor.dtype() == DType::F32;
    let [width] = inner else { return Ok(None) };
    if !fits || !width.is_multiple_of(16) || !like(weight) || !bias.is_none_or(like) {
        return Ok(None);
    }
    let norm = Norm {
        weight: weight.to_vec1()?,
        bias: bias.map_or_else(|| Ok(vec![0.0; *width]), Tensor::to_vec1)?,
        epsilon: call.attributes().float("epsilon", 1e-5)?,
    };
    let mut values = input.flatten_all()?.to_vec1()?;
    norm.rows(&mut values);
    Ok(Some(Tensor::from_vec(values, input.shape(), input.device())?))
}

/// By the root of the mean of squares, over all dimensions from `axis` on.
pub(super) fn root_mean_square(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let input = call.float(0)?;
    let axis = axis_of(call.attributes().int("axis", -1)?, input.rank())?;
    let inner: usize = input.dims()[axis..].iter().product();
    if input.elem_count() == 0 {
        return Err(refused!("its input has shape {:?}, it must have elements", input.dims()));
    }
    let flat = wide(input)?.reshape((input.elem_count() / inner, inner))?;
    let epsilon = f64::from(call.attributes().float("epsilon", 1e-5)?);
    let inverse = (flat.sqr()?.mean_keepdim(D::Minus1)? + epsilon)?.sqrt()?.recip()?;
    let values = flat.broadcast_mul(&inverse)?.reshape(input.shape())?;
    Ok(vec![values.broadcast_mul(&fitting(call, 1, input)?)?.to_dtype(input.dtype())?])
}

/// A scale or an offset that broadcasts to the input's own shape.
fn fitting(call: &Call<'_>, index: usize, input: &Tensor) -> Outcome<Tensor> {
    let values = call.float(index)?;
    match super::call::broadcast_dims(values.dims(), input.dims())? == input.dims() {
        true => wide(values),
        false => Err(refused!("its input {index} of shape {:?} does not fit {:?}", values.dims(), input.dims())),
    }
}

/// To a norm of 1 along a dimension.
pub(super) fn lp(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let input = call.float(0)?;
    let axis = axis_of(call.attributes().int("axis", -1)?, input.rank())?;
    let x = wide(input)?;
    let norm = match call.attributes().int("p", 2)? {
        1 => x.abs()?.sum_keepdim(axis)?,
        2 => x.sqr()?.sum_keepdim(axis)?.sqrt()?,
        other => return Err(refused!("p is {other}, it must be 1 or 2")),
    };
    // A vector of zeros stays one.
    let norm = norm.eq(0.0)?.where_cond(&norm.ones_like()?, &norm)?;
    Ok(vec![x.broadcast_div(&norm)?.to_dtype(input.dtype())?])
}

/// Applies `of` along the dimension that `axis` names: one dimension from version 13 on, before it all from there on.
fn along(call: &Call<'_>, of: impl FnOnce(&Tensor) -> candle_core::Result<Tensor>) -> Outcome<Vec<Tensor>> {
    let input = call.float(0)?;
    let default = if call.version() < 13 { 1 } else { -1 };
    let axis = match (call.attributes().int("axis", default)?, input.rank()) {
        (_, 0) => return Ok(vec![of(&input.reshape(1)?)?.reshape(())?]),
        (1, 1) if call.version() < 13 => 1,
        (axis, rank) => axis_of(axis, rank)?,
    };
    if input.elem_count() == 0 {
        return Ok(vec![input.clone()]);
    }
    let x = wide(input)?;
    let values = match call.version() < 13 {
        true => {
            let columns: usize = input.dims()[axis..].iter().product();
            of(&x.reshape((input.elem_count() / columns, columns))?)?.reshape(input.shape())?
        }
        false => {
            let last = input.rank() - 1;
            of(&x.transpose(axis, last)?.contiguous()?)?.transpose(axis, last)?.contiguous()?
        }
    };
    Ok(vec![values.to_dtype(input.dtype())?])
}

pub(super) fn softmax(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    along(call, |x| match x.dtype() {
        DType::F32 => candle_nn::ops::softmax_last_dim(x),
        _ => candle_nn::ops::softmax(x, D::Minus1),
    })
}

pub(super) fn log_softmax(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    along(call, |x| candle_nn::ops::log_softmax(x, D::Minus1))
}

/// One where a value is the greatest along a dimension, the first of equal ones; zero elsewhere.
pub(super) fn hardmax(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    along(call, |x| {
        let greatest = x.argmax_keepdim(D::Minus1)?;
        let count = x.dims()[x.rank() - 1] as u32;
        Tensor::arange(0u32, count, x.device())?.broadcast_as(x.shape())?.broadcast_eq(&greatest)?.to_dtype(x.dtype())
    })
}
