//! exp on whole vectors, and sums of them.

use super::lanes::{Kernel, LANES, Lanes};

/// Within 2e-7 relative from −87.3 to 88; beyond, as at the end.
#[inline(always)]
pub(super) fn exp<L: Lanes>(lanes: L, x: L::V) -> L::V {
    /// Adding it leaves a whole number in the low bits: 1.5 · 2²³.
    const ROUND: f32 = 12_582_912.0;
    let least = lanes.max(x, lanes.splat(-87.3));
    // The lesser of two by the greater of their negatives.
    let zero = lanes.splat(0.0);
    let x = lanes.sub(zero, lanes.max(lanes.sub(zero, least), lanes.splat(-88.0)));
    let rounded = lanes.fma(x, lanes.splat(std::f32::consts::LOG2_E), lanes.splat(ROUND));
    let whole = lanes.sub(rounded, lanes.splat(ROUND));
    // ln 2 in two parts, so that the rest keeps all its bits.
    let rest = lanes.fma(whole, lanes.splat(-0.693_359_4), x);
    let rest = lanes.fma(whole, lanes.splat(2.121_944_4e-4), rest);
    let taylor = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let small = taylor.iter().fold(zero, |sum, &c| lanes.fma(sum, rest, lanes.splat(c)));
    lanes.add_exponents(small, rounded)
}

/// Turns values into exp((value − greatest) · scale); the sum of all. What is filled up to whole vectors must be −∞.
pub(crate) struct ExpSum<'a> {
    pub(crate) values: &'a mut [f32],
    pub(crate) greatest: f32,
    pub(crate) scale: f32,
}

impl Kernel for ExpSum<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> f32 {
        let (greatest, scale) = (lanes.splat(self.greatest), lanes.splat(self.scale));
        let mut sum = lanes.splat(0.0);
        let (vectors, _) = self.values.as_chunks_mut::<LANES>();
        for values in vectors {
            let value = exp(lanes, lanes.mul(lanes.sub(lanes.load(values), greatest), scale));
            lanes.store(value, values);
            sum = lanes.add(sum, value);
        }
        lanes.sum(sum)
    }
}
