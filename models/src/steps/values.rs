//! Steps that change each value, or each row of the last dimension.

use orion_proto::{Datatype, Error, Result, Tensor};

use super::tensors::{Values, tensor};

pub(super) fn softmax(mut x: Values) -> Values {
    for row in x.rows_mut() {
        let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        // Of a row of -inf all are equally likely.
        row.iter_mut().for_each(|value| *value = if *value == most { 1.0 } else { (*value - most).exp() });
        let sum: f32 = row.iter().sum();
        row.iter_mut().for_each(|value| *value /= sum);
    }
    x
}

pub(super) fn sigmoid(mut x: Values) -> Values {
    x.values.iter_mut().for_each(|value| *value = 1.0 / (1.0 + (-*value).exp()));
    x
}

/// A row of zeros stays one.
pub(super) fn unit_length(mut x: Values) -> Values {
    for row in x.rows_mut() {
        let length = row.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        if length > 0.0 {
            row.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
        }
    }
    x
}

pub(super) fn normalize(mut x: Values, mean: &[f32], deviation: &[f32]) -> Result<Values> {
    let channels = x.shape.get(1).copied().unwrap_or(1);
    for (what, given) in [("mean", mean), ("deviation", deviation)] {
        if given.len() != 1 && given.len() != channels {
            let (count, shape) = (given.len(), &x.shape);
            return Err(Error::invalid(format!(
                "input 'x' has shape {shape:?}, its second dimension must be {count}: the step has so many of '{what}'"
            )));
        }
    }
    let inner: usize = x.shape.iter().skip(2).product();
    let of = |given: &[f32], channel: usize| if given.len() == 1 { given[0] } else { given[channel] };
    for (place, values) in x.values.chunks_mut(inner.max(1)).enumerate() {
        let channel = place % channels.max(1);
        let (mean, deviation) = (of(mean, channel), of(deviation, channel));
        values.iter_mut().for_each(|value| *value = (*value - mean) / deviation);
    }
    Ok(x)
}

pub(super) fn threshold(x: &Values, at: f32) -> Tensor {
    tensor("y", Datatype::Bool, &x.shape, x.values.iter().map(|value| u8::from(*value >= at)).collect())
}
