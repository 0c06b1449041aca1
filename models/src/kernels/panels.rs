//! The matrix product's innermost part: a few rows times one panel of columns, held in registers.

use pulp::{Simd, WithSimd};

/// Most rows of one tile: 14 · 2 accumulators, 2 columns and 1 value fill the 32 registers of AVX-512.
pub(super) const MOST_ROWS: usize = 14;
/// Columns of a panel: two vectors of the widest instruction set.
pub(super) const MOST_WIDTH: usize = 32;

/// A tile's values, row by row, `MOST_WIDTH` apart.
pub(super) type Tile = [f32; MOST_ROWS * MOST_WIDTH];

/// Columns of a panel on this instruction set.
pub(super) const fn width<S: Simd>() -> usize {
    2 * S::F32_LANES
}

/// Rows of a tile on this instruction set.
pub(super) const fn tile_rows<S: Simd>() -> usize {
    if S::REGISTER_COUNT >= 32 { MOST_ROWS } else { 6 }
}

/// A matrix `[depth, columns]` in panels of `width` columns, each panel row after row; the last is filled with zeros.
#[derive(Debug, Default)]
pub(super) struct Panels {
    data: Vec<f32>,
    pub(super) depth: usize,
    pub(super) columns: usize,
    width: usize,
}

/// The width of this machine's panels.
pub(super) struct MachineWidth;

impl WithSimd for MachineWidth {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        width::<S>()
    }
}

/// The rows of this machine's tiles.
pub(super) struct MachineRows;

impl WithSimd for MachineRows {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        tile_rows::<S>()
    }
}

impl Panels {
    /// Makes room for a matrix, keeping the memory.
    #[inline(always)]
    pub(super) fn reshape(&mut self, depth: usize, columns: usize, width: usize) {
        let size = columns.div_ceil(width) * width * depth;
        // What lies beyond the columns must be zero, and stays so while the shape does.
        if (depth, columns, width) != (self.depth, self.columns, self.width) {
            self.data.clear();
            (self.depth, self.columns, self.width) = (depth, columns, width);
        }
        self.data.resize(size, 0.0);
    }

    /// Takes `[depth, columns]` whose rows lie `stride` apart.
    #[inline(always)]
    pub(super) fn pack(&mut self, from: &[f32], stride: usize) {
        for (panel, first) in self.data.chunks_exact_mut(self.width * self.depth).zip((0..).step_by(self.width)) {
            let used = self.width.min(self.columns - first);
            for (row, out) in panel.chunks_exact_mut(self.width).enumerate() {
                out[..used].copy_from_slice(&from[row * stride + first..][..used]);
            }
        }
    }

    /// Takes the transposed of `[columns, depth]` whose rows lie `stride` apart.
    #[inline(always)]
    pub(super) fn pack_transposed(&mut self, from: &[f32], stride: usize) {
        for (panel, first) in self.data.chunks_exact_mut(self.width * self.depth).zip((0..).step_by(self.width)) {
            for column in 0..self.width.min(self.columns - first) {
                let source = &from[(first + column) * stride..][..self.depth];
                for (value, out) in source.iter().zip(panel.chunks_exact_mut(self.width)) {
                    out[column] = *value;
                }
            }
        }
    }

    /// Takes one row.
    #[inline(always)]
    pub(super) fn set_row(&mut self, row: usize, values: &[f32]) {
        let (width, size) = (self.width, self.width * self.depth);
        for (values, panel) in values.chunks(width).zip(self.data.chunks_exact_mut(size)) {
            panel[row * width..][..values.len()].copy_from_slice(values);
        }
    }

    /// Takes one column.
    #[inline(always)]
    pub(super) fn set_column(&mut self, column: usize, values: &[f32]) {
        let (width, size) = (self.width, self.width * self.depth);
        let panel = &mut self.data[column / width * size..][..size];
        values.iter().zip(panel.chunks_exact_mut(width)).for_each(|(value, row)| row[column % width] = *value);
    }

