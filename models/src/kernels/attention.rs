//! Attention of each sequence over itself alone, so nothing is masked.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{
    math::exp_not_positive,
    output::Output,
    panels::{MOST_ROWS, MOST_WIDTH, Panels, Tile, even_pieces, multiply, tile_rows, width},
};

/// Sequences lie one after the other: `all` is `[tokens, 3 · hidden]` of query (scaled), key and value, `out`
/// `[tokens, hidden]`.
pub(crate) fn attend(all: &[f32], lengths: &[usize], heads: usize, out: &mut [f32]) {
    let hidden = all.len() / (3 * lengths.iter().sum::<usize>().max(1));
    let starts = lengths.iter().scan(0, |next, length| Some(std::mem::replace(next, *next + length)));
    let sequences: Vec<(usize, usize)> = starts.zip(lengths.iter().copied()).collect();
    let (output, arch) = (Output::new(out), Arch::new());
    (0..sequences.len() * heads).into_par_iter().for_each_init(Scratch::default, |scratch, task| {
        let (first, length) = sequences[task / heads];
        let (head, size) = (task % heads, hidden / heads);
        let all = &all[3 * hidden * first..][..3 * hidden * length];
        arch.dispatch(Head { all, output, first, length, hidden, column: head * size, size, scratch });
    });
}

#[derive(Default)]
struct Scratch {
    keys: Panels,
    values: Panels,
    scores: Vec<f32>,
}

/// One head of one sequence.
struct Head<'a> {
    all: &'a [f32],
    output: Output,
    /// The sequence's first token in the output.
    first: usize,
    length: usize,
    hidden: usize,
    /// The head's first column.
    column: usize,
    size: usize,
    scratch: &'a mut Scratch,
}

impl WithSimd for Head<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { all, output, first, length, hidden, column, size, scratch: Scratch { keys, values, scores } } = self;
        let stride = 3 * hidden;
        keys.reshape(size, length, width::<S>());
        keys.pack_transposed(&all[hidden + column..], stride);
        values.reshape(length, size, width::<S>());
        values.pack(&all[2 * hidden + column..], stride);
        let padded = length.next_multiple_of(width::<S>());
        scores.resize(MOST_ROWS * padded, 0.0);
        let mut tile: Tile = [0.0; MOST_ROWS * MOST_WIDTH];
        for (offset, rows) in even_pieces(length, tile_rows::<S>()) {
            for index in 0..keys.count() {
                let (panel, columns) = keys.panel(index);
                multiply(simd, &all[offset * stride + column..], stride, rows, panel, &mut tile);
                for (row, tile) in tile.chunks_exact(MOST_WIDTH).take(rows).enumerate() {
                    scores[row * padded + columns.start..][..width::<S>()].copy_from_slice(&tile[..width::<S>()]);
                }
            }
            for row in scores.chunks_exact_mut(padded).take(rows) {
                row[length..].fill(f32::MIN);
                softmax(simd, row);
            }
            for index in 0..values.count() {
                let (panel, columns) = values.panel(index);
                multiply(simd, scores, padded, rows, panel, &mut tile);
                for (row, tile) in tile.chunks_exact(MOST_WIDTH).take(rows).enumerate() {
                    let at = (first + offset + row) * hidden + column + columns.start;
                    // SAFETY: `attend` holds the slice; each task has a sequence's rows and a head's columns of its own.
                    let out = unsafe { output.piece(at, columns.len()) };
                    out.copy_from_slice(&tile[..columns.len()]);
                }
            }
        }
    }
}

/// Over a row of whole vectors; what is filled up with `f32::MIN` gets a weight of about 1e-38.
#[inline(always)]
pub(super) fn softmax<S: Simd>(simd: S, row: &mut [f32]) {
    let (row, _) = S::as_mut_simd_f32s(row);
    let greatest = row.iter().fold(simd.splat_f32s(f32::MIN), |most, &x| simd.max_f32s(most, x));
    let greatest = simd.splat_f32s(simd.reduce_max_f32s(greatest));
    let mut sum = simd.splat_f32s(0.0);
    for x in row.iter_mut() {
        *x = exp_not_positive(simd, simd.sub_f32s(*x, greatest));
        sum = simd.add_f32s(sum, *x);
    }
    let share = simd.splat_f32s(1.0 / simd.reduce_sum_f32s(sum));
    row.iter_mut().for_each(|x| *x = simd.mul_f32s(*x, share));
}
