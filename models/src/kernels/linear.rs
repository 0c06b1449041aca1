//! A dense layer whose weight is packed once, with its bias and activation applied while a tile is in the cache.

use std::cell::Cell;

use half::bf16;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{
    bf16_dot::Bf16Dot,
    math::gelu,
    output::Output,
    paired::PairedWeight,
    panels::{MOST_ROWS, MOST_WIDTH, Tile, even_pieces, multiply, tile_rows, width},
    weight::Weight,
};
use crate::Precision;

/// Rows of one task: enough that a panel is worth fetching, few enough to share out.
const TASK_ROWS: usize = 8 * MOST_ROWS;
/// Values that are rounded at once.
const ROUNDED_VALUES: usize = 1 << 14;

/// What follows the bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    None,
    Gelu,
}

/// `activation(x · weightᵀ + bias)`.
pub(crate) struct Linear {
    held: Held,
    /// Filled with zeros to whole panels.
    bias: Vec<f32>,
    activation: Activation,
}

/// A weight as its products take it: with rows in f32, or with rows rounded to bf16.
enum Held {
    Plain(Weight),
    Paired(PairedWeight),
}

impl Linear {
    /// Packs a weight `[outputs, inputs]` as checkpoints hold it.
    pub(crate) fn new(weight: &[f32], bias: Vec<f32>, activation: Activation) -> Self {
        Self::held_in(Precision::F32, weight, bias, activation)
    }

    /// The same with the weight held in a precision. Products of bf16 are computed in bf16 where the machine can, with sums
    /// in f32; all else is computed in f32.
    pub(crate) fn held_in(precision: Precision, weight: &[f32], mut bias: Vec<f32>, activation: Activation) -> Self {
        let paired = if precision == Precision::Bf16 { PairedWeight::new(weight, bias.len()) } else { None };
        let held = match paired {
            Some(paired) => Held::Paired(paired),
            None => Held::Plain(Weight::new(weight, bias.len(), precision)),
        };
        bias.resize(bias.len().next_multiple_of(MOST_WIDTH), 0.0);
        Self { held, bias, activation }
    }

    /// Adds one value to each output, in place of those before; as many as there are outputs.
    pub(crate) fn set_bias(&mut self, mut bias: Vec<f32>) {
        bias.resize(self.bias.len(), 0.0);
        self.bias = bias;
    }

    /// What follows the bias, in place of what did before.
    pub(crate) fn set_activation(&mut self, activation: Activation) {
        self.activation = activation;
    }

    /// Bytes of the packed weight and the bias at most, for any instruction set.
    pub(crate) fn bytes(inputs: usize, outputs: usize, precision: Precision) -> u64 {
        Weight::bytes(inputs, outputs, precision) + Weight::bytes(1, outputs, Precision::F32)
    }

    /// Of `x` `[rows, inputs]` into `out` `[rows, outputs]`.
    pub(crate) fn forward(&self, x: &[f32], out: &mut [f32]) {
        let inputs = self.inputs();
        self.forward_strided(x, inputs, x.len() / inputs, out);
    }

    /// The same where the rows lie `stride` apart; rows that overlap make it a convolution.
    pub(crate) fn forward_strided(&self, x: &[f32], stride: usize, rows: usize, out: &mut [f32]) {
        let out = Values::F32(Output::new(out));
        match &self.held {
            Held::Plain(weight) => self.run(Operands::Plain(weight, x), stride, rows, out),
            Held::Paired(weight) => {
                rounded(weight.dot, x, |x| self.run(Operands::Paired(weight, x), stride, rows, out));
            }
        }
    }

    fn inputs(&self) -> usize {
        match &self.held {
            Held::Plain(weight) => weight.inputs,
            Held::Paired(weight) => weight.inputs,
        }
    }

