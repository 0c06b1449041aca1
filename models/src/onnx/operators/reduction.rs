//! Reductions over dimensions, the positions of extremes, and running sums.

use candle_core::{DType, Device, Tensor};

use super::{
    super::fault::{Outcome, refused},
    call::{Call, axes as axes_of, axis as axis_of, floats, from_ints, ints, is_float, wide},
};

/// The dimensions that a reduction takes away: inputs from version 13 (sums) or 18 on, attributes before. None: nothing is
/// reduced.
pub(in crate::onnx) fn reduced_axes(
    rank: usize,
    listed: Option<Vec<i64>>,
    none_means_nothing: bool,
) -> Outcome<Option<Vec<usize>>> {
    match listed {
        Some(axes) if !axes.is_empty() => axes_of(&axes, rank).map(Some),
        _ if none_means_nothing => Ok(None),
        _ => Ok(Some((0..rank).collect())),
    }
}

/// A shape without these dimensions, or with ones in their place.
pub(in crate::onnx) fn reduced_dims(dims: &[usize], axes: &[usize], keep: bool) -> Vec<usize> {
    let kept = dims.iter().enumerate().filter(|(axis, _)| keep || !axes.contains(axis));
    kept.map(|(axis, &size)| if axes.contains(&axis) { 1 } else { size }).collect()
}

/// Reduces: `of` gets the values with those to reduce in the last dimension, and takes it away.
fn reduce(
    call: &Call<'_>,
    float: impl FnOnce(&Tensor) -> candle_core::Result<Tensor>,
    int: impl Fn(&[i64]) -> i64,
    empty: Option<f64>,
) -> Outcome<Vec<Tensor>> {
    let input = call.input(0)?;
    let listed = call.ints_or(1, "axes")?;
    let noop = call.attributes().flag("noop_with_empty_axes", false)?;
    // Where nothing is reduced, each value is by itself.
    let reduced = reduced_axes(input.rank(), listed, noop)?;
    let dims = match &reduced {
        Some(axes) => reduced_dims(input.dims(), axes, call.attributes().flag("keepdims", true)?),
        None => input.dims().to_vec(),
    };
    let axes = reduced.unwrap_or_default();
    if input.elem_count() == 0 {
        let value =
            empty.ok_or_else(|| refused!("it reduces a tensor of shape {:?} without elements", input.dims()))?;
        return Ok(vec![super::pad::full(&dims, value, input.dtype(), input.device())?]);
    }
    let (moved, count) = last(input, &axes)?;
    if is_float(input.dtype()) {
        return Ok(vec![float(&wide(&moved)?)?.reshape(dims)?.to_dtype(input.dtype())?]);
    }
    let values = ints(&moved)?.chunks_exact(count).map(int).collect();
    Ok(vec![from_ints(values, &dims, input.dtype())?])
}

/// The values of these dimensions in one last dimension, and their count.
fn last(input: &Tensor, axes: &[usize]) -> Outcome<(Tensor, usize)> {
    let order = (0..input.rank()).filter(|axis| !axes.contains(axis)).chain(axes.iter().copied()).collect::<Vec<_>>();
    let count: usize = axes.iter().map(|&axis| input.dims()[axis]).product();
    let moved = if order.is_sorted() { input.clone() } else { input.permute(order)? };
    Ok((moved.reshape((input.elem_count() / count, count))?, count))
}

macro_rules! reduction {
    ($($name:ident, |$x:ident| $float:expr, $int:expr, $empty:expr;)*) => {
        $(pub(super) fn $name(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
            reduce(call, |$x| $float, $int, $empty)
        })*
    };
}

const NEVER: Option<f64> = None;

reduction! {
    sum, |x| x.sum(1), |values| values.iter().fold(0, |sum: i64, &value| sum.wrapping_add(value)), Some(0.0);
    mean, |x| x.mean(1), mean_of, NEVER;
    maximum, |x| x.max(1), |values| values.iter().copied().max().unwrap_or(0), NEVER;
    minimum, |x| x.min(1), |values| values.iter().copied().min().unwrap_or(0), NEVER;
    product, |x| products(x), |values| values.iter().fold(1, |all: i64, &value| all.wrapping_mul(value)), Some(1.0);
    l1, |x| x.abs()?.sum(1), |values| values.iter().fold(0, |sum: i64, value| sum.wrapping_add(value.wrapping_abs())), Some(0.0);
    l2, |x| x.sqr()?.sum(1)?.sqrt(), |values| (square_sum(values) as f64).sqrt() as i64, Some(0.0);
    sum_of_squares, |x| x.sqr()?.sum(1), square_sum, Some(0.0);
    log_of_sum, |x| x.sum(1)?.log(), |values| (values.iter().sum::<i64>() as f64).ln() as i64, Some(f64::NEG_INFINITY);
    log_of_sum_of_exponentials, |x| x.log_sum_exp(1), |_| 0, Some(f64::NEG_INFINITY);
}

