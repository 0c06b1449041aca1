//! Tensors made from numbers, and changed in type.

use candle_core::{DType, Device, Tensor};

use super::{
    super::{
        element::Element,
        fault::{Outcome, refused},
    },
    call::{Call, axis as axis_of, floats, from_ints, ints, is_float},
    shape::sizes,
};

/// The value of a constant node; its one attribute says of which type.
pub(super) fn constant(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let attributes = call.attributes();
    let float = Element::Float32.dtype(call.precision);
    let numbers = |values: Vec<f32>, dims: &[usize]| -> Outcome<Tensor> {
        call.place(&Tensor::from_vec(values, dims, &Device::Cpu)?.to_dtype(float)?)
    };
    let made = if let Some(weight) = attributes.tensor("value")? {
        call.place(&weight.tensor(call.precision)?)?
    } else if attributes.has("value_float") {
        numbers(vec![attributes.float("value_float", 0.0)?], &[])?
    } else if let Some(values) = attributes.floats("value_floats")? {
        numbers(values.clone(), &[values.len()])?
    } else if attributes.has("value_int") {
        from_ints(vec![attributes.int("value_int", 0)?], &[], DType::I64)?
    } else if let Some(values) = attributes.ints("value_ints")? {
        from_ints(values.clone(), &[values.len()], DType::I64)?
    } else {
        return Err(refused!("it has no value of a type that is served"));
    };
    Ok(vec![made])
}

/// One value everywhere, 0.0 where none is given.
pub(super) fn constant_of_shape(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let dims = sizes(&call.ints(0)?)?;
    let value = match call.attributes().tensor("value")? {
        Some(weight) if weight.dims.iter().product::<usize>() != 1 => {
            return Err(refused!("its value has shape {:?}, it must have one element", weight.dims));
        }
        Some(weight) => weight.tensor(call.precision)?.reshape(())?,
        None => Tensor::zeros((), Element::Float32.dtype(call.precision), &Device::Cpu)?,
    };
    call.fits(&dims, value.dtype())?;
    Ok(vec![call.place(&value)?.broadcast_as(dims)?])
}

/// From a first number in steps to before a last one.
pub(super) fn range(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let dtype = call.input(0)?.dtype();
    let number = |index: usize| call.optional_number(index)?.ok_or_else(|| refused!("its input {index} is missing"));
    let (start, limit, step) = (number(0)?, number(1)?, number(2)?);
    let count = ((limit - start) / step).ceil().max(0.0);
    if step == 0.0 || !count.is_finite() {
        return Err(refused!("it goes from {start} to {limit} in steps of {step}"));
    }
    call.fits(&[count as usize], DType::F64)?;
    let values: Vec<f64> = (0..count as usize).map(|at| start + at as f64 * step).collect();
    Ok(vec![call.place(&Tensor::from_vec(values, count as usize, &Device::Cpu)?.to_dtype(dtype)?)?])
}

/// Values in another type, whose number the attribute `to` is.
pub(super) fn cast(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let element = Element::from_number(call.attributes().int("to", 0)?)?;
    converted(call, call.input(0)?, element == Element::Bool, element.dtype(call.precision))
}

/// Values in the type of another tensor.
pub(super) fn cast_like(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    converted(call, call.input(0)?, false, call.input(1)?.dtype())
}

fn converted(call: &Call<'_>, input: &Tensor, to_bool: bool, dtype: DType) -> Outcome<Vec<Tensor>> {
    // Whatever is not 0 is true.
    let values = if to_bool { input.ne(&input.zeros_like()?)? } else { input.to_dtype(dtype)? };
    Ok(vec![call.place(&values)?])
}

