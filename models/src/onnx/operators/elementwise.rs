//! Element-wise operators of one tensor, and those whose further inputs only set how.

use candle_core::{DType, Tensor};
use candle_nn::ops::sigmoid as logistic;

use super::{
    super::fault::{Outcome, refused},
    call::{Call, broadcast_dims, floats, from_ints, ints, is_float, wide},
    host::values,
};
use crate::kernels::Function;

/// √(2/π), of the tanh approximation of GELU.
const GELU_SCALE: f64 = 0.797_884_560_802_865_4;

macro_rules! unary {
    ($($name:ident, |$x:ident| $of:expr;)*) => {
        $(pub(super) fn $name(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
            let $x = call.float(0)?;
            Ok(vec![$of?])
        })*
    };
}

unary! {
    exponential, |x| x.exp();
    logarithm, |x| x.log();
    square_root, |x| x.sqrt();
    reciprocal, |x| x.recip();
    sine, |x| x.sin();
    cosine, |x| x.cos();
    hyperbolic_tangent, |x| mapped(x, Function::Tanh).unwrap_or_else(|| x.tanh());
    sigmoid, |x| mapped(x, Function::Sigmoid).unwrap_or_else(|| logistic(x));
    error_function, |x| mapped(x, Function::Erf).unwrap_or_else(|| x.erf());
    floor, |x| x.floor();
    ceiling, |x| x.ceil();
    softsign, |x| x.div(&(x.abs()? + 1.0)?);
    hard_swish, |x| x.mul(&clamped(&x.affine(1.0 / 6.0, 0.5)?, 0.0, 1.0)?);
    is_nan, |x| x.ne(x);
    softplus, |x| soft_plus(x);
    mish, |x| x.mul(&soft_plus(x)?.tanh()?);
}

/// A function of each value on our own kernel; none for other types, and on other devices.
fn mapped(x: &Tensor, function: Function) -> Option<candle_core::Result<Tensor>> {
    let fits = x.dtype() == DType::F32 && x.device().is_cpu();
    fits.then(|| {
        let mut of = values(&x.contiguous()?)?.to_vec();
        function.apply(&mut of);
        Tensor::from_vec(of, x.shape(), x.device())
    })
}

macro_rules! with_int {
    ($($name:ident, |$x:ident| $of:expr, $int:expr;)*) => {
        $(pub(super) fn $name(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
            let $x = call.input(0)?;
            if is_float($x.dtype()) {
                return Ok(vec![$of?]);
            }
            let of: fn(i64) -> i64 = $int;
            let values = ints($x)?.into_iter().map(of).collect();
            Ok(vec![from_ints(values, $x.dims(), $x.dtype())?])
        })*
    };
}

with_int! {
    absolute, |x| x.abs(), i64::wrapping_abs;
    negate, |x| x.neg(), i64::wrapping_neg;
    sign, |x| x.sign(), i64::signum;
    rectify, |x| x.relu(), |value| value.max(0);
}

/// log(1 + eˣ) without overflow.
fn soft_plus(x: &Tensor) -> candle_core::Result<Tensor> {
    x.relu()? + (x.abs()?.neg()?.exp()? + 1.0)?.log()?
}

fn clamped(x: &Tensor, least: f64, most: f64) -> candle_core::Result<Tensor> {
    x.maximum(least)?.minimum(most)
}

/// `x` where it is above 0, what `below` makes of the smaller of it and 0 elsewhere.
fn above_or(x: &Tensor, below: impl FnOnce(&Tensor) -> candle_core::Result<Tensor>) -> candle_core::Result<Tensor> {
    x.relu()? + below(&x.minimum(0.0)?)?
}

/// To the nearest whole number, halves to the even one.
pub(super) fn round(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let x = call.float(0)?;
    let down = x.floor()?;
    let over = (x - &down)?;
    let odd = (&down - ((&down * 0.5)?.floor()? * 2.0)?)?;
    // Up by one above the half, and at the half where the lower number is odd.
    let above = over.gt(0.5)?.to_dtype(x.dtype())?;
    let tie = over.eq(0.5)?.to_dtype(x.dtype())?;
    Ok(vec![(down + (above + (tie * odd)?)?)?])
}

pub(super) fn leaky_rectify(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let slope = call.attributes().float("alpha", 0.01)?;
    Ok(vec![above_or(call.float(0)?, |x| x * f64::from(slope))?])
}

pub(super) fn parametric_rectify(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let (x, slope, dims) = call.broadcast(call.float(0)?, call.input(1)?)?;
    if dims != x.dims() {
        return Err(refused!("slope of shape {:?} does not broadcast to {:?}", slope.dims(), x.dims()));
    }
    Ok(vec![above_or(&x, |x| x.broadcast_mul(&slope))?])
}

pub(super) fn thresholded_rectify(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let (x, least) = (call.float(0)?, call.attributes().float("alpha", 1.0)?);
    Ok(vec![x.gt(f64::from(least))?.where_cond(x, &x.zeros_like()?)?])
}

