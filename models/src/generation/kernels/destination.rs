//! Where a product goes.

use super::shared::Shared;

/// What becomes of a product.
#[derive(Clone, Copy)]
pub(crate) enum Write<'a> {
    /// It is written, with a bias where there is one.
    Set(Option<&'a [f32]>),
    /// It is added to what is there.
    Add,
}

/// Rows `stride` apart, the first output at `column`; nobody else touches the product's outputs meanwhile.
#[derive(Clone, Copy)]
pub(crate) struct Destination<'a> {
    pub(crate) out: Shared<'a>,
    pub(crate) column: usize,
    pub(crate) stride: usize,
    pub(crate) write: Write<'a>,
}

impl Destination<'_> {
    /// The values of neighbouring outputs of a row.
    #[inline(always)]
    pub(super) fn put(&self, row: usize, output: usize, values: &[f32]) {
        // SAFETY: these outputs are this product's alone.
        let places = unsafe { self.out.write(row * self.stride + self.column + output, values.len()) };
        match self.write {
            Write::Set(None) => places.copy_from_slice(values),
            Write::Set(Some(bias)) => {
                for ((place, value), bias) in places.iter_mut().zip(values).zip(&bias[output..]) {
                    *place = value + bias;
                }
            }
            Write::Add => places.iter_mut().zip(values).for_each(|(place, value)| *place += value),
        }
    }
}
