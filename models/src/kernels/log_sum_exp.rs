//! The logarithm of a sum of exponentials: what turns a logit into a log-probability.

use pulp::{Arch, Simd, WithSimd};

use super::math::exp_not_positive;

/// ln Σ exp(x), without overflow; −∞ for no values or where all are −∞.
pub(crate) fn log_sum_exp(values: &[f32]) -> f32 {
    let greatest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if greatest == f32::NEG_INFINITY {
        return greatest;
    }
    greatest + Arch::new().dispatch(SumExp { values, greatest }).ln()
}

/// Σ exp(x − greatest).
struct SumExp<'a> {
    values: &'a [f32],
    greatest: f32,
}

impl WithSimd for SumExp<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        let (vectors, rest) = S::as_simd_f32s(self.values);
        let greatest = simd.splat_f32s(self.greatest);
        let mut sum = simd.splat_f32s(0.0);
        for x in vectors {
            sum = simd.add_f32s(sum, exp_not_positive(simd, simd.sub_f32s(*x, greatest)));
        }
        rest.iter().fold(simd.reduce_sum_f32s(sum), |sum, x| sum + (x - self.greatest).exp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_double_precision() {
        for count in [1, 15, 16, 1501, 51_864] {
            let values: Vec<f32> = (0..count).map(|n| ((n * 7919) % 1000) as f32 / 40.0 - 90.0).collect();
            let want = values.iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
            let got = f64::from(log_sum_exp(&values));
            assert!((got - want).abs() < 2e-5, "{count}: {got}, not {want}");
        }
        let masked = [f32::NEG_INFINITY, 3.0, f32::NEG_INFINITY].repeat(20);
        assert!((log_sum_exp(&masked) - (3.0 + 20f32.ln())).abs() < 1e-6);
        assert_eq!(log_sum_exp(&[f32::NEG_INFINITY; 40]), f32::NEG_INFINITY);
        assert_eq!(log_sum_exp(&[]), f32::NEG_INFINITY);
    }
}