    fn run(&self, operands: Operands<'_>, stride: usize, rows: usize, out: Values) {
        let pieces: Vec<(usize, usize)> = even_pieces(rows, TASK_ROWS).collect();
        let (panels, arch) = (operands.panels(), Arch::new());
        (0..panels * pieces.len()).into_par_iter().for_each(|task| {
            // A thread's neighbouring tasks share a panel, which stays in its cache.
            let (panel, (first, rows)) = (task / pieces.len(), pieces[task % pieces.len()]);
            arch.dispatch(Task { layer: self, operands, stride, out, panel, first, rows });
        });
    }
}

/// A layer and the one that reads what it gives.
pub(crate) struct FeedForward {
    pub(crate) up: Linear,
    pub(crate) down: Linear,
}

impl FeedForward {
    /// Of `x` `[rows, inputs]` into `out` `[rows, outputs]`; `inner` is room for what lies between, `[rows, inner]`.
    pub(crate) fn forward(&self, x: &[f32], inner: &mut [f32], out: &mut [f32]) {
        let (Held::Paired(up), Held::Paired(down)) = (&self.up.held, &self.down.held) else {
            self.up.forward(x, inner);
            return self.down.forward(inner, out);
        };
        // Never in f32: it would be written and read in twice the bytes.
        // SAFETY: any bits are bf16 values.
        let (_, inner, _) = unsafe { inner.align_to_mut::<bf16>() };
        let rows = x.len() / up.inputs;
        let between = Values::Bf16(up.dot, Output::new(inner));
        rounded(up.dot, x, |x| self.up.run(Operands::Paired(up, x), up.inputs, rows, between));
        let out = Values::F32(Output::new(out));
        self.down.run(Operands::Paired(down, inner), down.inputs, rows, out);
    }
}

/// Gives `work` the values rounded to bf16.
fn rounded(dot: Bf16Dot, values: &[f32], work: impl FnOnce(&[bf16])) {
    thread_local! {
        /// Fresh memory would be faulted in page by page.
        static KEPT: Cell<Vec<bf16>> = const { Cell::new(Vec::new()) };
    }
    let mut halves = KEPT.take();
    halves.resize(values.len(), bf16::ZERO);
    let pieces = halves.par_chunks_mut(ROUNDED_VALUES).zip(values.par_chunks(ROUNDED_VALUES));
    pieces.for_each(|(to, from)| dot.round(from, to));
    work(&halves);
    KEPT.set(halves);
}

/// What is multiplied: a weight, and rows as it takes them.
#[derive(Clone, Copy)]
enum Operands<'a> {
    Plain(&'a Weight, &'a [f32]),
    Paired(&'a PairedWeight, &'a [bf16]),
}

impl Operands<'_> {
    fn outputs(&self) -> usize {
        match self {
            Self::Plain(weight, _) => weight.outputs,
            Self::Paired(weight, _) => weight.outputs,
        }
    }

    fn panels(&self) -> usize {
        match self {
            Self::Plain(weight, _) => weight.count(),
            Self::Paired(weight, _) => weight.outputs.div_ceil(MOST_WIDTH),
        }
    }
}

/// Where the results go, and in which form.
#[derive(Clone, Copy)]
enum Values {
    F32(Output),
    Bf16(Bf16Dot, Output<bf16>),
}

/// One panel's columns for some rows.
struct Task<'a> {
    layer: &'a Linear,
    operands: Operands<'a>,
    stride: usize,
    out: Values,
    panel: usize,
    first: usize,
    rows: usize,
}

