//! What is done to each value, or to one row alone.

use super::{
    lanes::{Kernel, LANES, Lanes},
    math::exp,
};

/// Root mean square normalisation (Zhang and Sennrich 2019) of rows as wide as the weight.
pub(crate) struct Normalise<'a> {
    pub(crate) from: &'a [f32],
    pub(crate) to: &'a mut [f32],
    pub(crate) weight: &'a [f32],
    pub(crate) epsilon: f32,
}

impl Kernel for Normalise<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Self { from, to, weight, epsilon } = self;
        let (weights, _) = weight.as_chunks::<LANES>();
        for (from, to) in from.chunks_exact(weight.len()).zip(to.chunks_exact_mut(weight.len())) {
            let ((from, _), (to, _)) = (from.as_chunks::<LANES>(), to.as_chunks_mut::<LANES>());
            let mut squares = lanes.splat(0.0);
            for x in from {
                let x = lanes.load(x);
                squares = lanes.fma(x, x, squares);
            }
            let mean = lanes.sum(squares) / weight.len() as f32;
            let scale = lanes.splat(1.0 / (mean + epsilon).sqrt());
            for ((x, to), weight) in from.iter().zip(to).zip(weights) {
                lanes.store(lanes.mul(lanes.mul(lanes.load(x), scale), lanes.load(weight)), to);
            }
        }
    }
}

/// `gate` becomes silu(gate) · up, silu(x) being x / (1 + exp(−x)) (Shazeer 2020). Whole vectors.
pub(crate) struct Gate<'a> {
    pub(crate) gate: &'a mut [f32],
    pub(crate) up: &'a [f32],
}

impl Kernel for Gate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let ((gates, _), (ups, _)) = (self.gate.as_chunks_mut::<LANES>(), self.up.as_chunks::<LANES>());
        let (zero, one) = (lanes.splat(0.0), lanes.splat(1.0));
        for (gate, up) in gates.iter_mut().zip(ups) {
            let x = lanes.load(gate);
            let below = lanes.add(one, exp(lanes, lanes.sub(zero, x)));
            lanes.store(lanes.mul(lanes.div(x, below), lanes.load(up)), gate);
        }
    }
}