    /// The panels, each `depth · width` values, with the columns that they hold.
    #[inline(always)]
    pub(super) fn panel(&self, index: usize) -> (&[f32], std::ops::Range<usize>) {
        let (size, first) = (self.width * self.depth, index * self.width);
        (&self.data[index * size..][..size], first..(first + self.width).min(self.columns))
    }

    /// All of them, one after the other.
    pub(super) fn values(&self) -> &[f32] {
        &self.data
    }

    /// How many panels there are.
    #[inline(always)]
    pub(super) fn count(&self) -> usize {
        self.columns.div_ceil(self.width)
    }
}

/// `rows` rows of `left`, `stride` apart, times one panel, into `tile`.
#[inline(always)]
pub(super) fn multiply<S: Simd>(simd: S, left: &[f32], stride: usize, rows: usize, panel: &[f32], tile: &mut Tile) {
    match rows {
        1 => multiply_rows::<S, 1>(simd, left, stride, panel, tile),
        2 => multiply_rows::<S, 2>(simd, left, stride, panel, tile),
        3 => multiply_rows::<S, 3>(simd, left, stride, panel, tile),
        4 => multiply_rows::<S, 4>(simd, left, stride, panel, tile),
        5 => multiply_rows::<S, 5>(simd, left, stride, panel, tile),
        6 => multiply_rows::<S, 6>(simd, left, stride, panel, tile),
        7 => multiply_rows::<S, 7>(simd, left, stride, panel, tile),
        8 => multiply_rows::<S, 8>(simd, left, stride, panel, tile),
        9 => multiply_rows::<S, 9>(simd, left, stride, panel, tile),
        10 => multiply_rows::<S, 10>(simd, left, stride, panel, tile),
        11 => multiply_rows::<S, 11>(simd, left, stride, panel, tile),
        12 => multiply_rows::<S, 12>(simd, left, stride, panel, tile),
        13 => multiply_rows::<S, 13>(simd, left, stride, panel, tile),
        _ => multiply_rows::<S, MOST_ROWS>(simd, left, stride, panel, tile),
    }
}

#[inline(always)]
fn multiply_rows<S: Simd, const ROWS: usize>(simd: S, left: &[f32], stride: usize, panel: &[f32], tile: &mut Tile) {
    let depth = panel.len() / width::<S>();
    assert!(left.len() >= (ROWS - 1) * stride + depth, "the rows lie inside the slice");
    let (vectors, _) = S::as_simd_f32s(panel);
    let mut sums = [[simd.splat_f32s(0.0); 2]; ROWS];
    for (step, pair) in vectors.chunks_exact(2).enumerate() {
        let column = left.as_ptr().wrapping_add(step);
        // Written out: a loop over the rows is not unrolled, and its sums would then lie in memory.
        macro_rules! add_rows {
            ($($row:literal)*) => {$(
                if $row < ROWS {
                    // SAFETY: step < depth and the row is below ROWS, so the assertion above covers the address.
                    let value = simd.splat_f32s(unsafe { *column.wrapping_add(stride.wrapping_mul($row)) });
                    let sum = &mut sums[if $row < ROWS { $row } else { 0 }];
                    sum[0] = simd.mul_add_e_f32s(value, pair[0], sum[0]);
                    sum[1] = simd.mul_add_e_f32s(value, pair[1], sum[1]);
                }
            )*};
        }
        add_rows!(0 1 2 3 4 5 6 7 8 9 10 11 12 13);
    }
    for (sum, out) in sums.iter().zip(tile.chunks_exact_mut(MOST_WIDTH)) {
        let (out, _) = S::as_mut_simd_f32s(out);
        out[0] = sum[0];
        out[1] = sum[1];
    }
}

/// Cuts `rows` into pieces of at most `most`, as even as can be: (first row, rows).
#[inline(always)]
pub(super) fn even_pieces(rows: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let pieces = rows.div_ceil(most);
    (0..pieces).map(move |piece| {
        let (from, to) = (piece * rows / pieces, (piece + 1) * rows / pieces);
        (from, to - from)
    })
}
