//! Rounded rows times a weight of small whole numbers as it lies in its file.
//!
//! Eight outputs are computed side by side, each in one lane. A block's products are summed in whole numbers, exactly; then
//! its scales are applied, and its sum is added to that of the blocks before it. So each output has one order of additions.

use std::ops::Range;

use super::{
    destination::Destination,
    eights::{EIGHT, Eights, PAIRS, WORDS, Words},
    formats::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, blocks},
    lanes::{Kernel, Lanes, dispatch},
    matrix::{Matrix, fetch_ahead, with_format},
    rounded::Rounded,
    whole::Whole,
};
use crate::gguf::Encoding;

/// Eights of outputs that are unpacked together: two rows times these keep all sums in registers.
const PANELS: usize = 2;
/// Outputs of these.
const COLUMNS: usize = PANELS * EIGHT;

/// Some outputs of rows times a weight that [`is_whole`](Matrix::is_whole).
pub(crate) struct WholeProduct<'a> {
    pub(crate) matrix: &'a Matrix,
    /// Row after row.
    pub(crate) x: &'a Rounded,
    /// Which outputs.
    pub(crate) outputs: Range<usize>,
    pub(crate) to: Destination<'a>,
    /// Kept from one product to the next.
    pub(crate) unpacked: &'a mut Unpacked,
}

/// Room of a product.
#[derive(Debug, Default)]
pub(crate) struct Unpacked {
    /// Rows of the weight beside each other: block after block, of each the panels.
    panels: Vec<[Panel; PANELS]>,
    /// Sums of neighbouring outputs, row after row, where nothing is unpacked.
    #[cfg(target_arch = "x86_64")]
    pub(super) sums: Vec<[f32; 16]>,
}

/// A block of each of eight rows.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(32))]
struct Panel {
    /// Pair after pair of words, of each the eight rows.
    pairs: [[i32; EIGHT]; PAIRS],
    scales: [f32; EIGHT],
    least: [f32; EIGHT],
}

impl WholeProduct<'_> {
    /// Computes it on the widest instruction set that the machine has.
    pub(crate) fn compute(self) {
        #[cfg(target_arch = "x86_64")]
        if let Some(sixteens) = super::avx512_sixteens::Sixteens::detect() {
            return sixteens.compute(self);
        }
        dispatch(self);
    }
}

impl Kernel for WholeProduct<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        if self.x.quants.len() * WORDS == self.matrix.inputs {
            return with_format!(
                self.matrix.encoding,
                [Q4_0 Q4_1 Q5_0 Q5_1 Q8_0],
                F => self.one_row::<L, F>(lanes),
                ()
            );
        }
        for first in self.outputs.clone().step_by(COLUMNS) {
            with_format!(
                self.matrix.encoding,
                [Q4_0 Q4_1 Q5_0 Q5_1 Q8_0],
                F => unpack::<L, F>(lanes, self.matrix, &self.outputs, first, self.unpacked),
                ()
            );
            self.tiles(lanes.eights(), first);
        }
    }
}

impl WholeProduct<'_> {
    #[inline(always)]
    fn one_row<L: Lanes, F: Whole>(&self, lanes: L) {
        for first in self.outputs.clone().step_by(EIGHT) {
            let values = dots::<L, F>(lanes, columns(self.matrix, &self.outputs, first), self.x);
            self.put(0, first, &values);
        }
    }

    /// All rows of `x` times the unpacked ones.
    #[inline(always)]
    fn tiles<I: Eights>(&self, lanes: I, output: usize) {
        let rows = self.x.quants.len() / self.unpacked.panels.len();
        for row in (0..rows - rows % 2).step_by(2) {
            self.tile::<I, 2>(lanes, row, output);
        }
        if rows % 2 == 1 {
            self.tile::<I, 1>(lanes, rows - 1, output);
        }
    }

    /// `R` rows times the unpacked ones.
    #[inline(always)]
    fn tile<I: Eights, const R: usize>(&self, lanes: I, row: usize, output: usize) {
        let before = row * self.unpacked.panels.len();
        let (quants, scales) = (&self.x.quants[before..], &self.x.scales[before..]);
        // A closure is no part of the function that is compiled for the instruction set, so none is used here.
        let values = strip::<I, R>(lanes, quants, scales, &self.unpacked.panels);
        for (next, values) in values.iter().enumerate() {
            self.put(row + next, output, values.as_flattened());
        }
    }

    /// Values of a row from an output on, as many as there are outputs.
    #[inline(always)]
    pub(super) fn put(&self, row: usize, output: usize, values: &[f32]) {
        self.to.put(row, output, &values[..values.len().min(self.outputs.end - output)]);
    }
}

/// The blocks of eight outputs. Where fewer are left, the last comes several times.
#[inline(always)]
fn columns<'m, F: Whole>(matrix: &'m Matrix, outputs: &Range<usize>, first: usize) -> [&'m [F]; EIGHT] {
    std::array::from_fn(|next| blocks(matrix.row((first + next).min(outputs.end - 1))))
}

/// A block of each row.
///
/// # Safety
/// Each row has it.
#[inline(always)]
unsafe fn blocks_at<F>(rows: [&[F]; EIGHT], index: usize) -> [&F; EIGHT] {
    let [a, b, c, d, e, f, g, h] = rows;
    // SAFETY: by the caller's word. A call of `map` would stay one, and registers be saved for it.
    unsafe {
        let [a, b, c, d] =
            [a.get_unchecked(index), b.get_unchecked(index), c.get_unchecked(index), d.get_unchecked(index)];
        let [e, f, g, h] =
            [e.get_unchecked(index), f.get_unchecked(index), g.get_unchecked(index), h.get_unchecked(index)];
        [a, b, c, d, e, f, g, h]
    }
}

