//! The innermost part of a convolution: a few output pixels times one panel of channels, held in registers from the first
//! product to the stored value.

use pulp::Simd;

use super::{map::Layout, output::Output, panels::MOST_ROWS};

/// What the pixels of one tile see.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    /// From the first value that the first pixel sees.
    pub(super) values: &'a [f32],
    /// Values from what one pixel sees to what the next does.
    pub(super) stride: usize,
    /// Values that lie side by side: a row of the window.
    pub(super) run: usize,
    /// Such runs.
    pub(super) runs: usize,
    /// Values from one run to the next.
    pub(super) step: usize,
}

/// A walk over a map's pixels, row by row: where the next one begins.
#[derive(Clone, Copy)]
pub(super) struct Walk {
    at: usize,
    column: usize,
    width: usize,
    channels: usize,
    /// Values from the end of one row's pixels to the next row's.
    gap: usize,
}

impl Walk {
    /// From a pixel on, counted row by row without the border.
    pub(super) fn from(layout: &Layout, pixel: usize) -> Self {
        let Layout { width, channels, .. } = *layout;
        let (row, column) = (pixel / width, pixel % width);
        Self { at: layout.inside(row, column), column, width, channels, gap: layout.row() - width * channels }
    }

    #[inline(always)]
    fn step(&mut self) -> usize {
        let at = self.at;
        self.column += 1;
        self.at += self.channels;
        if self.column == self.width {
            self.column = 0;
            self.at += self.gap;
        }
        at
    }
}

/// What follows the products, and where the result goes.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    /// The bias of a whole panel.
    pub(super) bias: &'a [f32],
    /// The least and the greatest value.
    pub(super) limits: (f32, f32),
    /// Values added before the limits.
    pub(super) added: Option<&'a [f32]>,
    pub(super) output: Output,
    /// The first channel that is written.
    pub(super) channel: usize,
    /// Channels that are written, at most those of the panel.
    pub(super) channels: usize,
}

/// Computes the next `pixels` pixels of the output, and of what is added.
///
/// # Safety
/// The output is alive, and no other thread reads or writes these channels of these pixels meanwhile.
#[inline(always)]
pub(super) unsafe fn compute<S: Simd>(
    simd: S,
    pixels: usize,
    seen: Seen<'_>,
    panel: &[f32],
    target: &Target<'_>,
    walks: &mut [Walk; 2],
) {
    macro_rules! by_rows {
        ($vectors:literal, $($rows:literal)*) => {
            match pixels {
                // SAFETY: by the caller's word.
                $($rows => unsafe { tile::<S, $rows, $vectors>(simd, seen, panel, target, walks) },)*
                _ => {}
            }
        };
    }
    if target.channels <= S::F32_LANES {
        by_rows!(1, 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
    } else {
        by_rows!(2, 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
    }
}

/// # Safety
/// As [`compute`].
#[inline(always)]
unsafe fn tile<S: Simd, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    seen: Seen<'_>,
    panel: &[f32],
    target: &Target<'_>,
    walks: &mut [Walk; 2],
) {
    const { assert!(ROWS <= MOST_ROWS && VECTORS <= 2) };
    let Seen { values, stride, run, runs, step } = seen;
    assert!(values.len() >= (ROWS - 1) * stride + (runs - 1) * step + run, "the pixels lie inside the slice");
    let (vectors, _) = S::as_simd_f32s(panel);
    assert!(vectors.len() >= 2 * run * runs, "the panel is whole");
    let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
    for (index, pairs) in vectors.chunks_exact(2 * run).take(runs).enumerate() {
        let first = values.as_ptr().wrapping_add(index * step);
        for (offset, pair) in pairs.chunks_exact(2).enumerate() {
            let value = first.wrapping_add(offset);
            // Written out: a loop over the rows is not unrolled, and its sums would then lie in memory.
            macro_rules! add_rows {
                ($($row:literal)*) => {$(
                    if $row < ROWS {
                        // SAFETY: the row is below ROWS, so the first assertion covers the address.
                        let value = simd.splat_f32s(unsafe { *value.wrapping_add(stride.wrapping_mul($row)) });
                        let sum = &mut sums[if $row < ROWS { $row } else { 0 }];
                        sum[0] = simd.mul_add_e_f32s(value, pair[0], sum[0]);
                        if VECTORS > 1 {
                            sum[VECTORS - 1] = simd.mul_add_e_f32s(value, pair[1], sum[VECTORS - 1]);
                        }
                    }
                )*};
            }
            add_rows!(0 1 2 3 4 5 6 7 8 9 10 11 12 13);
        }
    }
    let [mut out, mut added] = *walks;
    macro_rules! store_rows {
        ($($row:literal)*) => {$(
            if $row < ROWS {
                let sums = sums[if $row < ROWS { $row } else { 0 }];
                // SAFETY: by the caller's word.
                unsafe { store::<S, VECTORS>(simd, sums, target, out.step(), added.step()) };
            }
        )*};
    }
    store_rows!(0 1 2 3 4 5 6 7 8 9 10 11 12 13);
    *walks = [out, added];
}

/// # Safety
/// As [`compute`].
#[inline(always)]
unsafe fn store<S: Simd, const VECTORS: usize>(
    simd: S,
    mut sums: [S::f32s; VECTORS],
    target: &Target<'_>,
    place: usize,
    added: usize,
) {
    let (lanes, channels) = (S::F32_LANES, target.channels);
    let (bias, _) = S::as_simd_f32s(target.bias);
    let (least, greatest) = (simd.splat_f32s(target.limits.0), simd.splat_f32s(target.limits.1));
    // SAFETY: by the caller's word.
    let out = unsafe { target.output.piece(place + target.channel, channels) };
    let whole = channels == VECTORS * lanes;
    for (index, sum) in sums.iter_mut().enumerate() {
        *sum = simd.add_f32s(*sum, bias[index]);
        let columns = index * lanes..channels.min((index + 1) * lanes);
        if let Some(values) = target.added {
            let values = &values[added + target.channel..][..channels][columns.clone()];
            let values = if whole { S::as_simd_f32s(values).0[0] } else { simd.partial_load_f32s(values) };
            *sum = simd.add_f32s(*sum, values);
        }
        *sum = simd.min_f32s(simd.max_f32s(*sum, least), greatest);
        let out = &mut out[columns];
        if whole {
            S::as_mut_simd_f32s(out).0[0] = *sum;
        } else {
            simd.partial_store_f32s(out, *sum);
        }
    }
}
