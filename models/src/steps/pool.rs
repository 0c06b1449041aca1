//! One vector of a row's tokens.

use orion_proto::{Error, Result, Tensor, step::Pooling};

use super::tensors::Values;

pub(super) fn pool(x: &Values, inputs: &[Tensor], of: Pooling) -> Result<Values> {
    let [rows, tokens, width] = [x.shape[0], x.shape[1], x.shape[2]];
    let mask = mask(inputs, rows, tokens)?;
    let mut values = Vec::with_capacity(rows * width);
    for row in 0..rows {
        let counts = |token: &usize| mask.as_ref().is_none_or(|mask| mask[row * tokens + token]);
        let token = |token: usize| &x.values[(row * tokens + token) * width..][..width];
        let mut counted = (0..tokens).filter(counts);
        let mut out = vec![0.0f32; width];
        match (of, counted.next()) {
            // Of a row without tokens nothing is known.
            (_, None) => {}
            (Pooling::First, Some(first)) => out.copy_from_slice(token(first)),
            (Pooling::Max, Some(first)) => {
                out.copy_from_slice(token(first));
                counted.for_each(|at| out.iter_mut().zip(token(at)).for_each(|(most, value)| *most = most.max(*value)));
            }
            (Pooling::Mean, Some(first)) => {
                let mut sum: Vec<f64> = token(first).iter().map(|value| f64::from(*value)).collect();
                let mut count = 1.0;
                for at in counted {
                    sum.iter_mut().zip(token(at)).for_each(|(sum, value)| *sum += f64::from(*value));
                    count += 1.0;
                }
                out.iter_mut().zip(sum).for_each(|(mean, sum)| *mean = (sum / count) as f32);
            }
        }
        values.extend(out);
    }
    Ok(Values { shape: vec![rows, width], values })
}

fn mask(inputs: &[Tensor], rows: usize, tokens: usize) -> Result<Option<Vec<bool>>> {
    let Some(mask) = inputs.iter().find(|tensor| tensor.name == "mask") else { return Ok(None) };
    if mask.shape != [rows as i64, tokens as i64] {
        let shape = &mask.shape;
        return Err(Error::invalid(format!("input 'mask' has shape {shape:?}, it must be [{rows}, {tokens}], as 'x'")));
    }
    let data = mask.data.contiguous();
    Ok(Some(data.chunks_exact(8).map(|value| value.iter().any(|byte| *byte != 0)).collect()))
}