/// Has eight rows fetched, as much of them as one block of each.
#[inline(always)]
fn fetch_block<L: Lanes, F: Whole>(lanes: L, first: &[F], block: usize) {
    // Block after block: all at once would be more than the processor waits for at a time.
    let bytes = EIGHT * size_of::<F>();
    fetch_ahead(lanes, first.as_ptr().cast::<u8>().wrapping_add(block * bytes), bytes);
}

/// What a block adds to the sums of eight outputs: its products, its scales and least values, and the row's own scale and sum.
#[inline(always)]
fn add_block<I: Eights>(lanes: I, products: I::I, [scales, least]: [I::E; 2], row: [f32; 2], to: I::E) -> I::E {
    let to = lanes.fma(least, lanes.splat(row[1]), to);
    lanes.fma(lanes.floats(products), lanes.mul(scales, lanes.splat(row[0])), to)
}

/// One row times eight.
#[inline(always)]
fn dots<L: Lanes, F: Whole>(all: L, rows: [&[F]; EIGHT], x: &Rounded) -> [f32; EIGHT] {
    let lanes = all.eights();
    let depth = x.quants.len();
    assert!(x.scales.len() == depth && rows.iter().all(|row| row.len() == depth), "rows have the same blocks");
    let mut sums = lanes.splat(0.0);
    for index in 0..depth {
        // SAFETY: each has as many blocks, by the assertion.
        let blocks = unsafe { blocks_at(rows, index) };
        fetch_block(all, rows[0], index);
        let words = lanes.words(&x.quants[index]);
        let mut parts = [lanes.zeros(); EIGHT];
        for column in 0..EIGHT {
            let quants = blocks[column].quants(lanes);
            parts[column] = lanes.add_products(quants[0], words[0], parts[column]);
            parts[column] = lanes.add_products(quants[1], words[1], parts[column]);
        }
        sums = add_block(lanes, lanes.sums(parts), F::scales(lanes, blocks), x.scales[index], sums);
    }
    let mut values = [0.0; EIGHT];
    lanes.store(sums, &mut values);
    values
}

#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "a closure would not be compiled for the instruction set")]
fn unpack<L: Lanes, F: Whole>(all: L, matrix: &Matrix, outputs: &Range<usize>, first: usize, to: &mut Unpacked) {
    let lanes = all.eights();
    to.panels.resize(matrix.inputs / WORDS, [Panel::default(); PANELS]);
    for panel in 0..PANELS {
        let rows = columns::<F>(matrix, outputs, first + panel * EIGHT);
        assert!(rows.iter().all(|row| row.len() == to.panels.len()), "rows have as many blocks as there are panels");
        for (index, to) in to.panels.iter_mut().enumerate() {
            fetch_block(all, rows[0], index);
            // SAFETY: each has a block for each panel, by the assertion.
            let blocks = unsafe { blocks_at(rows, index) };
            let mut words = [[lanes.zeros(); 2]; EIGHT];
            for column in 0..EIGHT {
                words[column] = blocks[column].quants(lanes);
            }
            let (pairs, to) = (lanes.turn(words), &mut to[panel]);
            for pair in 0..PAIRS {
                lanes.store_whole(pairs[pair], &mut to.pairs[pair]);
            }
            let [scales, least] = F::scales(lanes, blocks);
            lanes.store(scales, &mut to.scales);
            lanes.store(least, &mut to.least);
        }
    }
}

/// `R` rows times the unpacked ones.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "with iterators the sums leave their registers")]
fn strip<I: Eights, const R: usize>(
    lanes: I,
    quants: &[Words],
    scales: &[[f32; 2]],
    weights: &[[Panel; PANELS]],
) -> [[[f32; EIGHT]; PANELS]; R] {
    let depth = weights.len();
    assert!(quants.len() >= R * depth && scales.len() >= R * depth, "the rows lie inside their slices");
    let mut sums = [[lanes.splat(0.0); PANELS]; R];
    for (block, panels) in weights.iter().enumerate() {
        let mut products = [[lanes.zeros(); PANELS]; R];
        for pair in 0..PAIRS {
            let columns = [lanes.load_whole(&panels[0].pairs[pair]), lanes.load_whole(&panels[1].pairs[pair])];
            for row in 0..R {
                // SAFETY: a block is below the depth, a row below R: the assertion covers both.
                let x = lanes.pair(unsafe { quants.get_unchecked(row * depth + block) }, pair);
                for panel in 0..PANELS {
                    products[row][panel] = lanes.add_products(columns[panel], x, products[row][panel]);
                }
            }
        }
        for panel in 0..PANELS {
            let own = [lanes.load(&panels[panel].scales), lanes.load(&panels[panel].least)];
            for row in 0..R {
                // SAFETY: as above.
                let scales = unsafe { *scales.get_unchecked(row * depth + block) };
                sums[row][panel] = add_block(lanes, products[row][panel], own, scales, sums[row][panel]);
            }
        }
    }
    let mut values = [[[0.0; EIGHT]; PANELS]; R];
    for row in 0..R {
        for panel in 0..PANELS {
            lanes.store(sums[row][panel], &mut values[row][panel]);
        }
    }
    values
}
