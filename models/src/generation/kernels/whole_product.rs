//! Rounded rows times a weight of small whole numbers as it lies in its file.

use std::ops::Range;

use super::{
    destination::Destination,
    eights::{Eights, WORDS, Words},
    formats::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, blocks},
    lanes::{Kernel, Lanes},
    matrix::{Matrix, with_format},
    rounded::Rounded,
    tile::COLUMNS,
    whole::Whole,
};
use crate::gguf::Encoding;

/// Rows whose sums with two columns stay in registers.
const TILE_ROWS: usize = 4;

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

/// Rows of a weight beside each other: block after block, of each the columns.
#[derive(Debug, Default)]
pub(crate) struct Unpacked {
    quants: Vec<[Words; COLUMNS]>,
    scales: Vec<[f32; COLUMNS]>,
    /// Empty where blocks have no least value.
    least: Vec<[f32; COLUMNS]>,
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
            self.matrix.fetch_ahead(lanes, first);
            with_format!(
                self.matrix.encoding,
                [Q4_0 Q4_1 Q5_0 Q5_1 Q8_0],
                F => unpack(lanes.eights(), columns::<F>(self.matrix, &self.outputs, first), self.unpacked),
                ()
            );
            self.tiles(lanes.eights(), first, COLUMNS.min(self.outputs.end - first));
        }
    }
}

impl WholeProduct<'_> {
    #[inline(always)]
    fn one_row<L: Lanes, F: Whole>(&self, lanes: L) {
        for first in self.outputs.clone().step_by(COLUMNS) {
            self.matrix.fetch_ahead(lanes, first);
            let values = dots(lanes.eights(), columns::<F>(self.matrix, &self.outputs, first), self.x);
            self.to.put(0, first, &values[..COLUMNS.min(self.outputs.end - first)]);
        }
    }

    /// All rows of `x` times the unpacked ones.
    #[inline(always)]
    fn tiles<I: Eights>(&self, lanes: I, output: usize, count: usize) {
        let depth = self.unpacked.quants.len();
        let rows = self.x.quants.len() / depth;
        let mut row = 0;
        while row < rows {
            row += match (rows - row).min(TILE_ROWS) {
                1 => self.tile::<I, 1>(lanes, row, output, count),
                2 => self.tile::<I, 2>(lanes, row, output, count),
                3 => self.tile::<I, 3>(lanes, row, output, count),
                _ => self.tile::<I, TILE_ROWS>(lanes, row, output, count),
            };
        }
    }

    /// `R` rows times the unpacked ones; `R`.
    #[inline(always)]
    fn tile<I: Eights, const R: usize>(&self, lanes: I, row: usize, output: usize, count: usize) -> usize {
        let depth = self.unpacked.quants.len();
        let (quants, scales) = (&self.x.quants[row * depth..], &self.x.scales[row * depth..]);
        // A closure is no part of the function that is compiled for the instruction set, so none is used here.
        let a = strip::<I, R>(lanes, quants, scales, self.unpacked, 0);
        let b = strip::<I, R>(lanes, quants, scales, self.unpacked, 2);
        let least = least_sums::<R>(scales, &self.unpacked.least);
        for next in 0..R {
            let sums = lanes.sums([a[next][0], a[next][1], b[next][0], b[next][1]]);
            let values: [f32; COLUMNS] = std::array::from_fn(|column| sums[column] + least[next][column]);
            self.to.put(row + next, output, &values[..count]);
        }
        R
    }
}

/// The blocks of neighbouring outputs. Where fewer are left, the last comes several times.
#[inline(always)]
fn columns<'m, F: Whole>(matrix: &'m Matrix, outputs: &Range<usize>, first: usize) -> [&'m [F]; COLUMNS] {
    std::array::from_fn(|next| blocks(matrix.row((first + next).min(outputs.end - 1))))
}

/// One row times four.
#[inline(always)]
fn dots<I: Eights, F: Whole>(lanes: I, rows: [&[F]; COLUMNS], x: &Rounded) -> [f32; COLUMNS] {
    let ([a, b], ab) = two(lanes, rows[0], rows[1], x);
    let ([c, d], cd) = two(lanes, rows[2], rows[3], x);
    let sums = lanes.sums([a, b, c, d]);
    [sums[0] + ab[0], sums[1] + ab[1], sums[2] + cd[0], sums[3] + cd[1]]
}