fn mean_of(values: &[i64]) -> i64 {
    let sum = values.iter().fold(0, |sum: i64, &value| sum.wrapping_add(value));
    sum.wrapping_div(values.len().max(1) as i64)
}

fn square_sum(values: &[i64]) -> i64 {
    values.iter().fold(0, |sum: i64, &value| sum.wrapping_add(value.wrapping_mul(value)))
}

/// The products of rows, halved until one column is left.
fn products(x: &Tensor) -> candle_core::Result<Tensor> {
    let mut x = x.clone();
    while x.dim(1)? > 1 {
        let half = x.dim(1)? / 2;
        let pairs = (x.narrow(1, 0, half)? * x.narrow(1, half, half)?)?;
        let odd = x.dim(1)? - 2 * half;
        x = if odd == 0 { pairs } else { Tensor::cat(&[pairs, x.narrow(1, 2 * half, odd)?], 1)? };
    }
    x.squeeze(1)
}

/// The position of the greatest or the least value along a dimension.
fn extreme(call: &Call<'_>, better: fn(f64, f64) -> bool) -> Outcome<Vec<Tensor>> {
    let input = call.input(0)?;
    let axis = axis_of(call.attributes().int("axis", 0)?, input.rank())?;
    let last_of_equals = call.attributes().flag("select_last_index", false)?;
    let dims = reduced_dims(input.dims(), &[axis], call.attributes().flag("keepdims", true)?);
    if input.elem_count() == 0 {
        return Err(refused!("it looks for an extreme in shape {:?} without elements", input.dims()));
    }
    let (rows, count) = last(input, &[axis])?;
    let values = floats(&rows)?;
    let position = |row: &[f64]| {
        let mut best = 0;
        for (at, &value) in row.iter().enumerate().skip(1) {
            if better(value, row[best]) || (last_of_equals && value == row[best]) {
                best = at;
            }
        }
        best as i64
    };
    from_ints(values.chunks_exact(count).map(position).collect(), &dims, DType::I64).map(|positions| vec![positions])
}

pub(super) fn position_of_maximum(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    extreme(call, |value, best| value > best)
}

pub(super) fn position_of_minimum(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    extreme(call, |value, best| value < best)
}

/// The greatest (or least) values along a dimension and their positions, in order, the first of equal ones first.
pub(super) fn top(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let input = call.input(0)?;
    let attributes = call.attributes();
    let axis = axis_of(attributes.int("axis", -1)?, input.rank())?;
    let wanted = match call.optional_ints(1)?.as_deref() {
        Some([count]) => *count,
        Some(_) => return Err(refused!("its count must be one number")),
        None => attributes.int("k", -1)?,
    };
    let size = input.dims()[axis];
    let wanted = usize::try_from(wanted).ok().filter(|wanted| *wanted <= size);
    let wanted = wanted.ok_or_else(|| refused!("it wants more values than the {size} of dimension {axis}"))?;
    let greatest = attributes.flag("largest", true)?;
    let end = input.rank() - 1;
    let rows = input.transpose(axis, end)?.contiguous()?;
    let order = |row: &[f64]| {
        let mut positions: Vec<u32> = (0..row.len() as u32).collect();
        let value = |position: &u32| row[*position as usize];
        positions.sort_by(|a, b| {
            let order = value(a).total_cmp(&value(b));
            if greatest { order.reverse() } else { order }
        });
        positions.truncate(wanted);
        positions
    };
    let chosen: Vec<u32> = floats(&rows)?.chunks(size.max(1)).flat_map(order).collect();
    let mut dims = rows.dims().to_vec();
    dims[end] = wanted;
    let positions = Tensor::from_vec(chosen, dims, &Device::Cpu)?;
    let values = rows.gather(&positions.to_device(rows.device())?, end)?;
    let back = |tensor: &Tensor| tensor.transpose(axis, end)?.contiguous();
    Ok(vec![back(&values)?, back(&positions.to_dtype(DType::I64)?)?])
}

/// Sums of all values up to each along a dimension.
pub(super) fn running_sum(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let input = call.input(0)?;
    let axis = match call.ints(1)?.as_slice() {
        [axis] => axis_of(*axis, input.rank())?,
        _ => return Err(refused!("its axis must be one number")),
    };
    let (exclusive, reverse) = (call.attributes().flag("exclusive", false)?, call.attributes().flag("reverse", false)?);
    let end = input.rank() - 1;
    let rows = input.transpose(axis, end)?.contiguous()?;
    let count = input.dims()[axis].max(1);
    let mut values = floats(&rows)?;
    for row in values.chunks_mut(count) {
        let mut total = 0.0;
        let add = |value: &mut f64| {
            let before = total;
            total += *value;
            *value = if exclusive { before } else { total };
        };
        if reverse { row.iter_mut().rev().for_each(add) } else { row.iter_mut().for_each(add) }
    }
    let sums = Tensor::from_vec(values, rows.dims(), &Device::Cpu)?.to_dtype(input.dtype())?;
    Ok(vec![call.place(&sums.transpose(axis, end)?.contiguous()?)?])
}
