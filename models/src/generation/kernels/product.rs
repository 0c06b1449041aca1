//! Rows times a weight as it lies in its file.

use std::ops::Range;

use super::{
    destination::Destination,
    formats::{Bf16, F16, F32, Format, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q8_1, blocks},
    k_quants::{Q2K, Q3K, Q4K, Q5K, Q6K, Q8K},
    lanes::{Kernel, LANES, Lanes},
    matrix::{Matrix, fetch_ahead, with_format},
    tile::{COLUMNS, dots, tile},
};
use crate::gguf::Encoding;

/// Some outputs of `x` times a weight, for each of its rows.
pub(crate) struct Product<'a> {
    pub(crate) matrix: &'a Matrix,
    /// Row after row.
    pub(crate) x: &'a [f32],
    /// Which outputs.
    pub(crate) outputs: Range<usize>,
    pub(crate) to: Destination<'a>,
    /// Room for unpacked rows, kept from one product to the next.
    pub(crate) scratch: &'a mut Vec<f32>,
}

impl Kernel for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(mut self, lanes: L) {
        if self.x.len() != self.matrix.inputs {
            return self.rows(lanes);
        }
        // What is seldom met is not compiled for one row alone.
        with_format!(
            self.matrix.encoding,
            [F32 F16 Bf16 Q4K Q6K],
            F => self.one_row::<L, F>(lanes),
            self.rows(lanes)
        );
    }
}

impl Product<'_> {
    #[inline(always)]
    fn one_row<L: Lanes, F: Format>(&self, lanes: L) {
        for first in self.outputs.clone().step_by(COLUMNS) {
            // Where fewer are left, the last is computed several times.
            let last = self.outputs.end - 1;
            self.fetch_ahead(lanes, first);
            let row = |next: usize| self.matrix.row((first + next).min(last));
            let values = dots::<L, F>(lanes, [row(0), row(1), row(2), row(3)], self.x);
            self.to.put(0, first, &values[..COLUMNS.min(self.outputs.end - first)]);
        }
    }

    #[inline(always)]
    fn fetch_ahead<L: Lanes>(&self, lanes: L, output: usize) {
        let row = self.matrix.row(output);
        fetch_ahead(lanes, row.as_ptr(), COLUMNS * row.len());
    }

    #[inline(always)]
    fn rows<L: Lanes>(&mut self, lanes: L) {
        let depth = self.matrix.inputs;
        let mut scratch = std::mem::take(self.scratch);
        if scratch.len() < COLUMNS * depth {
            scratch.resize(COLUMNS * depth, 0.0);
        }
        let plain = self.matrix.plain();
        for output in self.outputs.clone().step_by(COLUMNS) {
            let columns = COLUMNS.min(self.outputs.end - output);
            self.fetch_ahead(lanes, output);
            let rows = plain.and_then(|plain| plain.get(output * depth..(output + COLUMNS) * depth));
            let weights = match rows {
                Some(rows) => rows,
                None => {
                    // Where fewer are left, stale rows are multiplied with them and their values dropped.
                    for (next, to) in scratch.chunks_exact_mut(depth).take(columns).enumerate() {
                        unpack(lanes, self.matrix, output + next, to);
                    }
                    &scratch[..COLUMNS * depth]
                }
            };
            self.tiles(lanes, weights, output);
        }
        *self.scratch = scratch;
    }

    /// All rows of `x` times the unpacked ones.
    #[inline(always)]
    fn tiles<L: Lanes>(&self, lanes: L, weights: &[f32], output: usize) {
        let (depth, rows) = (self.matrix.inputs, self.x.len() / self.matrix.inputs);
        let mut row = 0;
        while row < rows {
            let x = &self.x[row * depth..];
            row += match (rows - row).min(L::TILE_ROWS) {
                1 => self.tile::<L, 1>(lanes, x, weights, row, output),
                2 => self.tile::<L, 2>(lanes, x, weights, row, output),
                3 => self.tile::<L, 3>(lanes, x, weights, row, output),
                4 => self.tile::<L, 4>(lanes, x, weights, row, output),
                5 => self.tile::<L, 5>(lanes, x, weights, row, output),
                _ => self.tile::<L, 6>(lanes, x, weights, row, output),
            };
        }
    }

    /// `R` rows times the unpacked ones; `R`.
    #[inline(always)]
    fn tile<L: Lanes, const R: usize>(&self, lanes: L, x: &[f32], weights: &[f32], row: usize, output: usize) -> usize {
        let depth = self.matrix.inputs;
        let values = if L::TILE_COLUMNS == COLUMNS {
            tile::<L, R, COLUMNS>(lanes, x, weights, depth)
        } else {
            tile::<L, R, 2>(lanes, x, weights, depth)
        };
        for (next, values) in values.into_iter().enumerate() {
            self.to.put(row + next, output, &values[..COLUMNS.min(self.outputs.end - output)]);
        }
        R
    }
}

/// A row of a weight as f32, in the order of its format.
#[inline(always)]
fn unpack<L: Lanes>(lanes: L, matrix: &Matrix, row: usize, to: &mut [f32]) {
    let (row, (to, _)) = (matrix.row(row), to.as_chunks_mut::<LANES>());
    with_format!(
        matrix.encoding,
        [F32 F16 Bf16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q8_1 Q2K Q3K Q4K Q5K Q6K Q8K],
        F => for (block, to) in blocks::<F>(row).iter().zip(to.chunks_exact_mut(F::ELEMENTS / LANES)) {
            block.unpack(lanes, |at, values| lanes.store(values, &mut to[at / LANES]));
        },
        ()
    );
}

/// A row of a weight as f32.
pub(crate) struct Unpack<'a> {
    pub(crate) matrix: &'a Matrix,
    /// Which row; below `outputs`.
    pub(crate) row: usize,
    /// As long as a row.
    pub(crate) to: &'a mut [f32],
}

impl Kernel for Unpack<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        unpack(lanes, self.matrix, self.row, self.to);
    }
}
