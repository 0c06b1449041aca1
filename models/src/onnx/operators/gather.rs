//! Elements picked and put by position. Positions are checked on the host before anything is read with them.

use candle_core::{DType, Tensor};

use super::{
    super::{
        fault::{Outcome, refused},
        weight::elements,
    },
    call::{Call, axis as axis_of, from_ints, ints},
};

/// Positions in a dimension of this size, counted from its end where negative.
fn positions(tensor: &Tensor, size: usize) -> Outcome<Vec<i64>> {
    ints(tensor)?.into_iter().map(|position| place(position, size)).collect()
}

fn place(position: i64, size: usize) -> Outcome<i64> {
    let from_start = if position < 0 { position.saturating_add(size as i64) } else { position };
    match (0..size as i64).contains(&from_start) {
        true => Ok(from_start),
        false => Err(refused!("position {position} is outside a dimension of {size}")),
    }
}

/// The shape of what `Gather` picks.
pub(in crate::onnx) fn gathered(dims: &[usize], positions: &[usize], axis: usize) -> Vec<usize> {
    [&dims[..axis], positions, &dims[axis + 1..]].concat()
}

pub(super) fn gather(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let (input, wanted) = (call.input(0)?, call.input(1)?);
    let axis = axis_of(call.attributes().int("axis", 0)?, input.rank())?;
    let dims = gathered(input.dims(), wanted.dims(), axis);
    call.fits(&dims, input.dtype())?;
    let places = positions(wanted, input.dims()[axis])?;
    if let (&[place], 0) = (places.as_slice(), wanted.rank()) {
        return Ok(vec![input.narrow(axis, place as usize, 1)?.squeeze(axis)?]);
    }
    let count = places.len();
    let places = from_ints(places, &[count], DType::I64)?.to_device(input.device())?;
    Ok(vec![input.contiguous()?.index_select(&places, axis)?.reshape(dims)?])
}

pub(super) fn gather_elements(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let (input, wanted) = (call.input(0)?, call.input(1)?);
    let axis = axis_of(call.attributes().int("axis", 0)?, input.rank())?;
    aligned(input, wanted, axis)?;
    let places = from_ints(positions(wanted, input.dims()[axis])?, wanted.dims(), DType::I64)?;
    if places.elem_count() == 0 {
        return Ok(vec![Tensor::zeros(wanted.shape(), input.dtype(), input.device())?]);
    }
    Ok(vec![input.contiguous()?.gather(&places.to_device(input.device())?, axis)?])
}

/// Refuses positions that do not lie inside the other dimensions of the input.
fn aligned(input: &Tensor, positions: &Tensor, axis: usize) -> Outcome<()> {
    let pairs = input.dims().iter().zip(positions.dims()).enumerate();
    let inside = pairs.clone().all(|(at, (size, wanted))| at == axis || wanted <= size);
    match inside && input.rank() == positions.rank() {
        true => Ok(()),
        false => Err(refused!("positions of shape {:?} do not fit shape {:?}", positions.dims(), input.dims())),
    }
}

/// Positions as tuples in the last dimension: where each tuple's block begins among blocks of the dimensions that it does
/// not name, and the shape of a block.
fn blocks(dims: &[usize], tuples: &Tensor, batch: usize) -> Outcome<(Vec<i64>, Vec<usize>)> {
    let width = tuples.dims().last().copied().unwrap_or(0);
    let named = dims.get(batch..).filter(|rest| width <= rest.len()).map(|rest| rest.split_at(width));
    let (named, block) = named.ok_or_else(|| refused!("tuples of {width} do not fit shape {dims:?}"))?;
    if tuples.rank() <= batch || tuples.dims()[..batch] != dims[..batch] {
        return Err(refused!("positions of shape {:?} do not fit shape {dims:?}", tuples.dims()));
    }
    let values = ints(tuples)?;
    let count = elements(&tuples.dims()[..tuples.rank() - 1]).unwrap_or(0);
    let a_batch = count / elements(&dims[..batch]).unwrap_or(0).max(1);
    let volume: i64 = named.iter().map(|&size| size as i64).product();
    let start = |index: usize| {
        let tuple = &values[index * width..(index + 1) * width];
        let inside = tuple.iter().zip(named).try_fold(0i64, |at, (&position, &size)| {
            place(position, size).map(|position| at * size as i64 + position)
        })?;
        Ok((index / a_batch.max(1)) as i64 * volume + inside)
    };
    Ok(((0..count).map(start).collect::<Outcome<_>>()?, block.to_vec()))
}

