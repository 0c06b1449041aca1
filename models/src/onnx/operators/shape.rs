//! Operators that only change a tensor's shape, or tell it.

use candle_core::{DType, Tensor};

use super::{
    super::{
        fault::{Outcome, refused},
        weight::elements,
    },
    call::{Call, axes as axes_of, axis as axis_of, broadcast_dims, from_ints, size},
};

/// The shape that `Reshape` gives: 0 keeps a dimension unless `allow_zero`, -1 is what is left.
pub(in crate::onnx) fn reshaped(dims: &[usize], wanted: &[i64], allow_zero: bool) -> Outcome<Vec<usize>> {
    let unfit = || refused!("shape {dims:?} does not reshape to {wanted:?}");
    let mut open = None;
    let mut shape = Vec::with_capacity(wanted.len());
    for (at, &value) in wanted.iter().enumerate() {
        shape.push(match value {
            -1 if open.is_none() => {
                open = Some(at);
                1
            }
            0 if !allow_zero => *dims.get(at).ok_or_else(unfit)?,
            value => usize::try_from(value).map_err(|_| unfit())?,
        });
    }
    let (have, known) = (elements(dims).ok_or_else(unfit)?, elements(&shape).ok_or_else(unfit)?);
    if let Some(open) = open {
        shape[open] = have.checked_div(known).ok_or_else(unfit)?;
    }
    if elements(&shape) == Some(have) { Ok(shape) } else { Err(unfit()) }
}

pub(super) fn reshape(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let input = call.input(0)?;
    let shape = reshaped(input.dims(), &call.ints(1)?, call.attributes().flag("allowzero", false)?)?;
    call.fits(&shape, input.dtype())?;
    Ok(vec![input.reshape(shape)?])
}

/// The shape of a matrix whose columns are all dimensions from `axis` on.
pub(in crate::onnx) fn flattened(dims: &[usize], axis: i64) -> Outcome<Vec<usize>> {
    let rank = dims.len();
    let axis = if axis == rank as i64 { rank } else { axis_of(axis, rank.max(1))? };
    let part = |dims: &[usize]| elements(dims).ok_or_else(|| refused!("shape {dims:?} is larger than can be"));
    Ok(vec![part(&dims[..axis.min(rank)])?, part(&dims[axis.min(rank)..])?])
}

pub(super) fn flatten(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let input = call.input(0)?;
    Ok(vec![input.reshape(flattened(input.dims(), call.attributes().int("axis", 1)?)?)?])
}

/// The shape without these dimensions of one element, or without all such.
pub(in crate::onnx) fn squeezed(dims: &[usize], axes: Option<&[i64]>) -> Outcome<Vec<usize>> {
    let axes = match axes {
        Some(axes) => axes_of(axes, dims.len())?,
        None => (0..dims.len()).filter(|&axis| dims[axis] == 1).collect(),
    };
    match axes.iter().find(|&&axis| dims[axis] != 1) {
        Some(axis) => Err(refused!("dimension {axis} of shape {dims:?} has not one element")),
        None => Ok((0..dims.len()).filter(|axis| !axes.contains(axis)).map(|axis| dims[axis]).collect()),
    }
}

pub(super) fn squeeze(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let input = call.input(0)?;
    Ok(vec![input.reshape(squeezed(input.dims(), call.ints_or(1, "axes")?.as_deref())?)?])
}

/// The shape with dimensions of one element in these places.
pub(in crate::onnx) fn unsqueezed(dims: &[usize], axes: &[i64]) -> Outcome<Vec<usize>> {
    let axes = axes_of(axes, dims.len().saturating_add(axes.len()))?;
    let mut shape = dims.to_vec();
    axes.iter().for_each(|&axis| shape.insert(axis, 1));
    Ok(shape)
}

pub(super) fn unsqueeze(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let input = call.input(0)?;
    let axes = call.ints_or(1, "axes")?.ok_or_else(|| refused!("its axes are missing"))?;
    let shape = unsqueezed(input.dims(), &axes)?;
    call.fits(&shape, input.dtype())?;
    Ok(vec![input.reshape(shape)?])
}

/// The order of a transposed tensor's dimensions; reversed where none is given.
pub(in crate::onnx) fn permutation(rank: usize, wanted: Option<&Vec<i64>>) -> Outcome<Vec<usize>> {
    let Some(wanted) = wanted else { return Ok((0..rank).rev().collect()) };
    let order = wanted.iter().map(|&axis| axis_of(axis, rank)).collect::<Outcome<Vec<_>>>()?;
    match axes_of(wanted, rank)?.len() == rank {
        true => Ok(order),
        false => Err(refused!("perm is {wanted:?}, it must name all {rank} dimensions")),
    }
}

