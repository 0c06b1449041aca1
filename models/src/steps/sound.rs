//! Steps on samples of sound.

use orion_proto::{Code, Error, Result};

use super::tensors::{MOST_VALUES, Values};
use crate::resampler::Resampler;

/// Each row at another rate.
pub(super) fn resample(x: &Values, from: u32, to: u32) -> Result<Values> {
    let failed = |error: String| Error::new(Code::Internal, format!("resampling failed: {error}"));
    let samples = (x.width() as u128 * u128::from(to)).div_ceil(u128::from(from).max(1));
    let samples = usize::try_from(samples).ok().filter(|count| count.saturating_mul(x.shape[0]) <= MOST_VALUES);
    let samples =
        samples.ok_or_else(|| Error::invalid(format!("input 'x' has shape {:?}, that is too long", x.shape)))?;
    let mut values = Vec::with_capacity(samples * x.shape[0]);
    for row in x.rows().take(x.shape[0]) {
        let end = values.len() + samples;
        let mut sink = |piece: &[f32]| values.extend_from_slice(piece);
        let mut resampler = Resampler::new(from as usize, to as usize).map_err(failed)?;
        resampler.push(row, &mut sink).map_err(failed)?;
        resampler.finish(&mut sink).map_err(failed)?;
        values.resize(end, 0.0);
    }
    Ok(Values { shape: vec![x.shape[0], samples], values })
}

/// One row cut into rows of equal size, each `step` samples after the one before.
pub(super) fn chunk(x: &Values, size: usize, step: usize) -> Result<Values> {
    // The last begins where the one before does not reach to the end.
    let count = x.values.len().saturating_sub(size).div_ceil(step.max(1)) + 1;
    let total = count.saturating_mul(size);
    if total > MOST_VALUES {
        let shape = &x.shape;
        let text = format!(
            "input 'x' of shape {shape:?} makes {count} chunks of {size}, {MOST_VALUES} samples are answered at most"
        );
        return Err(Error::invalid(text));
    }
    let mut values = Vec::with_capacity(total);
    for row in 0..count {
        let from = (row * step).min(x.values.len());
        let to = (from + size).min(x.values.len());
        values.extend_from_slice(&x.values[from..to]);
        values.resize((row + 1) * size, 0.0);
    }
    Ok(Values { shape: vec![count, size], values })
}
