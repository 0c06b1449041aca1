//! The innermost part of a product: a few rows times a few columns, their sums in registers.

use super::{
    formats::{Format, blocks},
    lanes::{LANES, Lanes},
};

/// One row times `C` packed ones, unpacked on the way.
#[inline(always)]
pub(super) fn dots<L: Lanes, F: Format, const C: usize>(lanes: L, rows: [&[u8]; C], x: &[f32]) -> [f32; C] {
    let (mut sums, rows) = ([lanes.splat(0.0); C], rows.map(blocks::<F>));
    let count = x.len() / F::ELEMENTS;
    assert!(rows.iter().all(|row| row.len() == count), "the rows are as long as the vector");
    let (x, _) = x.as_chunks::<LANES>();
    for index in 0..count {
        let x = &x[index * (F::ELEMENTS / LANES)..][..F::ELEMENTS / LANES];
        for (sum, row) in sums.iter_mut().zip(&rows) {
            // SAFETY: index < count, which the assertion found to be the length of each row.
            let block = unsafe { row.get_unchecked(index) };
            block.unpack(lanes, |at, weight| *sum = lanes.fma(weight, lanes.load(&x[at / LANES]), *sum));
        }
    }
    sums.map(|sum| lanes.sum(sum))
}

/// `R` rows of `x` times `C` rows of `weights`; both have `depth` values, one row after the other.
#[inline(always)]
pub(super) fn tile<L: Lanes, const R: usize, const C: usize>(
    lanes: L,
    x: &[f32],
    weights: &[f32],
    depth: usize,
) -> [[f32; C]; R] {
    assert!(x.len() >= R * depth && weights.len() >= C * depth, "the rows lie inside their slices");
    let mut sums = [[lanes.splat(0.0); C]; R];
    let at = |from: &[f32], row: usize, step: usize| {
        // SAFETY: row · depth + step + the lanes lie in the slice: the loop below ends at whole vectors of a row, and the
        // assertion above covers the rows.
        let values = unsafe { &*from.as_ptr().add(row * depth + step).cast::<[f32; LANES]>() };
        lanes.load(values)
    };
    for step in (0..depth / LANES * LANES).step_by(LANES) {
        let mut columns = [lanes.splat(0.0); C];
        for (column, values) in columns.iter_mut().enumerate() {
            *values = at(weights, column, step);
        }
        for (row, sums) in sums.iter_mut().enumerate() {
            let row = at(x, row, step);
            for (sum, column) in sums.iter_mut().zip(&columns) {
                *sum = lanes.fma(*column, row, *sum);
            }
        }
    }
    sums.map(|sums| sums.map(|sum| lanes.sum(sum)))
}