pub(super) fn transpose(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let input = call.input(0)?;
    Ok(vec![input.permute(permutation(input.rank(), call.attributes().ints("perm")?)?)?])
}

/// A shape given as numbers.
pub(in crate::onnx) fn sizes(values: &[i64]) -> Outcome<Vec<usize>> {
    values.iter().map(|&value| size(value, "a dimension")).collect()
}

pub(super) fn expand(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let input = call.input(0)?;
    let dims = broadcast_dims(input.dims(), &sizes(&call.ints(1)?)?)?;
    call.fits(&dims, input.dtype())?;
    Ok(vec![input.broadcast_as(dims)?])
}

/// The shape of a tensor repeated so often along each dimension.
pub(in crate::onnx) fn tiled(dims: &[usize], repeats: &[i64]) -> Outcome<Vec<usize>> {
    let size = |(&dim, &times): (&usize, &i64)| usize::try_from(times).ok().and_then(|times| dim.checked_mul(times));
    let shape = dims.iter().zip(repeats).map(size).collect::<Option<Vec<_>>>();
    shape
        .filter(|_| dims.len() == repeats.len())
        .ok_or_else(|| refused!("repeats {repeats:?} do not fit shape {dims:?}"))
}

pub(super) fn tile(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let (input, repeats) = (call.input(0)?, call.ints(1)?);
    let dims = tiled(input.dims(), &repeats)?;
    call.fits(&dims, input.dtype())?;
    if dims.contains(&0) {
        return Ok(vec![Tensor::zeros(dims, input.dtype(), input.device())?]);
    }
    let repeated =
        repeats.iter().enumerate().filter(|(_, times)| **times > 1).try_fold(input.clone(), |input, (axis, times)| {
            let mut spread = input.unsqueeze(axis)?.dims().to_vec();
            spread[axis] = *times as usize;
            let mut joined = input.dims().to_vec();
            joined[axis] *= *times as usize;
            input.unsqueeze(axis)?.broadcast_as(spread)?.reshape(joined)
        });
    Ok(vec![repeated?])
}

/// The part of a shape that `Shape` tells.
pub(in crate::onnx) fn told(dims: &[usize], start: i64, end: i64) -> Vec<i64> {
    let rank = dims.len() as i64;
    let place = |at: i64| (if at < 0 { at.saturating_add(rank) } else { at }).clamp(0, rank) as usize;
    let (start, end) = (place(start), place(end));
    dims.get(start..end).unwrap_or_default().iter().map(|&size| size as i64).collect()
}

pub(super) fn shape(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let attributes = call.attributes();
    let dims = told(call.input(0)?.dims(), attributes.int("start", 0)?, attributes.int("end", i64::MAX)?);
    let count = dims.len();
    Ok(vec![from_ints(dims, &[count], DType::I64)?])
}

pub(super) fn count(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    Ok(vec![from_ints(vec![call.input(0)?.elem_count() as i64], &[], DType::I64)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_of_hostile_numbers_are_refused_not_wrapped() {
        assert_eq!(reshaped(&[2, 3, 4], &[0, -1], false).ok(), Some(vec![2, 12]));
        assert_eq!(reshaped(&[0, 3], &[0, 7], true).ok(), Some(vec![0, 7]));
        for wanted in [&[-1, -1][..], &[-2, 12], &[5, -1], &[i64::MAX, i64::MAX], &[0, 0, 0, 0], &[i64::MIN]] {
            assert!(reshaped(&[2, 3, 4], wanted, false).is_err(), "{wanted:?}");
        }
        assert!(reshaped(&[0], &[0, -1], true).is_err());
        assert!(tiled(&[4], &[i64::MAX]).is_err() && tiled(&[4], &[-1]).is_err() && tiled(&[4], &[1, 1]).is_err());
        assert!(unsqueezed(&[2], &[0, 0]).is_err() && unsqueezed(&[2], &[9]).is_err());
        assert_eq!(told(&[2, 3, 4], i64::MIN, i64::MAX), [2, 3, 4]);
        assert_eq!(told(&[2, 3, 4], -1, -2), [0i64; 0]);
    }
}
