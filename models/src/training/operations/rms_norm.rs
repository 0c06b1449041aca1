//! Normalisation by the root of the mean square (Zhang and Sennrich, arXiv:1910.07467).

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::{slice, values};

/// Rows whose gradients are summed one after the other. Fixed: the sum must not depend on the number of threads.
const TOGETHER: usize = 64;

/// Of rows, with a weight of one row.
pub(in crate::training) struct RmsNorm {
    pub(in crate::training) epsilon: f32,
}

impl RmsNorm {
    /// One over the root.
    fn of(&self, row: &[f32]) -> f32 {
        let mean = row.iter().map(|value| value * value).sum::<f32>() / row.len() as f32;
        (mean + self.epsilon).sqrt().recip()
    }

    /// Of one row; what the weight is given is added to `sum`.
    fn gradient(&self, row: &[f32], weight: &[f32], grad: &[f32], into: &mut [f32], sum: &mut [f32]) {
        let scale = self.of(row);
        let mut inner = 0.0;
        for at in 0..row.len() {
            sum[at] += grad[at] * row[at] * scale;
            inner += grad[at] * weight[at] * row[at];
        }
        let back = inner * scale * scale * scale / row.len() as f32;
        for at in 0..row.len() {
            into[at] = grad[at] * weight[at] * scale - row[at] * back;
        }
    }
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_at: &Layout,
        weight: &CpuStorage,
        weight_at: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, weight) = (slice(x, x_at)?, slice(weight, weight_at)?);
        if weight.is_empty() || !x.len().is_multiple_of(weight.len()) {
            bail!("a normalisation of {} values does not fit {:?}", weight.len(), x_at.dims())
        }
        let mut out = vec![0.0; x.len()];
        let rows = out.par_chunks_exact_mut(weight.len()).zip(x.par_chunks_exact(weight.len()));
        rows.with_min_len(TOGETHER).for_each(|(out, row)| {
            let scale = self.of(row);
            out.iter_mut().zip(row).zip(weight).for_each(|((out, value), weight)| *out = value * scale * weight);
        });
        Ok((CpuStorage::F32(out), x_at.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (rows, learnt, grad) = (values(x)?, values(weight)?, values(grad)?);
        let width = learnt.len();
        let (mut into, some) = (vec![0.0; rows.len()], TOGETHER * width);
        let parts = into.par_chunks_mut(some).zip(rows.par_chunks(some)).zip(grad.par_chunks(some));
        let part = |((into, rows), grad): ((&mut [f32], &[f32]), &[f32])| {
            let mut sum = vec![0.0; width];
            let all = into.chunks_exact_mut(width).zip(rows.chunks_exact(width)).zip(grad.chunks_exact(width));
            all.for_each(|((into, row), grad)| self.gradient(row, &learnt, grad, into, &mut sum));
            sum
        };
        let mut sum = vec![0.0; width];
        for part in parts.map(part).collect::<Vec<_>>() {
            sum.iter_mut().zip(&part).for_each(|(sum, value)| *sum += value);
        }
        let by_weight = Tensor::from_vec(sum, weight.shape(), weight.device())?;
        Ok((Some(Tensor::from_vec(into, x.shape(), x.device())?), Some(by_weight)))
    }
}
