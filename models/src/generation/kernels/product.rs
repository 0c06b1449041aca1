//! Rows times a weight as it lies in its file.

use std::ops::Range;

use super::{
    formats::{Bf16, F16, F32, Format, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q8_1, blocks},
    k_quants::{Q2K, Q3K, Q4K, Q5K, Q6K, Q8K},
    lanes::{Kernel, LANES, Lanes},
    shared::Shared,
    tile::{COLUMNS, dots, tile},
};
use crate::{gguf::Encoding, mapped::MappedBytes};

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

/// What lies so far ahead is fetched from memory.
const AHEAD_BYTES: usize = 4096;
/// Bytes that are fetched at once.
const LINE_BYTES: usize = 64;

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

    /// Whether it is multiplied with [`Spread`] rows.
    pub(crate) fn is_spread(&self) -> bool {
        with_format!(
            self.encoding,
            [F32 F16 Bf16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q8_1 Q2K Q3K Q4K Q5K Q6K Q8K],
            F => F::SPREAD,
            false
        )
    }

    /// Its values, where they lie in memory as they are used.
    fn plain(&self) -> Option<&[f32]> {
        if self.encoding != Encoding::F32 || cfg!(target_endian = "big") {
            return None;
        }
        // SAFETY: any bytes are f32 values.
        let (before, values, after) = unsafe { self.bytes.bytes().align_to::<f32>() };
        (before.is_empty() && after.is_empty()).then_some(values)
    }

    /// Has the rows that come a little later brought from memory: across the borders of pages the hardware does not do
    /// it by itself.
    #[inline(always)]
    fn fetch_ahead<L: Lanes>(&self, lanes: L, output: usize) {
        let start = self.bytes.bytes().as_ptr().wrapping_add(output * self.row_bytes + AHEAD_BYTES);
        for line in (0..COLUMNS * self.row_bytes).step_by(LINE_BYTES) {
            lanes.prefetch(start.wrapping_add(line));
        }
    }

    #[inline(always)]
    fn row(&self, output: usize) -> &[u8] {
        &self.bytes.bytes()[output * self.row_bytes..][..self.row_bytes]
    }
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
    /// Row after row; [`Spread`] if the matrix is.
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
    /// The values of up to four neighbouring outputs of a row.
    #[inline(always)]
    fn put(&self, row: usize, output: usize, values: [f32; COLUMNS]) {
        let count = COLUMNS.min(self.outputs.end - output);
        // SAFETY: these outputs are this product's alone.
        let places = unsafe { self.out.write(row * self.stride + self.column + output, count) };
        match self.write {
            Write::Set(None) => places.copy_from_slice(&values[..count]),
            Write::Set(Some(bias)) => {
                for ((place, value), bias) in places.iter_mut().zip(values).zip(&bias[output..]) {
                    *place = value + bias;
                }
            }
            Write::Add => places.iter_mut().zip(values).for_each(|(place, value)| *place += value),
        }
    }

    #[inline(always)]
    fn one_row<L: Lanes, F: Format>(&self, lanes: L) {
        for first in self.outputs.clone().step_by(COLUMNS) {
            // Where fewer are left, the last is computed several times.
            let last = self.outputs.end - 1;
            self.matrix.fetch_ahead(lanes, first);
            let row = |next: usize| self.matrix.row((first + next).min(last));
            self.put(0, first, dots::<L, F>(lanes, [row(0), row(1), row(2), row(3)], self.x));
        }
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
            self.matrix.fetch_ahead(lanes, output);
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
            self.put(row + next, output, values);
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
        if self.matrix.is_spread() {
            let (blocks, _) = self.to.as_chunks_mut::<32>();
            for block in blocks {
                let spread = *block;
                for (index, value) in block.iter_mut().enumerate() {
                    *value = spread[index % 4 * 8 + index / 4];
                }
            }
        }
    }
}

/// Brings each 32 values into the order in which formats that are spread give theirs: value `4 l + s` to `8 s + l`.
pub(crate) struct Spread<'a> {
    pub(crate) from: &'a [f32],
    pub(crate) to: &'a mut [f32],
}

impl Kernel for Spread<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        for (from, to) in self.from.as_chunks::<32>().0.iter().zip(self.to.as_chunks_mut::<32>().0) {
            for (index, to) in to.iter_mut().enumerate() {
                *to = from[index % 8 * 4 + index / 8];
            }
        }
    }
}
