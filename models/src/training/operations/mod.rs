//! Operations with gradients, for the tensor library. What each computes does not depend on the number of threads.

mod attention;
mod convolution;
mod cross_entropy;
mod dense;
mod gelu;
mod norm;
mod product;
mod rms_norm;
mod rotation;
#[cfg(test)]
mod tests;

use candle_core::{CpuStorage, Layout, Result, Tensor, bail};

pub(super) use attention::Attention;
pub(super) use convolution::ConvolutionBlock;
pub(super) use cross_entropy::CrossEntropy;
pub(super) use dense::Dense;
pub(super) use gelu::Gelu;
pub(super) use norm::Norm;
use product::{Matrix, multiply};
pub(super) use rms_norm::RmsNorm;
pub(super) use rotation::Rotation;

/// Adds the product of `[rows, inner]` and `[inner, columns]` to a matrix.
pub(super) fn add_product(left: &[f32], right: &[f32], inner: usize, to: &mut [f32]) {
    let (left, right) = (Matrix::new(left, left.len() / inner, inner), Matrix::new(right, inner, right.len() / inner));
    multiply(left, right, to, true);
}

fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.flatten_all()?.to_vec1()
}

fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((from, to)) => Ok(&storage.as_slice::<f32>()?[from..to]),
        None => bail!("an operation takes contiguous values"),
    }
}