/// One row times two: the sums in eight parts, and those of the least values.
#[inline(always)]
fn two<I: Eights, F: Whole>(lanes: I, first: &[F], second: &[F], x: &Rounded) -> ([I::E; 2], [f32; 2]) {
    let zero = lanes.splat(0.0);
    let (mut a, mut b, mut a_least, mut b_least) = (zero, zero, zero, zero);
    for (((first, second), quants), scales) in first.iter().zip(second).zip(&x.quants).zip(&x.scales) {
        let (a_scales, b_scales, scale) = (first.scales(lanes), second.scales(lanes), lanes.splat(scales[0]));
        if F::LEAST {
            let scales = lanes.pairs(*scales);
            a_least = lanes.fma(a_scales, scales, a_least);
            b_least = lanes.fma(b_scales, scales, b_least);
        }
        let a_part = lanes.dot(first.quants(lanes), quants);
        let b_part = lanes.dot(second.quants(lanes), quants);
        a = lanes.fma(lanes.mul(a_part, lanes.evens(a_scales)), scale, a);
        b = lanes.fma(lanes.mul(b_part, lanes.evens(b_scales)), scale, b);
    }
    ([a, b], [lanes.pair(a_least)[1], lanes.pair(b_least)[1]])
}

#[inline(always)]
fn unpack<I: Eights, F: Whole>(lanes: I, rows: [&[F]; COLUMNS], to: &mut Unpacked) {
    let depth = rows[0].len();
    to.quants.resize(depth, [Words::default(); COLUMNS]);
    to.scales.resize(depth, [0.0; COLUMNS]);
    to.least.resize(if F::LEAST { depth } else { 0 }, [0.0; COLUMNS]);
    for (column, row) in rows.into_iter().enumerate() {
        let places = to.quants.iter_mut().zip(&mut to.scales);
        for (index, (block, (quants, scales))) in row.iter().zip(places).enumerate() {
            lanes.store(block.quants(lanes), &mut quants[column]);
            let [scale, least] = lanes.pair(block.scales(lanes));
            scales[column] = scale;
            if F::LEAST {
                to.least[index][column] = least;
            }
        }
    }
}

/// `R` rows times two columns, in eight parts each.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "with iterators the sums leave their registers")]
fn strip<I: Eights, const R: usize>(
    lanes: I,
    quants: &[Words],
    scales: &[[f32; 2]],
    weights: &Unpacked,
    first: usize,
) -> [[I::E; 2]; R] {
    let depth = weights.quants.len();
    assert!(quants.len() >= R * depth && scales.len() >= R * depth, "the rows lie inside their slices");
    assert!(weights.scales.len() == depth && first + 2 <= COLUMNS, "each block has its scales");
    let mut sums = [[lanes.splat(0.0); 2]; R];
    for block in 0..depth {
        // SAFETY: a block is below the depth, a row below R: the assertions above cover both.
        let (columns, own) = unsafe { (weights.quants.get_unchecked(block), weights.scales.get_unchecked(block)) };
        let columns = [lanes.load(&columns[first]), lanes.load(&columns[first + 1])];
        let own = [lanes.splat(own[first]), lanes.splat(own[first + 1])];
        for row in 0..R {
            let at = row * depth + block;
            // SAFETY: as above.
            let (x, scale) = unsafe { (quants.get_unchecked(at), scales.get_unchecked(at)[0]) };
            let scale = lanes.splat(scale);
            for column in 0..2 {
                let part = lanes.dot(columns[column], x);
                sums[row][column] = lanes.fma(lanes.mul(part, own[column]), scale, sums[row][column]);
            }
        }
    }
    sums
}

/// What the least values of the columns add to each of `R` rows.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "with iterators the sums leave their registers")]
fn least_sums<const R: usize>(scales: &[[f32; 2]], least: &[[f32; COLUMNS]]) -> [[f32; COLUMNS]; R] {
    let depth = least.len();
    assert!(scales.len() >= R * depth, "the rows lie inside their slice");
    let mut sums = [[0.0f32; COLUMNS]; R];
    for (block, least) in least.iter().enumerate() {
        for row in 0..R {
            // SAFETY: a block is below the depth, a row below R: the assertion covers both.
            let sum = unsafe { scales.get_unchecked(row * depth + block)[1] };
            for column in 0..COLUMNS {
                sums[row][column] = least[column].mul_add(sum, sums[row][column]);
            }
        }
    }
    sums
}
