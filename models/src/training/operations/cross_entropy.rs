//! How much is lost where rows of logits stand for classes.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::{slice, values};

/// Of logits `[rows, classes]`: minus the logarithm of the share of each row's class, each times its weight, summed.
pub(in crate::training) struct CrossEntropy {
    pub(in crate::training) targets: Vec<u32>,
    pub(in crate::training) weights: Vec<f32>,
}

/// A row's greatest value, and the sum of how all are beside it.
fn shares(row: &[f32]) -> (f32, f32) {
    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    (most, row.iter().map(|value| (value - most).exp()).sum())
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(&self, logits: &CpuStorage, logits_at: &Layout) -> Result<(CpuStorage, Shape)> {
        let &[rows, classes] = logits_at.dims() else { bail!("logits are a matrix") };
        let fits = self.targets.iter().all(|target| (*target as usize) < classes);
        if [self.targets.len(), self.weights.len()] != [rows; 2] || !fits {
            bail!("{} classes do not fit logits of {rows} rows of {classes}", self.targets.len())
        }
        let lost = |(row, target): (&[f32], &u32)| {
            let (most, sum) = shares(row);
            sum.ln() - (row[*target as usize] - most)
        };
        let logits = slice(logits, logits_at)?;
        let lost: Vec<f32> = logits.par_chunks_exact(classes).zip(&self.targets).map(lost).collect();
        let sum: f32 = lost.iter().zip(&self.weights).map(|(lost, weight)| lost * weight).sum();
        Ok((CpuStorage::F32(vec![sum]), Shape::from(())))
    }

    fn bwd(&self, logits: &Tensor, _out: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (classes, grad) = (logits.dim(1)?, grad.to_scalar::<f32>()?);
        let mut into = values(logits)?;
        let rows = into.par_chunks_exact_mut(classes).zip(&self.targets).zip(&self.weights);
        rows.for_each(|((row, target), weight)| {
            let (most, sum) = shares(row);
            let scale = grad * weight;
            row.iter_mut().for_each(|value| *value = (*value - most).exp() / sum * scale);
            row[*target as usize] -= scale;
        });
        Tensor::from_vec(into, logits.shape(), logits.device()).map(Some)
    }
}
