//! The embeddings of words, held in a precision.

use half::{bf16, f16, slice::HalfFloatSliceExt};

use crate::Precision;

/// A row for each word of the vocabulary.
pub(super) enum Words {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

impl Words {
    pub(super) fn new(values: Vec<f32>, precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32(values),
            Precision::F16 => Self::F16(values.into_iter().map(f16::from_f32).collect()),
            Precision::Bf16 => Self::Bf16(values.into_iter().map(bf16::from_f32).collect()),
        }
    }

    /// Copies the row of a word that is in the vocabulary.
    pub(super) fn copy(&self, word: usize, row: &mut [f32]) {
        let place = word * row.len()..(word + 1) * row.len();
        match self {
            Self::F32(values) => row.copy_from_slice(&values[place]),
            Self::F16(values) => values[place].convert_to_f32_slice(row),
            Self::Bf16(values) => values[place].convert_to_f32_slice(row),
        }
    }
}
