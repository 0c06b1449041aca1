//! exp and the functions made of it, on whole vectors.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// Values that one thread computes at once.
const PIECE: usize = 1 << 13;

/// A polynomial, highest power first.
#[inline(always)]
fn polynomial<S: Simd>(simd: S, x: S::f32s, coefficients: &[f32]) -> S::f32s {
    coefficients.iter().fold(simd.splat_f32s(0.0), |sum, &c| simd.mul_add_e_f32s(sum, x, simd.splat_f32s(c)))
}

/// exp for x ≤ 0, within 2e-7 relative; at most 1.2e-38 below −87.3.
#[inline(always)]
pub(super) fn exp_not_positive<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    /// Adding it leaves a whole number in the low bits: 1.5 · 2²³.
    const ROUND: f32 = 12_582_912.0;
    let x = simd.max_f32s(x, simd.splat_f32s(-87.3));
    let rounded = simd.mul_add_e_f32s(x, simd.splat_f32s(std::f32::consts::LOG2_E), simd.splat_f32s(ROUND));
    let whole = simd.sub_f32s(rounded, simd.splat_f32s(ROUND));
    // ln 2 in two parts, so that the rest keeps all its bits.
    let rest = simd.mul_add_e_f32s(whole, simd.splat_f32s(-0.693_359_4), x);
    let rest = simd.mul_add_e_f32s(whole, simd.splat_f32s(2.121_944_4e-4), rest);
    let taylor = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let small = simd.transmute_u32s_f32s(polynomial(simd, rest, &taylor));
    let exponent = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(rounded), simd.splat_u32s(23));
    simd.transmute_f32s_u32s(simd.add_u32s(small, exponent))
}

/// 1 / (1 + exp(−x)), within 2e-7.
#[inline(always)]
pub(super) fn sigmoid<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let small = exp_not_positive(simd, simd.neg_f32s(simd.abs_f32s(x)));
    let above = simd.div_f32s(simd.splat_f32s(1.0), simd.add_f32s(small, simd.splat_f32s(1.0)));
    simd.select_f32s(simd.less_than_f32s(x, simd.splat_f32s(0.0)), simd.mul_f32s(small, above), above)
}

/// The hyperbolic tangent, within 4e-7, and 3e-6 of itself.
#[inline(always)]
pub(super) fn tanh<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    /// Below it, sizes are near each other that the sigmoid's rounding would be large beside: Taylor's series is taken.
    const SMALL: f32 = 0.25;
    const SERIES: [f32; 5] = [62.0 / 2835.0, -17.0 / 315.0, 2.0 / 15.0, -1.0 / 3.0, 1.0];
    let twice = sigmoid(simd, simd.add_f32s(x, x));
    let large = simd.mul_add_e_f32s(twice, simd.splat_f32s(2.0), simd.splat_f32s(-1.0));
    let small = simd.mul_f32s(x, polynomial(simd, simd.mul_f32s(x, x), &SERIES));
    simd.select_f32s(simd.less_than_f32s(simd.abs_f32s(x), simd.splat_f32s(SMALL)), small, large)
}

/// The error function, within 1e-6: the rational minimax approximation that Eigen and XLA use.
#[inline(always)]
fn erf<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    const ABOVE: [f32; 7] = [
        -2.726_142_3e-10,
        2.770_681_4e-8,
        -2.101_024e-6,
        -5.692_506_4e-5,
        -7.349_906_3e-4,
        -2.954_6e-3,
        -1.609_603_3e-2,
    ];
    const BELOW: [f32; 5] = [-1.456_607_2e-5, -2.133_740_6e-4, -1.682_827e-3, -7.373_329e-3, -1.426_474e-2];
    let x = simd.max_f32s(simd.min_f32s(x, simd.splat_f32s(4.0)), simd.splat_f32s(-4.0));
    let square = simd.mul_f32s(x, x);
    let above = simd.mul_f32s(x, polynomial(simd, square, &ABOVE));
    simd.div_f32s(above, polynomial(simd, square, &BELOW))
}

/// x / 2 · (1 + erf(x / √2)), within 1e-6.
#[inline(always)]
pub(super) fn gelu<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let half = simd.mul_f32s(x, simd.splat_f32s(0.5));
    let erf = erf(simd, simd.mul_f32s(x, simd.splat_f32s(std::f32::consts::FRAC_1_SQRT_2)));
    simd.mul_add_e_f32s(half, erf, half)
}

/// A function of one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    Erf,
    Gelu,
    Sigmoid,
    Tanh,
}

impl Function {
    /// Of each value, on all threads. What is no number stays none.
    pub(crate) fn apply(self, values: &mut [f32]) {
        let arch = Arch::new();
        values.par_chunks_mut(PIECE).for_each(|values| arch.dispatch(Apply { function: self, values }));
    }
}

