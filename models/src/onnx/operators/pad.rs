//! Padding: with a constant, by reflection, with the edge or around the other end.

use candle_core::{DType, Device, Tensor};

use super::{
    super::fault::{Outcome, refused},
    call::{Call, axis as axis_of, floats},
};

/// A tensor with so many elements of one value before and after a dimension; fewer than none cuts elements off.
pub(super) fn constant_pad(input: &Tensor, axis: usize, before: i64, after: i64, value: f64) -> Outcome<Tensor> {
    let size = input.dims()[axis];
    let (cut_before, cut_after) = (before.min(0).unsigned_abs() as usize, after.min(0).unsigned_abs() as usize);
    let left = size.checked_sub(cut_before).and_then(|left| left.checked_sub(cut_after));
    let left = left.ok_or_else(|| refused!("pads {before} and {after} cut more than dimension {axis} of {size}"))?;
    let middle = input.narrow(axis, cut_before, left)?;
    let side = |count: i64| -> Outcome<Option<Tensor>> {
        let mut dims = input.dims().to_vec();
        dims[axis] = usize::try_from(count).unwrap_or(0);
        Ok(if dims[axis] == 0 { None } else { Some(full(&dims, value, input.dtype(), input.device())?) })
    };
    let parts: Vec<Tensor> = [side(before)?, Some(middle), side(after)?].into_iter().flatten().collect();
    Ok(Tensor::cat(&parts, axis)?)
}

/// A tensor of one value; infinite ones become the type's greatest.
pub(super) fn full(dims: &[usize], value: f64, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
    if value == 0.0 {
        return Tensor::zeros(dims, dtype, device);
    }
    Tensor::full(value, (), &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?.broadcast_as(dims)?.contiguous()
}

/// Elements before and after each dimension: all before, then all after, of the dimensions that are named.
pub(in crate::onnx) fn padded_sides(rank: usize, pads: &[i64], axes: Option<&[i64]>) -> Outcome<Vec<(i64, i64)>> {
    let axes = match axes {
        Some(axes) => axes.iter().map(|&axis| axis_of(axis, rank)).collect::<Outcome<Vec<_>>>()?,
        None => (0..rank).collect(),
    };
    if pads.len() != 2 * axes.len() || pads.iter().any(|pad| pad.unsigned_abs() > 1 << 40) {
        return Err(refused!("pads {pads:?} do not fit {} dimensions", axes.len()));
    }
    let mut sides = vec![(0, 0); rank];
    for (index, &axis) in axes.iter().enumerate() {
        sides[axis] = (pads[index], pads[index + axes.len()]);
    }
    Ok(sides)
}

/// The shape of a padded tensor.
pub(in crate::onnx) fn pad_dims(dims: &[usize], sides: &[(i64, i64)]) -> Outcome<Vec<usize>> {
    let size = |(&size, &(before, after)): (&usize, &(i64, i64))| {
        let padded = i64::try_from(size).ok().and_then(|size| size.checked_add(before)?.checked_add(after));
        let padded = padded.and_then(|padded| usize::try_from(padded).ok());
        padded.ok_or_else(|| refused!("pads {before} and {after} do not fit a dimension of {size}"))
    };
    dims.iter().zip(sides).map(size).collect()
}

/// Pads are inputs from version 11 on, for the dimensions listed from 18 on.
pub(super) fn pad(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let input = call.input(0)?;
    let pads = call.ints_or(1, "pads")?.ok_or_else(|| refused!("its pads are missing"))?;
    let sides = padded_sides(input.rank(), &pads, call.optional_ints(3)?.as_deref())?;
    let value = match call.optional(2).filter(|tensor| tensor.elem_count() > 0) {
        Some(tensor) => floats(tensor)?.first().copied().unwrap_or(0.0),
        None => call.attributes().float("value", 0.0)?.into(),
    };
    let mode = call.attributes().text("mode", "constant")?;
    let wanted = pad_dims(input.dims(), &sides)?;
    call.fits(&wanted, input.dtype())?;
    let mut padded = input.clone();
    for (axis, &(before, after)) in sides.iter().enumerate().filter(|(_, sides)| **sides != (0, 0)) {
        // A dimension that is cut later does not make this step small.
        let mut dims = padded.dims().to_vec();
        dims[axis] = wanted[axis];
        call.fits(&dims, input.dtype())?;
        padded = match mode {
            "constant" => constant_pad(&padded, axis, before, after, value)?,
            mode => {
                let from = sources(mode, padded.dims()[axis] as i64, before, after)?;
                let count = from.len();
                padded.contiguous()?.index_select(&Tensor::from_vec(from, count, padded.device())?, axis)?
            }
        };
    }
    Ok(vec![padded])
}

/// Which element stands at each place of a padded dimension.
fn sources(mode: &str, size: i64, before: i64, after: i64) -> Outcome<Vec<u32>> {
    let source = |at: i64| match mode {
        "edge" if size > 0 => Ok(at.clamp(0, size - 1)),
        "wrap" if size > 0 => Ok(at.rem_euclid(size)),
        "reflect" if size > 0 => {
            let period = (2 * (size - 1)).max(1);
            let at = at.rem_euclid(period);
            Ok(if at < size { at } else { period - at })
        }
        "edge" | "wrap" | "reflect" => Err(refused!("mode {mode} cannot pad a dimension of no elements")),
        other => Err(refused!("mode is '{other}', it must be constant, reflect, edge or wrap")),
    };
    (-before..size + after).map(|at| source(at).map(|at| at as u32)).collect()
}
