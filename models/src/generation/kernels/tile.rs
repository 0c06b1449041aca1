//! The innermost part of a product: a few rows times a few columns, their sums in registers.

use super::{
    formats::{Format, blocks},
    lanes::{LANES, Lanes},
};

/// Columns whose sums are brought down together.
pub(super) const COLUMNS: usize = 4;

/// One row times four packed ones, unpacked on the way.
#[inline(always)]
pub(super) fn dots<L: Lanes, F: Format>(lanes: L, rows: [&[u8]; COLUMNS], x: &[f32]) -> [f32; COLUMNS] {
    let ([a, b], [c, d]) = (two::<L, F>(lanes, rows[0], rows[1], x), two::<L, F>(lanes, rows[2], rows[3], x));
    lanes.four_sums([a, b, c, d])
}

/// One row times two, lane by lane: of more at once, the compiler would not keep all in registers.
#[inline(always)]
fn two<L: Lanes, F: Format>(lanes: L, first: &[u8], second: &[u8], x: &[f32]) -> [L::V; 2] {
    let (mut a, mut b) = (lanes.splat(0.0), lanes.splat(0.0));
    let (first, second) = (blocks::<F>(first), blocks::<F>(second));
    let (x, _) = x.as_chunks::<LANES>();
    for ((first, second), x) in first.iter().zip(second).zip(x.chunks_exact(F::ELEMENTS / LANES)) {
        first.unpack(lanes, |at, weight| a = lanes.fma(weight, lanes.load(&x[at / LANES]), a));
        second.unpack(lanes, |at, weight| b = lanes.fma(weight, lanes.load(&x[at / LANES]), b));
    }
    [a, b]
}

/// `R` rows of `x` times four rows of `weights`, `C` at a time; all have `depth` values, one row after the other.
#[inline(always)]
pub(super) fn tile<L: Lanes, const R: usize, const C: usize>(
    lanes: L,
    x: &[f32],
    weights: &[f32],
    depth: usize,
) -> [[f32; COLUMNS]; R] {
    assert!(x.len() >= R * depth && weights.len() >= COLUMNS * depth, "the rows lie inside their slices");
    assert!(depth.is_multiple_of(LANES), "rows are whole vectors");
    let mut all = [[lanes.splat(0.0); COLUMNS]; R];
    for first in (0..COLUMNS).step_by(C) {
        // SAFETY: the assertions above cover R rows of x, four of the weights.
        let sums = unsafe { strip::<L, R, C>(lanes, x.as_ptr(), weights.as_ptr().add(first * depth), depth) };
        for row in 0..R {
            all[row][first..first + C].copy_from_slice(&sums[row]);
        }
    }
    let mut out = [[0.0; COLUMNS]; R];
    for row in 0..R {
        out[row] = lanes.four_sums(all[row]);
    }
    out
}

/// The sums of `R` rows times `C`, lane by lane.
///
/// # Safety
/// `x` is the begin of `R` rows of `depth` values, `weights` that of `C`; rows are whole vectors.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "with iterators the sums leave their registers")]
unsafe fn strip<L: Lanes, const R: usize, const C: usize>(
    lanes: L,
    x: *const f32,
    weights: *const f32,
    depth: usize,
) -> [[L::V; C]; R] {
    let mut sums = [[lanes.splat(0.0); C]; R];
    let mut step = 0;
    while step < depth {
        let mut columns = [lanes.splat(0.0); C];
        for column in 0..C {
            // SAFETY: in the row by the loop's bound, in the matrix by the caller's word.
            columns[column] = lanes.load(unsafe { &*weights.add(column * depth + step).cast::<[f32; LANES]>() });
        }
        for row in 0..R {
            // SAFETY: as above.
            let x = lanes.load(unsafe { &*x.add(row * depth + step).cast::<[f32; LANES]>() });
            for column in 0..C {
                sums[row][column] = lanes.fma(columns[column], x, sums[row][column]);
            }
        }
        step += LANES;
    }
    sums
}