struct Apply<'a> {
    function: Function,
    values: &'a mut [f32],
}

impl WithSimd for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (vectors, rest) = S::as_mut_simd_f32s(self.values);
        for x in vectors {
            *x = of(simd, self.function, *x);
        }
        for x in rest {
            *x = simd.reduce_max_f32s(of(simd, self.function, simd.splat_f32s(*x)));
        }
    }
}

#[inline(always)]
fn of<S: Simd>(simd: S, function: Function, x: S::f32s) -> S::f32s {
    let value = match function {
        Function::Erf => erf(simd, x),
        Function::Gelu => gelu(simd, x),
        Function::Sigmoid => sigmoid(simd, x),
        Function::Tanh => tanh(simd, x),
    };
    simd.select_f32s(simd.equal_f32s(x, x), value, x)
}

/// GELU of each value.
pub(crate) fn gelu_all(values: &mut [f32]) {
    Arch::new().dispatch(GeluAll(values));
}

struct GeluAll<'a>(&'a mut [f32]);

impl WithSimd for GeluAll<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (vectors, rest) = S::as_mut_simd_f32s(self.0);
        vectors.iter_mut().for_each(|x| *x = gelu(simd, *x));
        rest.iter_mut().for_each(|x| *x = simd.reduce_max_f32s(gelu(simd, simd.splat_f32s(*x))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::cpu::erf::erf_f64;

    struct Each<'a>(&'a mut [f32], bool);

    impl WithSimd for Each<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            for x in S::as_mut_simd_f32s(self.0).0 {
                *x = if self.1 { gelu(simd, *x) } else { exp_not_positive(simd, *x) };
            }
        }
    }

    #[test]
    fn functions_agree_with_double_precision() {
        let mut points: Vec<f32> = (0..160_000).map(|i| (i as f32 - 80_000.0) / 2_000.0).collect();
        points.extend([-1e30, 1e30, f32::MIN, f32::MAX, f32::INFINITY, f32::NEG_INFINITY, 0.5]);
        for function in [Function::Erf, Function::Gelu, Function::Sigmoid, Function::Tanh] {
            let mut got = points.clone();
            function.apply(&mut got);
            // Without end, GELU's factors have no product.
            let finite = |(x, _): &(&f32, f32)| function != Function::Gelu || x.is_finite();
            for (x, got) in points.iter().zip(got).filter(finite) {
                let x = f64::from(*x);
                let want = match function {
                    Function::Erf => erf_f64(x),
                    Function::Gelu => x / 2.0 * (1.0 + erf_f64(x / std::f64::consts::SQRT_2)),
                    Function::Sigmoid => 1.0 / (1.0 + (-x).exp()),
                    Function::Tanh => x.tanh(),
                };
                let most = match function {
                    Function::Erf => 1e-6,
                    Function::Gelu => 1e-6 * x.abs().max(1.0),
                    _ => 4e-7,
                };
                assert!((f64::from(got) - want).abs() < most, "{function:?}({x}) = {got}, not {want}");
            }
            if function == Function::Tanh {
                let mut near: Vec<f32> = (0..400).map(|n| 1.1f32.powi(n - 380)).collect();
                let small = near.clone();
                function.apply(&mut near);
                for (x, got) in small.iter().zip(near) {
                    let want = f64::from(*x).tanh();
                    assert!((f64::from(got) / want - 1.0).abs() < 3e-6, "tanh({x}) = {got}, not {want}");
                }
            }
            let mut none = [f32::NAN; 17];
            function.apply(&mut none);
            assert!(none.iter().all(|value| value.is_nan()), "{function:?} of no number");
        }
    }

    #[test]
    fn both_agree_with_double_precision() {
        let points: Vec<f32> = (0..160_000).map(|i| (i as f32 - 80_000.0) / 8_000.0).collect();
        let mut got = points.clone();
        Arch::new().dispatch(Each(&mut got, true));
        for (x, got) in points.iter().zip(got) {
            let x = f64::from(*x);
            let want = x / 2.0 * (1.0 + erf_f64(x / 2f64.sqrt()));
            assert!((f64::from(got) - want).abs() < 1e-6, "gelu({x}) = {got}, not {want}");
        }
        let points: Vec<f32> = points.iter().map(|x| (x - 10.0) * 4.3).collect();
        let mut got = points.clone();
        Arch::new().dispatch(Each(&mut got, false));
        for (x, got) in points.iter().zip(got) {
            let want = f64::from(*x).exp();
            assert!((f64::from(got) / want - 1.0).abs() < 3e-7, "exp({x}) = {got}, not {want}");
        }
        let mut far = [f32::MIN, -1e30, -88.0, f32::NEG_INFINITY].repeat(16);
        Arch::new().dispatch(Each(&mut far, false));
        assert!(far.iter().all(|x| (0.0..1e-37).contains(x)), "{far:?}");
    }
}