impl WithSimd for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (mut widened, stride, outputs) = (Vec::new(), self.stride, self.operands.outputs());
        let (panel, columns) = match self.operands {
            Operands::Plain(weight, x) => {
                let (panel, columns) = weight.panel(self.panel, &mut widened);
                (Panel::Plain(panel, x), columns)
            }
            Operands::Paired(weight, x) => {
                let (panel, columns) = weight.panel(self.panel);
                (Panel::Paired(weight.dot, panel, x), columns)
            }
        };
        let (bias, _) = S::as_simd_f32s(&self.layer.bias[columns.start..][..width::<S>()]);
        let mut tile: Tile = [0.0; MOST_ROWS * MOST_WIDTH];
        for (offset, rows) in even_pieces(self.rows, tile_rows::<S>()) {
            let first = self.first + offset;
            // A closure would not be compiled for the instruction set, so which product it is is asked here.
            match panel {
                Panel::Plain(panel, x) => multiply(simd, &x[first * stride..], stride, rows, panel, &mut tile),
                Panel::Paired(dot, panel, x) => dot.multiply(&x[first * stride..], stride, rows, panel, &mut tile),
            }
            for (row, values) in tile.chunks_exact_mut(MOST_WIDTH).take(rows).enumerate() {
                let (vectors, _) = S::as_mut_simd_f32s(values);
                for (value, bias) in vectors.iter_mut().zip(bias) {
                    *value = simd.add_f32s(*value, *bias);
                    if self.layer.activation == Activation::Gelu {
                        *value = gelu(simd, *value);
                    }
                }
                let (at, values) = ((first + row) * outputs + columns.start, &values[..columns.len()]);
                match self.out {
                    // SAFETY: `run`'s caller holds the slice; each task has rows and columns of its own.
                    Values::F32(out) => unsafe { out.piece(at, values.len()) }.copy_from_slice(values),
                    // SAFETY: as above.
                    Values::Bf16(dot, out) => dot.round(values, unsafe { out.piece(at, values.len()) }),
                }
            }
        }
    }
}

/// A panel, and the rows that it is multiplied with.
#[derive(Clone, Copy)]
enum Panel<'a> {
    Plain(&'a [f32], &'a [f32]),
    Paired(Bf16Dot, &'a [bf16], &'a [bf16]),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::weight::{PRECISIONS, rounded as held_as};
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
                let (weight, mut whole) = (held_as(&weight, precision), vec![f32::NAN; rows * outputs]);
                let layer = Linear::held_in(precision, &weight, bias.clone(), Activation::None);
                let paired = matches!(layer.held, Held::Paired(_));
                assert_eq!(paired, precision == Precision::Bf16 && Bf16Dot::detect().is_some() && inputs % 2 == 0);
                // What rounding leaves as it is: so only the order of additions differs.
                let x = if paired { held_as(&x, precision) } else { x.clone() };
                Linear::new(&weight, bias.clone(), Activation::None).forward(&x, &mut whole);
                let mut held = vec![f32::NAN; rows * outputs];
                layer.forward(&x, &mut held);
                let most = held.iter().zip(&whole).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(most <= if paired { 1e-5 } else { 0.0 }, "{precision:?} {rows}x{inputs}x{outputs}: {most}");
            }
            for (index, got) in out.iter().enumerate() {
                let (row, column) = (index / outputs, index % outputs);
                let pairs = x[row * inputs..][..inputs].iter().zip(&weight[column * inputs..]);
                let want = bias[column] + pairs.map(|(a, b)| a * b).sum::<f32>();
                assert!((got - want).abs() < 1e-5, "{rows}x{inputs}x{outputs} at {row},{column}: {got} for {want}");
            }
        }
    }

    #[test]
    fn a_pair_of_layers_is_one_after_the_other() {
        let mut random = StdRng::seed_from_u64(3);
        let mut floats = |n: usize| (0..n).map(|_| random.random::<f32>() - 0.5).collect::<Vec<f32>>();
        let (rows, width, inner) = (131, 48, 70);
        let (x, up, down) = (floats(rows * width), floats(width * inner), floats(inner * width));
        for precision in PRECISIONS {
            let up = Linear::held_in(precision, &up, vec![0.1; inner], Activation::Gelu);
            let down = Linear::held_in(precision, &down, vec![-0.2; width], Activation::None);
            let (mut between, mut want) = (vec![f32::NAN; rows * inner], vec![f32::NAN; rows * width]);
            up.forward(&x, &mut between);
            down.forward(&between, &mut want);
            let mut got = vec![f32::NAN; rows * width];
            FeedForward { up, down }.forward(&x, &mut between, &mut got);
            assert_eq!(got, want, "{precision:?}");
        }
    }
}
