//! Slices, joins and splits.

use candle_core::Tensor;

use super::{
    super::fault::{Outcome, refused},
    call::{Call, axis as axis_of, from_ints},
};

/// Elements of one dimension: the first, the step, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::onnx) struct Cut {
    pub(super) axis: usize,
    pub(super) start: i64,
    pub(super) step: i64,
    pub(in crate::onnx) count: usize,
}

/// What a slice takes of each dimension that it names.
pub(in crate::onnx) fn cuts(
    dims: &[usize],
    starts: &[i64],
    ends: &[i64],
    axes: Option<&[i64]>,
    steps: Option<&[i64]>,
) -> Outcome<Vec<Cut>> {
    let all: Vec<i64> = (0..starts.len() as i64).collect();
    let axes = axes.unwrap_or(&all);
    let ones = vec![1; starts.len()];
    let steps = steps.unwrap_or(&ones);
    if ends.len() != starts.len() || axes.len() != starts.len() || steps.len() != starts.len() {
        return Err(refused!("its starts, ends, axes and steps are of different lengths"));
    }
    super::call::axes(axes, dims.len())?;
    let cut = |index: usize| {
        let (axis, step) = (axis_of(axes[index], dims.len())?, steps[index]);
        let size = dims[axis] as i64;
        let from_start = |at: i64| if at < 0 { at.saturating_add(size) } else { at };
        let (start, end) = (from_start(starts[index]), from_start(ends[index]));
        let (start, end) = match step {
            0 => return Err(refused!("its step along dimension {axis} is 0")),
            1.. => (start.clamp(0, size), end.clamp(0, size)),
            _ => (start.clamp(-1, size - 1), end.clamp(-1, size - 1)),
        };
        let distance = if step > 0 { end - start } else { start - end };
        let count = distance.max(0).unsigned_abs().div_ceil(step.unsigned_abs()) as usize;
        Ok(Cut { axis, start, step, count })
    };
    (0..starts.len()).map(cut).collect()
}

/// The shape of what the cuts leave.
pub(in crate::onnx) fn cut_dims(dims: &[usize], cuts: &[Cut]) -> Vec<usize> {
    let mut dims = dims.to_vec();
    cuts.iter().for_each(|cut| dims[cut.axis] = cut.count);
    dims
}

/// Inputs from version 10 on, attributes before.
pub(super) fn slice(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let input = call.input(0)?;
    let part = |index, name| call.ints_or(index, name);
    let missing = || refused!("its starts or ends are missing");
    let (starts, ends) = (part(1, "starts")?.ok_or_else(missing)?, part(2, "ends")?.ok_or_else(missing)?);
    let (axes, steps) = (part(3, "axes")?, call.optional_ints(4)?);
    let mut sliced = input.clone();
    for cut in cuts(input.dims(), &starts, &ends, axes.as_deref(), steps.as_deref())? {
        sliced = match cut.step {
            1 => sliced.narrow(cut.axis, cut.start as usize, cut.count)?,
            step => {
                let places = (0..cut.count as i64).map(|at| cut.start + at * step).collect();
                let places = from_ints(places, &[cut.count], candle_core::DType::I64)?;
                sliced.contiguous()?.index_select(&places.to_device(sliced.device())?, cut.axis)?
            }
        };
    }
    Ok(vec![sliced])
}

/// The shape of tensors joined along a dimension.
pub(in crate::onnx) fn joined(shapes: &[&[usize]], axis: i64) -> Outcome<(usize, Vec<usize>)> {
    let first = shapes.first().ok_or_else(|| refused!("it joins nothing"))?;
    let axis = axis_of(axis, first.len())?;
    let mut dims = first.to_vec();
    for shape in &shapes[1..] {
        let fits = |(at, size): (usize, &usize)| at == axis || *size == first[at];
        if shape.len() != first.len() || !shape.iter().enumerate().all(fits) {
            return Err(refused!("shapes {first:?} and {shape:?} do not join along dimension {axis}"));
        }
        dims[axis] = dims[axis].saturating_add(shape[axis]);
    }
    Ok((axis, dims))
}

