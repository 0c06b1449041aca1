//! Products with a weight that is packed already.

use candle_core::{Device, Tensor};

use super::{
    super::fault::{Outcome, refused},
    call::Call,
    host::values,
    planes::wide,
};

/// Rows of any number of dimensions times the weight, and what follows.
pub(super) fn dense(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let input = call.input(0)?;
    let dense = call.node.dense.as_ref().ok_or_else(|| refused!("its weight is missing"))?;
    if input.dtype() != dense.dtype {
        let (left, right) = (input.dtype().as_str(), dense.dtype.as_str());
        return Err(refused!("its inputs are {left} and {right}, they must be of one floating-point type"));
    }
    if dense.matrix && input.rank() != 2 {
        return Err(refused!("its input 0 has shape {:?}, it must be a matrix", input.dims()));
    }
    let Some((_, outer)) = input.dims().split_last().filter(|(inner, _)| **inner == dense.inputs) else {
        let (left, right) = (input.dims(), [dense.inputs, dense.outputs]);
        return Err(refused!("shapes {left:?} and {right:?} have no product"));
    };
    let dims = [outer, &[dense.outputs]].concat();
    call.fits(&dims, input.dtype())?;
    let rows = wide(input)?;
    let mut out = vec![0.0; dims.iter().product()];
    dense.layer.forward(&values(&rows)?, &mut out);
    Ok(vec![Tensor::from_vec(out, dims, &Device::Cpu)?.to_dtype(dense.dtype)?])
}
