//! Matrix products of slices, on the caller's thread.

use gemm::{Parallelism, gemm};

/// A matrix whose rows lie one after the other, or which is read across.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    /// Values from one row to the next, or from one column to the next where it is read across.
    stride: usize,
    across: bool,
}

impl<'a> Matrix<'a> {
    /// `[rows, columns]`.
    pub(super) fn new(values: &'a [f32], rows: usize, columns: usize) -> Self {
        assert_eq!(values.len(), rows * columns, "the matrix is whole");
        Self { values, rows, columns, stride: columns, across: false }
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// Its transposed.
    pub(super) fn across(self) -> Self {
        Self { rows: self.columns, columns: self.rows, across: !self.across, ..self }
    }

    /// Some of the columns of one that is not read across.
    pub(super) fn some(self, from: usize, columns: usize) -> Self {
        assert!(!self.across && from + columns <= self.columns, "the columns are there");
        Self { values: self.values.get(from..).unwrap_or_default(), columns, ..self }
    }

    fn strides(&self) -> (isize, isize) {
        // A slice has at most isize::MAX bytes.
        match self.across {
            false => (1, self.stride as isize),
            true => (self.stride as isize, 1),
        }
    }
}

/// `out = left · right`, or that added to what is there.
pub(super) fn multiply(left: Matrix<'_>, right: Matrix<'_>, out: &mut [f32], adds: bool) {
    assert_eq!(left.columns, right.rows, "the matrices fit");
    assert_eq!(out.len(), left.rows * right.columns, "the product fits");
    let ((left_column, left_row), (right_column, right_row)) = (left.strides(), right.strides());
    let (alpha, beta) = (if adds { 1.0f32 } else { 0.0 }, 1.0f32);
    // SAFETY: the assertions above, of `new` and of `some`: each index lies in its slice.
    unsafe {
        gemm(
            left.rows,
            right.columns,
            left.columns,
            out.as_mut_ptr(),
            1,
            right.columns as isize,
            adds,
            left.values.as_ptr(),
            left_column,
            left_row,
            right.values.as_ptr(),
            right_column,
            right_row,
            alpha,
            beta,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_columns_are_where_they_are() {
        let (a, b) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0, 0.0, 2.0, 1.0, 0.0, 3.0]);
        let mut out = [1.0; 4];
        multiply(Matrix::new(&a, 2, 3), Matrix::new(&b, 3, 2), &mut out, false);
        assert_eq!(out, [5.0, 11.0, 14.0, 23.0]);
        multiply(Matrix::new(&a, 3, 2).across(), Matrix::new(&b, 2, 3).across(), &mut out, true);
        assert_eq!(out, [5.0 + 11.0, 11.0 + 16.0, 14.0 + 14.0, 23.0 + 20.0]);
    }
}
