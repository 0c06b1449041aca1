//! Element-wise operators of two tensors or more, in their common shape.

use candle_core::{DType, Tensor};

use super::{
    super::fault::{Outcome, refused},
    call::{Call, floats, from_ints, ints, is_float},
};

type Float = fn(&Tensor, &Tensor) -> candle_core::Result<Tensor>;
type Int = fn(i64, i64) -> Option<i64>;

/// One value for each pair of values; whole numbers are computed on the host, where they wrap as ONNX's do.
fn pairwise(call: &Call<'_>, left: &Tensor, right: &Tensor, float: Float, int: Int) -> Outcome<Tensor> {
    let (left, right, dims) = call.broadcast(left, right)?;
    if is_float(left.dtype()) {
        return Ok(float(&left, &right)?);
    }
    let (left, right) = (left.broadcast_as(dims.as_slice())?, right.broadcast_as(dims.as_slice())?);
    let pairs = ints(&left)?.into_iter().zip(ints(&right)?);
    let values = pairs.map(|(left, right)| int(left, right)).collect::<Option<Vec<i64>>>();
    from_ints(values.ok_or_else(|| refused!("it divides by zero"))?, &dims, left.dtype())
}

macro_rules! binary {
    ($($(#[$doc:meta])* $name:ident, $float:expr, $int:expr;)*) => {
        $($(#[$doc])* pub(super) fn $name(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
            Ok(vec![pairwise(call, call.input(0)?, call.input(1)?, $float, $int)?])
        })*
    };
}

macro_rules! variadic {
    ($($(#[$doc:meta])* $name:ident, $float:expr, $int:expr;)*) => {
        $($(#[$doc])* pub(super) fn $name(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
            Ok(vec![folded(call, $float, $int)?])
        })*
    };
}

binary! {
    add, |a, b| a.broadcast_add(b), |a, b| Some(a.wrapping_add(b));
    subtract, |a, b| a.broadcast_sub(b), |a, b| Some(a.wrapping_sub(b));
    multiply, |a, b| a.broadcast_mul(b), |a, b| Some(a.wrapping_mul(b));
    divide, |a, b| a.broadcast_div(b), |a, b| if b == 0 { None } else { Some(a.wrapping_div(b)) };
}

variadic! {
    maximum, |a, b| a.broadcast_maximum(b), |a, b| Some(a.max(b));
    minimum, |a, b| a.broadcast_minimum(b), |a, b| Some(a.min(b));
    sum, |a, b| a.broadcast_add(b), |a, b| Some(a.wrapping_add(b));
}

fn folded(call: &Call<'_>, float: Float, int: Int) -> Outcome<Tensor> {
    let first = call.input(0)?.clone();
    (1..call.inputs.len()).try_fold(first, |total, index| pairwise(call, &total, call.input(index)?, float, int))
}

/// The mean of its inputs.
pub(super) fn mean(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    call.float(0)?;
    let total = folded(call, |a, b| a.broadcast_add(b), |_, _| None)?;
    Ok(vec![(total / call.inputs.len() as f64)?])
}

/// The remainder, with the divisor's sign, or with the dividend's where the attribute `fmod` is set.
pub(super) fn modulo(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let (left, right) = (call.input(0)?, call.input(1)?);
    let truncated = call.attributes().flag("fmod", false)?;
    if is_float(left.dtype()) {
        let (left, right, dims) = call.broadcast(left, right)?;
        let remainder = |a: f64, b: f64| if truncated { a % b } else { a - b * (a / b).floor() };
        return Ok(vec![on_host(call, &left, &right, &dims, remainder)?]);
    }
    let int: Int = match truncated {
        true => |a, b| if b == 0 { None } else { Some(a.wrapping_rem(b)) },
        false => |a, b| match b {
            0 => None,
            b => {
                let rest = a.wrapping_rem(b);
                Some(if rest != 0 && (rest < 0) != (b < 0) { rest.wrapping_add(b) } else { rest })
            }
        },
    };
    Ok(vec![pairwise(call, left, right, |a, _| Ok(a.clone()), int)?])
}

/// A power; the exponent may be of another type than the base, whose type the result has.
pub(super) fn power(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let (base, exponent) = (call.input(0)?, call.input(1)?);
    if !is_float(base.dtype()) {
        let dims = super::call::broadcast_dims(base.dims(), exponent.dims())?;
        call.fits(&dims, DType::F64)?;
        let power = |a: f64, b: f64| a.powf(b).trunc();
        return Ok(vec![on_host(call, base, exponent, &dims, power)?]);
    }
    if exponent.elem_count() == 1 {
        let dims = super::call::broadcast_dims(base.dims(), exponent.dims())?;
        let raised = match floats(exponent)?.first().copied().unwrap_or(1.0) {
            2.0 => base.sqr()?,
            0.5 => base.sqrt()?,
            value => base.powf(value)?,
        };
        return Ok(vec![raised.reshape(dims)?]);
    }
    let (base, exponent, dims) = call.broadcast(base, &exponent.to_dtype(base.dtype())?)?;
    Ok(vec![on_host(call, &base, &exponent, &dims, f64::powf)?])
}

/// A function that the tensor library has not, of each pair of values.
fn on_host(
    call: &Call<'_>,
    left: &Tensor,
    right: &Tensor,
    dims: &[usize],
    of: impl Fn(f64, f64) -> f64,
) -> Outcome<Tensor> {
    let (left, dtype) = (left.broadcast_as(dims)?, left.dtype());
    let pairs = floats(&left)?.into_iter().zip(floats(&right.broadcast_as(dims)?)?);
    let values: Vec<f64> = pairs.map(|(left, right)| of(left, right)).collect();
    let values = Tensor::from_vec(values, dims, &candle_core::Device::Cpu)?;
    call.place(&values.to_dtype(dtype)?)
}

macro_rules! comparison {
    ($($name:ident, $method:ident;)*) => {
        $(pub(super) fn $name(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
            let (left, right, dims) = call.broadcast(call.input(0)?, call.input(1)?)?;
            Ok(vec![left.broadcast_as(dims.as_slice())?.$method(&right.broadcast_as(dims.as_slice())?)?])
        })*
    };
}

comparison! {
    equal, eq;
    greater, gt;
    greater_or_equal, ge;
    less, lt;
    less_or_equal, le;
}

macro_rules! logical {
    ($($name:ident, $of:expr;)*) => {
        $(pub(super) fn $name(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
            let (left, right, dims) = call.broadcast(call.input(0)?, call.input(1)?)?;
            if left.dtype() != DType::U8 {
                return Err(refused!("its inputs are {}, they must be boolean", left.dtype().as_str()));
            }
            let of: Float = $of;
            Ok(vec![of(&left.broadcast_as(dims.as_slice())?, &right.broadcast_as(dims.as_slice())?)?])
        })*
    };
}

logical! {
    and, |a, b| a.minimum(b);
    or, |a, b| a.maximum(b);
    xor, |a, b| a.ne(b);
}
