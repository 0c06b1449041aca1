//! Layer normalisation (Ba and others, arXiv:1607.06450).

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::{slice, values};

/// Rows whose gradients are summed one after the other. Fixed: the sum must not depend on the number of threads.
const TOGETHER: usize = 64;

/// Of rows `[rows, width]`, with a weight and a bias of one row.
pub(in crate::training) struct Norm {
    pub(in crate::training) epsilon: f64,
}

impl Norm {
    /// A row's mean, and one over its deviation.
    fn of(&self, row: &[f32]) -> (f32, f32) {
        let width = row.len() as f32;
        let mean = row.iter().sum::<f32>() / width;
        let variance = row.iter().map(|value| (value - mean) * (value - mean)).sum::<f32>() / width;
        (mean, (variance + self.epsilon as f32).sqrt().recip())
    }
}

impl CustomOp3 for Norm {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_at: &Layout,
        weight: &CpuStorage,
        weight_at: &Layout,
        bias: &CpuStorage,
        bias_at: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, weight, bias) = (slice(x, x_at)?, slice(weight, weight_at)?, slice(bias, bias_at)?);
        let width = weight.len();
        if width == 0 || x.len() % width > 0 || bias.len() != width {
            bail!("a normalisation of {width} values does not fit {:?}", x_at.dims())
        }
        let mut out = vec![0.0; x.len()];
        out.par_chunks_exact_mut(width).zip(x.par_chunks_exact(width)).with_min_len(TOGETHER).for_each(|(out, row)| {
            let (mean, scale) = self.of(row);
            let learnt = weight.iter().zip(bias);
            for ((out, value), (weight, bias)) in out.iter_mut().zip(row).zip(learnt) {
                *out = (value - mean) * scale * weight + bias;
            }
        });
        Ok((CpuStorage::F32(out), x_at.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (rows, learnt, grad) = (values(x)?, values(weight)?, values(grad)?);
        let width = learnt.len();
        let mut into = vec![0.0; rows.len()];
        let some = TOGETHER * width;
        let parts = into.par_chunks_mut(some).zip(rows.par_chunks(some)).zip(grad.par_chunks(some));
        let part = |((into, rows), grad): ((&mut [f32], &[f32]), &[f32])| {
            let mut sums = vec![0.0; 2 * width];
            let all = into.chunks_exact_mut(width).zip(rows.chunks_exact(width)).zip(grad.chunks_exact(width));
            all.for_each(|((into, row), grad)| self.gradient(row, &learnt, grad, into, &mut sums));
            sums
        };
        let mut sums = vec![0.0; 2 * width];
        for part in parts.map(part).collect::<Vec<_>>() {
            sums.iter_mut().zip(&part).for_each(|(sum, value)| *sum += value);
        }
        let by_bias = Tensor::from_slice(&sums[width..], bias.shape(), bias.device())?;
        let by_weight = Tensor::from_slice(&sums[..width], weight.shape(), weight.device())?;
        Ok((Some(Tensor::from_vec(into, x.shape(), x.device())?), Some(by_weight), Some(by_bias)))
    }
}

impl Norm {
    /// Of one row; what the weight and the bias are given is added to `sums`.
    fn gradient(&self, row: &[f32], weight: &[f32], grad: &[f32], into: &mut [f32], sums: &mut [f32]) {
        let width = row.len();
        let (mean, scale) = self.of(row);
        let (by_weight, by_bias) = sums.split_at_mut(width);
        let (mut first, mut second) = (0.0, 0.0);
        for at in 0..width {
            let normal = (row[at] - mean) * scale;
            by_weight[at] += grad[at] * normal;
            by_bias[at] += grad[at];
            let inner = grad[at] * weight[at];
            first += inner;
            second += inner * normal;
        }
        let (first, second) = (first / width as f32, second / width as f32);
        for at in 0..width {
            let normal = (row[at] - mean) * scale;
            into[at] = scale * (grad[at] * weight[at] - first - normal * second);
        }
    }
}
