//! Matrix products.

use candle_core::Tensor;

use super::{
    super::fault::{Outcome, refused},
    call::{Call, broadcast_dims, is_float},
};

/// The product of two matrices, or of stacks of them that broadcast.
pub(super) fn product(call: &Call<'_>, left: &Tensor, right: &Tensor) -> Outcome<Tensor> {
    if left.dtype() != right.dtype() || !is_float(left.dtype()) {
        let (left, right) = (left.dtype().as_str(), right.dtype().as_str());
        return Err(refused!("its inputs are {left} and {right}, they must be of one floating-point type"));
    }
    let dims = product_dims(left.dims(), right.dims())?;
    call.fits(&dims, left.dtype())?;
    if dims.contains(&0) || left.dims().contains(&0) {
        return Ok(Tensor::zeros(dims, left.dtype(), left.device())?);
    }
    // A vector is a matrix of one row or column.
    let rows = if left.rank() == 1 { left.unsqueeze(0)? } else { left.clone() };
    let columns = if right.rank() == 1 { right.unsqueeze(1)? } else { right.clone() };
    let batch = dims[..dims.len() - usize::from(left.rank() > 1) - usize::from(right.rank() > 1)].to_vec();
    for side in [&rows, &columns] {
        // Operands of a stack may have to be copied for each of its matrices.
        call.fits(&[batch.as_slice(), &side.dims()[side.rank() - 2..]].concat(), side.dtype())?;
    }
    Ok(matrix_product(&rows, &columns, &batch)?.reshape(dims)?)
}

/// The product of stacks of matrices whose shapes are known to fit. The library's own takes few layouts and stacks of up
/// to two dimensions: others are copied first.
fn matrix_product(rows: &Tensor, columns: &Tensor, batch: &[usize]) -> candle_core::Result<Tensor> {
    let stack = |side: &Tensor| side.dims()[..side.rank() - 2].iter().product::<usize>();
    let count: usize = batch.iter().product();
    if stack(columns) == 1 {
        // One matrix on the right: the rows of all on the left at once.
        let inner = rows.dims()[rows.rank() - 1];
        return rows.reshape((rows.elem_count() / inner, inner))?.matmul(&plain(&single(columns)?)?);
    }
    if stack(rows) == 1 {
        let (m, k) = single(rows)?.dims2()?;
        let n = columns.dims()[columns.rank() - 1];
        return plain(&single(rows)?)?
            .unsqueeze(0)?
            .broadcast_as((count, m, k))?
            .matmul(&columns.reshape((count, k, n))?);
    }
    let [rows, columns] = [rows, columns].map(|side| {
        let matrix = &side.dims()[side.rank() - 2..];
        let side = plain(&side.broadcast_as([batch, matrix].concat())?)?;
        if side.rank() > 4 { side.reshape((count, matrix[0], matrix[1])) } else { Ok(side) }
    });
    rows?.matmul(&columns?)
}

/// The only matrix of a stack, where it lies.
fn single(stack: &Tensor) -> candle_core::Result<Tensor> {
    (2..stack.rank()).try_fold(stack.clone(), |stack, _| stack.squeeze(0))
}

/// A tensor whose matrices lie row after row or column after column, one after the other.
fn plain(side: &Tensor) -> candle_core::Result<Tensor> {
    let (dims, strides) = (side.dims(), side.stride());
    let rank = dims.len();
    let (rows, columns) = (dims[rank - 2], dims[rank - 1]);
    let within = (strides[rank - 2], strides[rank - 1]);
    let outer = dims.iter().zip(strides).rev().skip(2);
    let stacked = outer.clone().scan(rows * columns, |step, (dim, stride)| {
        let fits = stride == step;
        *step *= dim;
        Some(fits)
    });
    let plain = (within == (columns, 1) || within == (1, rows)) && stacked.into_iter().all(|fits| fits);
    if plain { Ok(side.clone()) } else { side.contiguous() }
}

/// The shape of a product, of vectors too.
pub(in crate::onnx) fn product_dims(left: &[usize], right: &[usize]) -> Outcome<Vec<usize>> {
    let unfit = || refused!("shapes {left:?} and {right:?} have no product");
    let (outer_left, inner_left) = match left {
        [] => return Err(unfit()),
        [inner] => (&[][..], *inner),
        [batch @ .., _, inner] => (batch, *inner),
    };
    let (outer_right, inner_right) = match right {
        [] => return Err(unfit()),
        [inner] => (&[][..], *inner),
        [batch @ .., inner, _] => (batch, *inner),
    };
    if inner_left != inner_right {
        return Err(unfit());
    }
    let mut dims = broadcast_dims(outer_left, outer_right).map_err(|_| unfit())?;
    dims.extend(left.len().checked_sub(2).map(|row| left[row]));
    dims.extend(right.len().checked_sub(2).map(|_| right[right.len() - 1]));
    Ok(dims)
}

pub(super) fn matmul(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    Ok(vec![product(call, call.input(0)?, call.input(1)?)?])
}

/// `alpha · A · B + beta · C`, A and B transposed where asked.
pub(super) fn gemm(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let attributes = call.attributes();
    let side = |index: usize, name: &str| -> Outcome<Tensor> {
        let matrix = call.float(index)?;
        if matrix.rank() != 2 {
            return Err(refused!("its input {index} has shape {:?}, it must be a matrix", matrix.dims()));
        }
        Ok(if attributes.flag(name, false)? { matrix.t()? } else { matrix.clone() })
    };
    let product = product(call, &side(0, "transA")?, &side(1, "transB")?)?;
    let scaled = |tensor: &Tensor, by: f32| if by == 1.0 { Ok(tensor.clone()) } else { tensor * f64::from(by) };
    let product = scaled(&product, attributes.float("alpha", 1.0)?)?;
    let Some(added) = call.optional(2) else { return Ok(vec![product]) };
    let added = scaled(added, attributes.float("beta", 1.0)?)?;
    let (product, added, dims) = call.broadcast(&product, &added)?;
    match dims == product.dims() {
        true => Ok(vec![product.broadcast_add(&added)?]),
        false => Err(refused!("shape {:?} of C does not broadcast to {:?}", added.dims(), product.dims())),
    }
}
