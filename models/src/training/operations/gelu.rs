//! GELU (Hendrycks and Gimpel, arXiv:1606.08415), by the error function.

use std::f32::consts::{FRAC_1_SQRT_2, PI};

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{slice, values};
use crate::kernels::Function;

/// x · Φ(x) of each value.
pub(in crate::training) struct Gelu;

impl CustomOp1 for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, x_at: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut out = slice(x, x_at)?.to_vec();
        Function::Gelu.apply(&mut out);
        Ok((CpuStorage::F32(out), x_at.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _out: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (mut seen, grad) = (values(x)?, values(grad)?);
        let mut into: Vec<f32> = seen.par_iter().map(|value| value * FRAC_1_SQRT_2).collect();
        Function::Erf.apply(&mut into);
        let density = (2.0 * PI).sqrt().recip();
        seen.par_iter_mut().zip(&mut into).zip(&grad).for_each(|((x, erf), grad)| {
            let slope = (1.0 + *erf) / 2.0 + *x * density * (-*x * *x / 2.0).exp();
            *erf = slope * grad;
        });
        Ok(Some(Tensor::from_vec(into, x.shape(), x.device())?))
    }
}