pub(super) fn concat(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let parts = (0..call.inputs.len()).map(|index| call.input(index)).collect::<Outcome<Vec<_>>>()?;
    let shapes: Vec<&[usize]> = parts.iter().map(|part| part.dims()).collect();
    let (axis, dims) = joined(&shapes, call.attributes().int("axis", 0)?)?;
    let first = call.input(0)?;
    if let Some(odd) = parts.iter().find(|part| part.dtype() != first.dtype()) {
        return Err(refused!("it joins {} and {}", first.dtype().as_str(), odd.dtype().as_str()));
    }
    call.fits(&dims, first.dtype())?;
    let device = parts.iter().map(|part| part.device()).find(|device| !device.is_cpu()).unwrap_or(first.device());
    let parts = parts.iter().map(|part| part.to_device(device)).collect::<candle_core::Result<Vec<_>>>()?;
    Ok(vec![Tensor::cat(&parts, axis)?])
}

/// The sizes of the parts of a dimension.
pub(in crate::onnx) fn parts(size: usize, listed: Option<&[i64]>, count: usize) -> Outcome<Vec<usize>> {
    let Some(listed) = listed else {
        if count == 0 {
            return Err(refused!("it splits into no parts"));
        }
        let part = size.div_ceil(count);
        return Ok((0..count).map(|index| part.min(size.saturating_sub(index * part))).collect());
    };
    let sizes = listed.iter().map(|&size| usize::try_from(size).ok()).collect::<Option<Vec<usize>>>();
    let total = sizes.as_ref().and_then(|sizes| sizes.iter().try_fold(0usize, |sum, &size| sum.checked_add(size)));
    match sizes {
        Some(sizes) if total == Some(size) => Ok(sizes),
        _ => Err(refused!("parts {listed:?} do not make up a dimension of {size}")),
    }
}

/// Sizes are an input from version 13 on, an attribute before; without them all parts are alike, but the last.
pub(super) fn split(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let input = call.input(0)?;
    let axis = axis_of(call.attributes().int("axis", 0)?, input.rank())?;
    let sizes = parts(input.dims()[axis], call.ints_or(1, "split")?.as_deref(), call.node.outputs.len())?;
    let mut from = 0;
    let mut cut = |size: &usize| {
        from += size;
        Ok(input.narrow(axis, from - size, *size)?)
    };
    sizes.iter().map(&mut cut).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_stay_inside_whatever_the_numbers() {
        let cut = |size, start, end, step| cuts(&[size], &[start], &[end], None, Some(&[step])).map(|cuts| cuts[0]);
        let taken = |size: usize, start, end, step| {
            let cut = cut(size, start, end, step).unwrap();
            (0..cut.count as i64).map(|at| cut.start + at * cut.step).collect::<Vec<_>>()
        };
        assert_eq!(taken(5, 1, -1, 2), [1, 3]);
        assert_eq!(taken(5, -1, i64::MIN, -2), [4, 2, 0]);
        assert_eq!(taken(5, i64::MAX, i64::MIN, -1), [4, 3, 2, 1, 0]);
        assert_eq!(taken(5, 3, 1, 1), [0i64; 0]);
        assert_eq!(taken(0, 0, 5, 1), [0i64; 0]);
        assert_eq!(taken(0, -1, i64::MIN, -1), [0i64; 0]);
        for step in [i64::MIN, i64::MAX] {
            assert!(taken(5, 0, 5, step).len() <= 1);
        }
        assert!(cut(5, 0, 5, 0).is_err());
        assert!(cuts(&[5], &[0, 0], &[1, 1], Some(&[0, 0]), None).is_err());
        assert_eq!(parts(7, None, 3).ok(), Some(vec![3, 3, 1]));
        assert_eq!(parts(2, None, 3).ok(), Some(vec![1, 1, 0]));
        assert!(
            parts(7, Some(&[3, 3]), 2).is_err() && parts(7, Some(&[-1, 8]), 2).is_err() && parts(7, None, 0).is_err()
        );
    }
}
