//! Rotary positions (Su and others, arXiv:2104.09864), of halves of heads as checkpoints on hubs have them.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::{slice, values};

/// Of rows `[tokens, heads · width]`: the two halves of each head turn by each token's angles.
pub(in crate::training) struct Rotation {
    /// Of each token, of each pair of a head.
    pub(in crate::training) cosines: Vec<f32>,
    pub(in crate::training) sines: Vec<f32>,
    /// Values of a head.
    pub(in crate::training) width: usize,
}

impl Rotation {
    /// Turns all forwards, or backwards.
    fn turn(&self, values: &mut [f32], row: usize, way: f32) {
        let pairs = self.width / 2;
        let angles = self.cosines.par_chunks_exact(pairs).zip(self.sines.par_chunks_exact(pairs));
        values.par_chunks_exact_mut(row).zip(angles).for_each(|(row, (cosines, sines))| {
            for head in row.chunks_exact_mut(self.width) {
                let (low, high) = head.split_at_mut(pairs);
                for ((a, b), (cos, sin)) in low.iter_mut().zip(high).zip(cosines.iter().zip(sines)) {
                    (*a, *b) = (*a * cos - *b * sin * way, *a * sin * way + *b * cos);
                }
            }
        });
    }
}

impl CustomOp1 for Rotation {
    fn name(&self) -> &'static str {
        "rotation"
    }

    fn cpu_fwd(&self, x: &CpuStorage, x_at: &Layout) -> Result<(CpuStorage, Shape)> {
        let &[tokens, row] = x_at.dims() else { bail!("a rotation takes rows of heads") };
        if self.width < 2 || !row.is_multiple_of(self.width) || self.cosines.len() != tokens * (self.width / 2) {
            bail!("a rotation of {} values does not fit {tokens} rows of {row}", self.cosines.len())
        }
        let mut out = slice(x, x_at)?.to_vec();
        self.turn(&mut out, row, 1.0);
        Ok((CpuStorage::F32(out), x_at.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _out: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let mut into = values(grad)?;
        self.turn(&mut into, x.dim(1)?, -1.0);
        Tensor::from_vec(into, x.shape(), x.device()).map(Some)
    }
}
