//! A dense layer whose weight is packed once, with its bias and activation applied while a tile is in the cache.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{
    math::gelu,
    panels::{MOST_ROWS, MOST_WIDTH, Tile, even_pieces, multiply, tile_rows, width},
    weight::Weight,
};
use crate::Precision;

/// Rows of one task: enough that a panel is worth fetching, few enough to share out.
const TASK_ROWS: usize = 8 * MOST_ROWS;

/// What follows the bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    None,
    Gelu,
}

/// `activation(x · weightᵀ + bias)`.
pub(crate) struct Linear {
    weight: Weight,
    /// Filled with zeros to whole panels.
    bias: Vec<f32>,
    activation: Activation,
}

/// An output whose tiles several threads write, each its own.
#[derive(Clone, Copy)]
pub(super) struct Output {
    start: *mut f32,
    length: usize,
}

// SAFETY: it is a slice cut into pieces that do not overlap; `Output::piece` says so.
unsafe impl Send for Output {}
// SAFETY: as above.
unsafe impl Sync for Output {}

impl Output {
    pub(super) fn new(slice: &mut [f32]) -> Self {
        Self { start: slice.as_mut_ptr(), length: slice.len() }
    }

    /// A piece of the slice.
    ///
    /// # Safety
    /// The slice is alive and no other thread reads or writes this piece meanwhile.
    #[inline(always)]
    pub(super) unsafe fn piece<'a>(self, at: usize, length: usize) -> &'a mut [f32] {
        assert!(at + length <= self.length, "a piece lies inside its slice");
        // SAFETY: inside the slice by the assertion, unshared by the caller's word.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(at), length) }
    }
}

impl Linear {
    /// Packs a weight `[outputs, inputs]` as checkpoints hold it.
    pub(crate) fn new(weight: &[f32], bias: Vec<f32>, activation: Activation) -> Self {
        Self::held_in(Precision::F32, weight, bias, activation)
    }

    /// The same with the weight held in a precision; it computes in f32.
    pub(crate) fn held_in(precision: Precision, weight: &[f32], bias: Vec<f32>, activation: Activation) -> Self {
        let weight = Weight::new(weight, bias.len(), precision);
        Self { bias: weight.padded(bias), weight, activation }
    }

    /// Bytes of the packed weight and the bias at most, for any instruction set.
    pub(crate) fn bytes(inputs: usize, outputs: usize, precision: Precision) -> u64 {
        Weight::bytes(inputs, outputs, precision) + Weight::bytes(1, outputs, Precision::F32)
    }

    /// Of `x` `[rows, inputs]` into `out` `[rows, outputs]`.
    pub(crate) fn forward(&self, x: &[f32], out: &mut [f32]) {
        self.forward_strided(x, self.weight.inputs, x.len() / self.weight.inputs, out);
    }

    /// The same where the rows lie `stride` apart; rows that overlap make it a convolution.
    pub(crate) fn forward_strided(&self, x: &[f32], stride: usize, rows: usize, out: &mut [f32]) {
        let pieces: Vec<(usize, usize)> = even_pieces(rows, TASK_ROWS).collect();
        let (output, arch) = (Output::new(out), Arch::new());
        (0..self.weight.count() * pieces.len()).into_par_iter().for_each(|task| {
            // A thread's neighbouring tasks share a panel, which stays in its cache.
            let (panel, (first, rows)) = (task / pieces.len(), pieces[task % pieces.len()]);
            arch.dispatch(Task { layer: self, x, stride, output, panel, first, rows });
        });
    }
}

/// One panel's columns for some rows.
struct Task<'a> {
    layer: &'a Linear,
    x: &'a [f32],
    stride: usize,
    output: Output,
    panel: usize,
    first: usize,
    rows: usize,
}

impl WithSimd for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Linear { weight, bias, activation } = self.layer;
        let mut widened = Vec::new();
        let (panel, columns) = weight.panel(self.panel, &mut widened);
        let (bias, _) = S::as_simd_f32s(&bias[columns.start..][..width::<S>()]);
        let mut tile: Tile = [0.0; MOST_ROWS * MOST_WIDTH];
        for (offset, rows) in even_pieces(self.rows, tile_rows::<S>()) {
            let first = self.first + offset;
            multiply(simd, &self.x[first * self.stride..], self.stride, rows, panel, &mut tile);
            for (row, values) in tile.chunks_exact_mut(MOST_WIDTH).take(rows).enumerate() {
                let (vectors, _) = S::as_mut_simd_f32s(values);
                for (value, bias) in vectors.iter_mut().zip(bias) {
                    *value = simd.add_f32s(*value, *bias);
                    if *activation == Activation::Gelu {
                        *value = gelu(simd, *value);
                    }
                }
                let at = (first + row) * weight.outputs + columns.start;
                // SAFETY: `forward` holds the slice; each task has rows and columns of its own.
                let out = unsafe { self.output.piece(at, columns.len()) };
                out.copy_from_slice(&values[..columns.len()]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::weight::{PRECISIONS, rounded};
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    #[test]
    fn a_convolution_is_a_product_over_overlapping_rows() {
        // Three taps of two channels, stride 2, over five steps.
        let x: Vec<f32> = (0..10).map(|n| n as f32).collect();
        let weight: Vec<f32> = (0..12).map(|n| (n * n % 7) as f32).collect();
        let layer = Linear::new(&weight, vec![0.5, -1.0], Activation::None);
        let mut out = [f32::NAN; 4];
        layer.forward_strided(&x, 4, 2, &mut out);
        let tap = |step: usize, channel: usize| {
            (0..6).map(|n| x[4 * step + n] * weight[6 * channel + n]).sum::<f32>() + [0.5, -1.0][channel]
        };
        assert_eq!(out, [tap(0, 0), tap(0, 1), tap(1, 0), tap(1, 1)]);
    }

    #[test]
    fn agrees_with_the_plain_sum_at_every_edge() {
        let mut random = StdRng::seed_from_u64(1);
        let mut floats = |n: usize| (0..n).map(|_| random.random::<f32>() - 0.5).collect::<Vec<f32>>();
        for (rows, inputs, outputs) in [(1, 1, 1), (7, 5, 33), (15, 40, 64), (29, 48, 47), (113, 16, 96), (230, 3, 31)]
        {
            let (x, weight, bias) = (floats(rows * inputs), floats(inputs * outputs), floats(outputs));
            let mut out = vec![f32::NAN; rows * outputs];
            Linear::new(&weight, bias.clone(), Activation::None).forward(&x, &mut out);
            for precision in PRECISIONS {
                let (weight, mut whole) = (rounded(&weight, precision), vec![f32::NAN; rows * outputs]);
                Linear::new(&weight, bias.clone(), Activation::None).forward(&x, &mut whole);
                let mut held = vec![f32::NAN; rows * outputs];
                Linear::held_in(precision, &weight, bias.clone(), Activation::None).forward(&x, &mut held);
                assert_eq!(held, whole, "{precision:?} {rows}x{inputs}x{outputs}");
            }
            for (index, got) in out.iter().enumerate() {
                let (row, column) = (index / outputs, index % outputs);
                let pairs = x[row * inputs..][..inputs].iter().zip(&weight[column * inputs..]);
                let want = bias[column] + pairs.map(|(a, b)| a * b).sum::<f32>();
                assert!((got - want).abs() < 1e-5, "{rows}x{inputs}x{outputs} at {row},{column}: {got} for {want}");
            }
        }
    }
}
