//! A dense layer for a few rows, whose weights stay as they lie in their file: reading them is most of what it takes.

use std::ops::Range;

use rayon::prelude::*;

use crate::{
    generation::kernels::{Destination, Matrix, Product, Shared, Write, dispatch},
    kernels::gelu_all,
};

/// Outputs that no two threads share, so that vectors are whole.
const STEP: usize = 16;
/// Pieces for each thread: the last to end is waited for.
const PIECES: usize = 4;

/// One weight of a layer.
pub(super) struct Weight {
    pub(super) matrix: Matrix,
    pub(super) bias: Option<Vec<f32>>,
    /// What its outputs are multiplied with in the end.
    pub(super) scale: f32,
}

/// Several weights of the same input, their outputs side by side.
pub(super) struct Dense {
    weights: Vec<Weight>,
    outputs: usize,
    activates: bool,
}

impl Dense {
    /// Of one weight at least; `activates` puts GELU behind.
    pub(super) fn new(weights: Vec<Weight>, activates: bool) -> Self {
        let outputs = weights.iter().map(|weight| weight.matrix.outputs).sum();
        Self { weights, outputs, activates }
    }

    /// Columns of what it gives.
    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Of `x` `[rows, inputs]` into `out` `[rows, outputs]`; a row's result does not depend on the others.
    pub(super) fn forward(&self, x: &[f32], out: &mut [f32]) {
        let (total, rows) = (self.outputs, out.len() / self.outputs);
        let piece = (total / (PIECES * rayon::current_num_threads())).max(STEP).next_multiple_of(STEP);
        let out = Shared::new(out);
        (0..total.div_ceil(piece)).into_par_iter().for_each_init(Vec::new, |scratch, index| {
            let outputs = index * piece..total.min((index + 1) * piece);
            let mut column = 0;
            for weight in &self.weights {
                let end = column + weight.matrix.outputs;
                let own = outputs.start.max(column)..outputs.end.min(end);
                if !own.is_empty() {
                    let write = Write::Set(weight.bias.as_deref());
                    let outputs = own.start - column..own.end - column;
                    let to = Destination { out, column, stride: total, write };
                    dispatch(Product { matrix: &weight.matrix, x, outputs, to, scratch: &mut *scratch });
                    self.finish(weight.scale, own, rows, out);
                }
                column = end;
            }
        });
    }

    /// Scales and activates some outputs of all rows.
    fn finish(&self, scale: f32, outputs: Range<usize>, rows: usize, out: Shared<'_>) {
        if scale == 1.0 && !self.activates {
            return;
        }
        for row in 0..rows {
            // SAFETY: the outputs of a piece are its thread's alone.
            let values = unsafe { out.write(row * self.outputs + outputs.start, outputs.len()) };
            values.iter_mut().for_each(|value| *value *= scale);
            if self.activates {
                gelu_all(values);
            }
        }
    }
}