pub(super) fn elu(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let alpha = f64::from(call.attributes().float("alpha", 1.0)?);
    Ok(vec![above_or(call.float(0)?, |x| (x.exp()? - 1.0)? * alpha)?])
}

pub(super) fn celu(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let alpha = f64::from(call.attributes().float("alpha", 1.0)?);
    Ok(vec![above_or(call.float(0)?, |x| ((x / alpha)?.exp()? - 1.0)? * alpha)?])
}

pub(super) fn selu(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let alpha = f64::from(call.attributes().float("alpha", 1.673_263_2)?);
    let gamma = f64::from(call.attributes().float("gamma", 1.050_701)?);
    Ok(vec![(above_or(call.float(0)?, |x| (x.exp()? - 1.0)? * alpha)? * gamma)?])
}

pub(super) fn hard_sigmoid(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let (slope, offset) = (call.attributes().float("alpha", 0.2)?, call.attributes().float("beta", 0.5)?);
    Ok(vec![clamped(&call.float(0)?.affine(slope.into(), offset.into())?, 0.0, 1.0)?])
}

pub(super) fn gelu(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let x = call.float(0)?;
    Ok(vec![match call.attributes().text("approximate", "none")? {
        "none" => mapped(x, Function::Gelu).unwrap_or_else(|| x.gelu_erf())?,
        "tanh" => {
            let inner = ((x * GELU_SCALE)? * (x.sqr()? * 0.044_715)?.affine(1.0, 1.0)?)?;
            ((x * 0.5)? * (inner.tanh()? + 1.0)?)?
        }
        other => return Err(refused!("approximate is '{other}', it must be 'none' or 'tanh'")),
    }])
}

/// Bounds are attributes up to version 10, inputs from 11 on.
pub(super) fn clip(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let x = call.input(0)?;
    let bound = |index, name: &str| -> Outcome<Option<f64>> {
        match call.optional_number(index)? {
            Some(bound) => Ok(Some(bound)),
            None if call.attributes().has(name) => Ok(Some(call.attributes().float(name, 0.0)?.into())),
            None => Ok(None),
        }
    };
    let (least, most) = (bound(1, "min")?, bound(2, "max")?);
    if is_float(x.dtype()) {
        let raised = least.map_or(Ok(x.clone()), |least| x.maximum(least))?;
        return Ok(vec![most.map_or(Ok(raised.clone()), |most| raised.minimum(most))?]);
    }
    let (least, most) = (least.map_or(i64::MIN, |least| least as i64), most.map_or(i64::MAX, |most| most as i64));
    let values = ints(x)?.into_iter().map(|value| value.max(least).min(most)).collect();
    Ok(vec![from_ints(values, x.dims(), x.dtype())?])
}

pub(super) fn is_infinite(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let x = wide(call.float(0)?)?;
    let side = |sign: f64, name: &str| -> Outcome<Tensor> {
        let wanted = u8::from(call.attributes().flag(name, true)?);
        Ok((x.eq(sign * f64::INFINITY)? * f64::from(wanted))?)
    };
    Ok(vec![side(1.0, "detect_positive")?.maximum(&side(-1.0, "detect_negative")?)?])
}

pub(super) fn not(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let x = call.input(0)?;
    match x.dtype() {
        DType::U8 => Ok(vec![x.eq(0u8)?]),
        dtype => Err(refused!("its input is {}, it must be boolean", dtype.as_str())),
    }
}

/// The values themselves; of dropout, whose inference it is, the mask that keeps all of them too.
pub(super) fn identity(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let x = call.input(0)?;
    let mut outputs = vec![x.clone()];
    if call.wants(1) {
        outputs.push(Tensor::ones(x.shape(), DType::U8, &candle_core::Device::Cpu)?);
    }
    Ok(outputs)
}

/// Dropout does nothing, unless a graph asks for training.
pub(super) fn dropout(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    match call.optional_number(2)? {
        Some(training) if training != 0.0 => Err(refused!("training_mode is set, only inference is served")),
        _ => identity(call),
    }
}

/// Of two tensors, the first's values where the condition holds.
pub(super) fn select(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let condition = call.input(0)?;
    if condition.dtype() != DType::U8 {
        return Err(refused!("its condition is {}, it must be boolean", condition.dtype().as_str()));
    }
    let (yes, no, dims) = call.broadcast(call.input(1)?, call.input(2)?)?;
    let dims = broadcast_dims(&dims, condition.dims())?;
    call.fits(&dims, yes.dtype())?;
    let condition = condition.to_device(yes.device())?.broadcast_as(dims.as_slice())?;
    Ok(vec![condition.where_cond(&yes.broadcast_as(dims.as_slice())?, &no.broadcast_as(dims.as_slice())?)?])
}

/// The number of a tensor that holds one, as a condition.
pub(in crate::onnx) fn holds(tensor: &Tensor) -> Outcome<bool> {
    match floats(tensor)?.as_slice() {
        [value] => Ok(*value != 0.0),
        values => Err(refused!("its condition has {} values, it must have one", values.len())),
    }
}