/// Ones on a diagonal of a matrix, zeros elsewhere.
pub(super) fn eye_like(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let input = call.input(0)?;
    let (rows, columns) = input.dims2().map_err(|_| refused!("its input must be a matrix"))?;
    let dtype = match call.attributes().int("dtype", 0)? {
        0 => input.dtype(),
        number => Element::from_number(number)?.dtype(call.precision),
    };
    let offset = call.attributes().int("k", 0)?;
    let one = |at: usize| u8::from(((at / columns) as i64).checked_add(offset) == Some((at % columns) as i64));
    call.fits(&[rows, columns], dtype)?;
    let values: Vec<u8> = (0..rows * columns).map(one).collect();
    Ok(vec![call.place(&Tensor::from_vec(values, (rows, columns), &Device::Cpu)?.to_dtype(dtype)?)?])
}

/// The upper or lower triangle of matrices, zeros elsewhere.
pub(super) fn triangle(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let input = call.input(0)?;
    let [.., rows, columns] = *input.dims() else { return Err(refused!("its input must be a matrix")) };
    let offset = call.optional_ints(1)?.and_then(|values| values.first().copied()).unwrap_or(0);
    let upper = call.attributes().flag("upper", true)?;
    let kept = |at: usize| {
        let distance = ((at % columns) as i64 - (at / columns) as i64).saturating_sub(offset);
        u8::from(if upper { distance >= 0 } else { distance <= 0 })
    };
    // Of an input without elements too.
    call.fits(&[rows, columns], DType::U8)?;
    let mask: Vec<u8> = (0..rows * columns).map(kept).collect();
    let mask = Tensor::from_vec(mask, (rows, columns), &Device::Cpu)?.to_device(input.device())?;
    Ok(vec![mask.broadcast_as(input.shape())?.where_cond(input, &input.zeros_like()?)?])
}

/// For each whole number, one value where it points to and another elsewhere, along a new dimension.
pub(super) fn one_hot(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let (positions, values) = (call.input(0)?, call.input(2)?);
    let depth = call.optional_number(1)?.filter(|depth| (1.0..1e9).contains(depth));
    let depth = depth.ok_or_else(|| refused!("its depth must be a number of 1 or more"))? as usize;
    if values.dims() != [2] {
        return Err(refused!("its values have shape {:?}, they must be two", values.dims()));
    }
    let axis = axis_of(call.attributes().int("axis", -1)?, positions.rank() + 1)?;
    let mut dims = positions.dims().to_vec();
    dims.insert(axis, depth);
    call.fits(&dims, DType::I64)?;
    let size = depth as i64;
    let wrapped = |value: i64| if (-size..0).contains(&value) { value + size } else { value };
    let wanted = floats(positions)?.into_iter().map(|value| wrapped(value as i64)).collect();
    let mut spread = positions.dims().to_vec();
    spread.insert(axis, 1);
    let mut numbers = vec![1; dims.len()];
    numbers[axis] = depth;
    let wanted = from_ints(wanted, &spread, DType::I64)?.broadcast_as(dims.as_slice())?;
    let numbers = from_ints((0..size).collect(), &numbers, DType::I64)?.broadcast_as(dims.as_slice())?;
    let hot = wanted.eq(&numbers)?.to_device(values.device())?;
    let value = |at: usize| values.narrow(0, at, 1)?.squeeze(0)?.broadcast_as(dims.as_slice());
    Ok(vec![hot.where_cond(&value(1)?, &value(0)?)?])
}

/// The positions of values that are not zero, one column each.
pub(super) fn nonzero(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let input = call.input(0)?;
    let dims = input.dims();
    let set: Vec<usize> = match is_float(input.dtype()) {
        true => floats(input)?.iter().enumerate().filter(|(_, value)| **value != 0.0).map(|(at, _)| at).collect(),
        false => ints(input)?.iter().enumerate().filter(|(_, value)| **value != 0).map(|(at, _)| at).collect(),
    };
    let mut positions = vec![0; dims.len() * set.len()];
    for (column, &at) in set.iter().enumerate() {
        let mut rest = at;
        for (row, size) in dims.iter().enumerate().rev() {
            positions[row * set.len() + column] = (rest % size) as i64;
            rest /= size;
        }
    }
    Ok(vec![from_ints(positions, &[dims.len(), set.len()], DType::I64)?])
}
