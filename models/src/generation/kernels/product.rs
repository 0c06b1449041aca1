//! Rows times a weight as it lies in its file.

use std::ops::Range;

use super::{
    formats::{Bf16, F16, F32, Format, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q8_1, blocks},
    k_quants::{Q2K, Q3K, Q4K, Q5K, Q6K, Q8K},
    lanes::{Kernel, LANES, Lanes},
    shared::Shared,
    tile::{dots, tile},
};
use crate::{gguf::Encoding, mapped::MappedBytes};

/// Weight rows that are unpacked together where several rows are multiplied.
const UNPACKED: usize = 4;

/// A weight `[outputs, inputs]`, as checkpoints hold it. Its inputs are a multiple of the lanes.
#[derive(Clone, Debug)]
pub(crate) struct Matrix {
    bytes: MappedBytes,
    encoding: Encoding,
    pub(crate) outputs: usize,
    pub(crate) inputs: usize,
    row_bytes: usize,
}

impl Matrix {
    /// `None` where the bytes are not those of such a matrix.
    pub(crate) fn new(bytes: MappedBytes, encoding: Encoding, outputs: usize, inputs: usize) -> Option<Self> {
        let row_bytes = encoding.row_bytes(inputs)?;
        let whole = inputs.is_multiple_of(LANES) && row_bytes.checked_mul(outputs) == Some(bytes.bytes().len());
        whole.then_some(Self { bytes, encoding, outputs, inputs, row_bytes })
    }

    fn row(&self, output: usize) -> &[u8] {
        &self.bytes.bytes()[output * self.row_bytes..][..self.row_bytes]
    }
}

/// Runs `body` with `F` as the format of an encoding, of those that are named; `rest` for the others.
macro_rules! with_format {
    ($encoding:expr, [$($name:ident)*], $format:ident => $body:expr, $rest:expr) => {
        match $encoding {
            $(Encoding::$name => {
                type $format = $name;
                $body
            })*
            #[allow(unreachable_patterns)]
            _ => $rest,
        }
    };
}

/// What becomes of a product.
#[derive(Clone, Copy)]
pub(crate) enum Write<'a> {
    /// It is written, with a bias where there is one.
    Set(Option<&'a [f32]>),
    /// It is added to what is there.
    Add,
}

/// Some outputs of `x` times a weight, for each of its rows.
pub(crate) struct Product<'a> {
    pub(crate) matrix: &'a Matrix,
    /// Row after row.
    pub(crate) x: &'a [f32],
    /// Which outputs.
    pub(crate) outputs: Range<usize>,
    /// Rows `stride` apart, the first output at `column`; nobody else touches these outputs meanwhile.
    pub(crate) out: Shared<'a>,
    pub(crate) column: usize,
    pub(crate) stride: usize,
    pub(crate) write: Write<'a>,
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
            [F32 F16 Bf16 Q4_0 Q4_1 Q8_0 Q4K Q6K],
            F => self.one_row::<L, F>(lanes),
            self.rows(lanes)
        );
    }
}

impl Product<'_> {
    #[inline(always)]
    fn put(&self, row: usize, output: usize, value: f32) {
        // SAFETY: these outputs are this product's alone.
        let place = unsafe { self.out.write(row * self.stride + self.column + output, 1) };
        place[0] = match self.write {
            Write::Set(None) => value,
            Write::Set(Some(bias)) => value + bias[output],
            Write::Add => place[0] + value,
        };
    }

    #[inline(always)]
    fn one_row<L: Lanes, F: Format>(&self, lanes: L) {
        for first in self.outputs.clone().step_by(4) {
            // Where fewer are left, the last is computed several times.
            let rows = [0, 1, 2, 3].map(|next| self.matrix.row((first + next).min(self.outputs.end - 1)));
            let values = dots::<L, F, 4>(lanes, rows, self.x);
            for (value, output) in values.into_iter().zip(first..self.outputs.end) {
                self.put(0, output, value);
            }
        }
    }

    #[inline(always)]
    fn rows<L: Lanes>(&mut self, lanes: L) {
        let depth = self.matrix.inputs;
        let mut scratch = std::mem::take(self.scratch);
        if scratch.len() < UNPACKED * depth {
            scratch.resize(UNPACKED * depth, 0.0);
        }
        let mut output = self.outputs.start;
        while output < self.outputs.end {
            let columns = UNPACKED.min(self.outputs.end - output);
            for (next, to) in scratch.chunks_exact_mut(depth).take(columns).enumerate() {
                Unpack { matrix: self.matrix, row: output + next, to }.run(lanes);
            }
            // Where fewer are left, stale rows are multiplied with them and their values dropped.
            self.tiles(lanes, &scratch[..UNPACKED * depth], output, columns);
            output += columns;
        }
        *self.scratch = scratch;
    }

    /// All rows of `x` times the unpacked ones.
    #[inline(always)]
    fn tiles<L: Lanes>(&self, lanes: L, weights: &[f32], output: usize, columns: usize) {
        let (depth, rows) = (self.matrix.inputs, self.x.len() / self.matrix.inputs);
        let mut row = 0;
        while row < rows {
            let x = &self.x[row * depth..];
            row += match (rows - row).min(L::TILE_ROWS) {
                1 => self.tile::<L, 1>(lanes, x, weights, row, output..output + columns),
                2 => self.tile::<L, 2>(lanes, x, weights, row, output..output + columns),
                3 => self.tile::<L, 3>(lanes, x, weights, row, output..output + columns),
                4 => self.tile::<L, 4>(lanes, x, weights, row, output..output + columns),
                5 => self.tile::<L, 5>(lanes, x, weights, row, output..output + columns),
                _ => self.tile::<L, 6>(lanes, x, weights, row, output..output + columns),
            };
        }
    }

    /// `R` rows times the unpacked ones, a tile's columns at a time; `R`.
    #[inline(always)]
    fn tile<L: Lanes, const R: usize>(
        &self,
        lanes: L,
        x: &[f32],
        weights: &[f32],
        row: usize,
        outputs: Range<usize>,
    ) -> usize {
        let depth = self.matrix.inputs;
        let put = |column: usize, values: &[f32], next: usize| {
            for (value, output) in values.iter().zip(outputs.start + column..outputs.end) {
                self.put(row + next, output, *value);
            }
        };
        if L::TILE_COLUMNS == UNPACKED {
            for (next, values) in tile::<L, R, UNPACKED>(lanes, x, weights, depth).iter().enumerate() {
                put(0, values, next);
            }
            return R;
        }
        for column in [0, 2] {
            for (next, values) in tile::<L, R, 2>(lanes, x, &weights[column * depth..], depth).iter().enumerate() {
                put(column, values, next);
            }
        }
        R
    }
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
        let row = self.matrix.row(self.row);
        let (to, _) = self.to.as_chunks_mut::<LANES>();
        with_format!(
            self.matrix.encoding,
            [F32 F16 Bf16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q8_1 Q2K Q3K Q4K Q5K Q6K Q8K],
            F => for (block, to) in blocks::<F>(row).iter().zip(to.chunks_exact_mut(F::ELEMENTS / LANES)) {
                block.unpack(lanes, |at, values| lanes.store(values, &mut to[at / LANES]));
            },
            ()
        );
    }
}
