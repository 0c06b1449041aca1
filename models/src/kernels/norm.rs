//! Layer normalisation and the last step, unit length.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// Rows of one task; fewer cost less than sharing them out.
const TASK_ROWS: usize = 64;

/// Layer normalisation over rows of a multiple of 16 values.
pub(crate) struct Norm {
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
    pub(crate) epsilon: f32,
}

impl Norm {
    /// `x` becomes the normalised `x + added`.
    pub(crate) fn add(&self, x: &mut [f32], added: &[f32]) {
        let (arch, chunk) = (Arch::new(), TASK_ROWS * self.weight.len());
        if x.len() <= chunk {
            return arch.dispatch(AddRows { norm: self, x, added });
        }
        x.par_chunks_mut(chunk)
            .zip(added.par_chunks(chunk))
            .for_each(|(x, added)| arch.dispatch(AddRows { norm: self, x, added }));
    }

    /// Each row of `x` becomes normalised.
    pub(crate) fn rows(&self, x: &mut [f32]) {
        let (arch, chunk) = (Arch::new(), TASK_ROWS * self.weight.len());
        if x.len() <= chunk {
            return arch.dispatch(Rows { norm: self, x });
        }
        x.par_chunks_mut(chunk).for_each(|x| arch.dispatch(Rows { norm: self, x }));
    }

    /// `x` becomes `x + added`, `out` that normalised: for layers that normalise what they read.
    pub(crate) fn add_before(&self, x: &mut [f32], added: &[f32], out: &mut [f32]) {
        let (arch, chunk) = (Arch::new(), TASK_ROWS * self.weight.len());
        if x.len() <= chunk {
            return arch.dispatch(AddBeforeRows { norm: self, x, added, out });
        }
        x.par_chunks_mut(chunk)
            .zip(added.par_chunks(chunk))
            .zip(out.par_chunks_mut(chunk))
            .for_each(|((x, added), out)| arch.dispatch(AddBeforeRows { norm: self, x, added, out }));
    }
}

struct Rows<'a> {
    norm: &'a Norm,
    x: &'a mut [f32],
}

impl WithSimd for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for x in self.x.chunks_exact_mut(self.norm.weight.len()) {
            let mut sum = simd.splat_f32s(0.0);
            for x in S::as_simd_f32s(x).0 {
                sum = simd.add_f32s(sum, *x);
            }
            normalise(simd, self.norm, x, sum);
        }
    }
}

struct AddRows<'a> {
    norm: &'a Norm,
    x: &'a mut [f32],
    added: &'a [f32],
}

impl WithSimd for AddRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let width = self.norm.weight.len();
        for (x, added) in self.x.chunks_exact_mut(width).zip(self.added.chunks_exact(width)) {
            let sum = add(simd, x, added);
            normalise(simd, self.norm, x, sum);
        }
    }
}

struct AddBeforeRows<'a> {
    norm: &'a Norm,
    x: &'a mut [f32],
    added: &'a [f32],
    out: &'a mut [f32],
}

impl WithSimd for AddBeforeRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let width = self.norm.weight.len();
        let rows = self.x.chunks_exact_mut(width).zip(self.added.chunks_exact(width));
        for ((x, added), out) in rows.zip(self.out.chunks_exact_mut(width)) {
            let sum = add(simd, x, added);
            out.copy_from_slice(x);
            normalise(simd, self.norm, out, sum);
        }
    }
}

/// `x` becomes `x + added`; its sum, by lanes.
#[inline(always)]
fn add<S: Simd>(simd: S, x: &mut [f32], added: &[f32]) -> S::f32s {
    let mut sum = simd.splat_f32s(0.0);
    for (x, added) in S::as_mut_simd_f32s(x).0.iter_mut().zip(S::as_simd_f32s(added).0) {
        *x = simd.add_f32s(*x, *added);
        sum = simd.add_f32s(sum, *x);
    }
    sum
}

/// One row of that sum.
#[inline(always)]
fn normalise<S: Simd>(simd: S, norm: &Norm, x: &mut [f32], sum: S::f32s) {
    let Norm { weight, bias, epsilon } = norm;
    let width = x.len();
    let (x, weight, bias) = (S::as_mut_simd_f32s(x).0, S::as_simd_f32s(weight).0, S::as_simd_f32s(bias).0);
    let mean = simd.splat_f32s(simd.reduce_sum_f32s(sum) / width as f32);
    let mut squares = simd.splat_f32s(0.0);
    for x in x.iter_mut() {
        *x = simd.sub_f32s(*x, mean);
        squares = simd.mul_add_e_f32s(*x, *x, squares);
    }
    let variance = simd.reduce_sum_f32s(squares) / width as f32;
    let scale = simd.splat_f32s(1.0 / (variance + epsilon).sqrt());
    for ((x, weight), bias) in x.iter_mut().zip(weight).zip(bias) {
        *x = simd.mul_add_e_f32s(simd.mul_f32s(*x, scale), *weight, *bias);
    }
}

/// The sum of rows at unit length: that of their mean too.
pub(crate) fn normalise_sum(rows: &[f32], out: &mut [f32]) {
    out.fill(0.0);
    for row in rows.chunks_exact(out.len()) {
        out.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
    }
    let length = out.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    out.iter_mut().for_each(|x| *x /= length);
}
