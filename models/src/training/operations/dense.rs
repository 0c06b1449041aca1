//! A product with a weight.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::{
    product::{Matrix, multiply},
    slice, values,
};

/// Rows of a product that one thread computes. Fixed: what comes of it must not depend on the number of threads.
const TOGETHER: usize = 64;

/// `x · weightᵀ` of `[rows, inputs]` and `[outputs, inputs]`. What does not learn is given no gradient.
pub(in crate::training) struct Dense;

/// The product, some rows at a time.
fn product(left: &[f32], inner: usize, right: Matrix<'_>, rows: usize) -> Vec<f32> {
    let mut out = vec![0.0; rows * right.columns()];
    let parts = out.par_chunks_mut(TOGETHER * right.columns()).zip(left.par_chunks(TOGETHER * inner));
    parts.for_each(|(out, left)| multiply(Matrix::new(left, left.len() / inner, inner), right, out, false));
    out
}

/// `leftᵀ · right`, some of its rows at a time.
fn product_across(left: Matrix<'_>, right: Matrix<'_>) -> Vec<f32> {
    let mut out = vec![0.0; left.columns() * right.columns()];
    out.par_chunks_mut(TOGETHER * right.columns()).enumerate().for_each(|(part, out)| {
        let columns = out.len() / right.columns();
        multiply(left.some(part * TOGETHER, columns).across(), right, out, false);
    });
    out
}

impl CustomOp2 for Dense {
    fn name(&self) -> &'static str {
        "dense"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_at: &Layout,
        weight: &CpuStorage,
        weight_at: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (&[rows, inputs], &[outputs, seen]) = (x_at.dims(), weight_at.dims()) else {
            bail!("a product takes matrices, not {:?} and {:?}", x_at.dims(), weight_at.dims())
        };
        if inputs != seen || inputs == 0 {
            bail!("a weight of {seen} inputs does not fit {inputs}")
        }
        let weight = Matrix::new(slice(weight, weight_at)?, outputs, inputs).across();
        let out = product(slice(x, x_at)?, inputs, weight, rows);
        Ok((CpuStorage::F32(out), Shape::from((rows, outputs))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let ((rows, inputs), outputs) = (x.dims2()?, weight.dim(0)?);
        let grad = values(grad)?;
        let into = || {
            let weight = values(weight)?;
            let into = product(&grad, outputs, Matrix::new(&weight, outputs, inputs), rows);
            Tensor::from_vec(into, x.shape(), x.device())
        };
        let learns = || {
            let x = values(x)?;
            let learns = product_across(Matrix::new(&grad, rows, outputs), Matrix::new(&x, rows, inputs));
            Tensor::from_vec(learns, weight.shape(), weight.device())
        };
        Ok((x.track_op().then(into).transpose()?, weight.track_op().then(learns).transpose()?))
    }
}
