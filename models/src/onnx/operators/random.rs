//! Tensors of random numbers, other ones each time. Where the file names a seed each node draws the same.

use candle_core::{Device, Tensor};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{call::Call, shape::sizes};
use crate::onnx::{
    element::Element,
    fault::{Outcome, refused},
};

/// Evenly between two numbers.
pub(super) fn uniform(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let (low, high) = (call.attributes().float("low", 0.0)?, call.attributes().float("high", 1.0)?);
    drawn(call, |draw| low + (high - low) * draw.random::<f32>())
}

/// Around a mean (Box and Muller, 1958).
pub(super) fn normal(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let (mean, scale) = (call.attributes().float("mean", 0.0)?, call.attributes().float("scale", 1.0)?);
    drawn(call, |draw| {
        // Never 0, whose logarithm is not finite.
        let (radius, angle) = (1.0 - draw.random::<f32>(), draw.random::<f32>());
        mean + scale * (-2.0 * radius.ln()).sqrt() * (std::f32::consts::TAU * angle).cos()
    })
}

fn drawn(call: &Call<'_>, number: impl Fn(&mut StdRng) -> f32) -> Outcome<Vec<Tensor>> {
    let attributes = call.attributes();
    let shape = attributes.ints("shape")?.ok_or_else(|| refused!("its shape is missing"))?;
    let dims = sizes(shape)?;
    let dtype = Element::from_number(attributes.int("dtype", 1)?)?.dtype(call.precision);
    if !dtype.is_float() {
        return Err(refused!("its numbers are drawn as floating-point ones, not as {}", dtype.as_str()));
    }
    call.fits(&dims, dtype)?;
    let mut draw = match attributes.has("seed") {
        true => StdRng::seed_from_u64(u64::from(attributes.float("seed", 0.0)?.to_bits())),
        false => StdRng::seed_from_u64(rand::random()),
    };
    let values: Vec<f32> = (0..dims.iter().product()).map(|_| number(&mut draw)).collect();
    Ok(vec![call.place(&Tensor::from_vec(values, dims, &Device::Cpu)?.to_dtype(dtype)?)?])
}