pub(super) fn gather_tuples(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let (input, tuples) = (call.input(0)?, call.input(1)?);
    let batch = usize::try_from(call.attributes().int("batch_dims", 0)?).unwrap_or(usize::MAX);
    if tuples.rank() == 0 || batch >= input.rank() {
        return Err(refused!("positions of shape {:?} do not fit shape {:?}", tuples.dims(), input.dims()));
    }
    let (starts, block) = blocks(input.dims(), tuples, batch)?;
    let dims = [&tuples.dims()[..tuples.rank() - 1], &block].concat();
    call.fits(&dims, input.dtype())?;
    if dims.contains(&0) {
        return Ok(vec![Tensor::zeros(dims, input.dtype(), input.device())?]);
    }
    let (count, volume) = (starts.len(), block.iter().product::<usize>());
    let starts = from_ints(starts, &[count], DType::I64)?.to_device(input.device())?;
    let rows = input.reshape((input.elem_count() / volume, volume))?;
    Ok(vec![rows.index_select(&starts, 0)?.reshape(dims)?])
}

/// Rows of `target` replaced by rows of `updates`, or with them added; of several for one place the last stands.
fn put(call: &Call<'_>, target: &Tensor, places: Vec<i64>, updates: &Tensor) -> Outcome<Tensor> {
    let updates = updates.to_device(target.device())?;
    if target.dtype() != updates.dtype() {
        return Err(refused!("it puts {} into {}", updates.dtype().as_str(), target.dtype().as_str()));
    }
    let count = places.len();
    match call.attributes().text("reduction", "none")? {
        "none" => {
            let rows = target.dims()[0];
            let mut from: Vec<i64> = (0..rows as i64).collect();
            for (index, &place) in places.iter().enumerate() {
                from[place as usize] = (rows + index) as i64;
            }
            let from = from_ints(from, &[rows], DType::I64)?.to_device(target.device())?;
            Ok(Tensor::cat(&[target, &updates], 0)?.index_select(&from, 0)?)
        }
        "add" => {
            let places = from_ints(places, &[count], DType::I64)?.to_device(target.device())?;
            Ok(target.index_add(&places, &updates, 0)?)
        }
        other => Err(refused!("reduction is '{other}', it must be none or add")),
    }
}

pub(super) fn scatter_tuples(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let (input, tuples, updates) = (call.input(0)?, call.input(1)?, call.input(2)?);
    if tuples.rank() == 0 {
        return Err(refused!("its positions must have a dimension"));
    }
    let (starts, block) = blocks(input.dims(), tuples, 0)?;
    if updates.dims() != [&tuples.dims()[..tuples.rank() - 1], &block].concat() {
        return Err(refused!("updates of shape {:?} do not fit positions of {:?}", updates.dims(), tuples.dims()));
    }
    if updates.elem_count() == 0 {
        return Ok(vec![input.clone()]);
    }
    let volume = block.iter().product::<usize>();
    let rows = input.reshape((input.elem_count() / volume, volume))?;
    let updates = updates.reshape((starts.len(), volume))?;
    Ok(vec![put(call, &rows, starts, &updates)?.reshape(input.shape())?])
}

pub(super) fn scatter_elements(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let (input, wanted, updates) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let axis = axis_of(call.attributes().int("axis", 0)?, input.rank())?;
    aligned(input, wanted, axis)?;
    if updates.dims() != wanted.dims() {
        return Err(refused!("updates of shape {:?} do not fit positions of {:?}", updates.dims(), wanted.dims()));
    }
    if updates.elem_count() == 0 {
        return Ok(vec![input.clone()]);
    }
    let places = positions(wanted, input.dims()[axis])?;
    let linear = places.iter().enumerate().map(|(index, &place)| {
        let mut rest = index;
        let mut step = 1;
        let mut at = 0;
        for dim in (0..input.rank()).rev() {
            let inside = if dim == axis { place as usize } else { rest % wanted.dims()[dim] };
            rest /= wanted.dims()[dim];
            at += inside * step;
            step *= input.dims()[dim];
        }
        at as i64
    });
    let rows = input.reshape((input.elem_count(), 1))?;
    let put = put(call, &rows, linear.collect(), &updates.reshape((updates.elem_count(), 1))?)?;
    Ok(vec![put.reshape(input.shape())?])
}
