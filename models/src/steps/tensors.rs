//! FP32 tensors as numbers, and back.

use orion_proto::{Datatype, Error, Payload, Result, Tensor};

/// Values of an answer: a few samples and a small step must not fill the memory.
pub(super) const MOST_VALUES: usize = 1 << 26;

/// An FP32 tensor's values.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Values {
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f32>,
}

impl Values {
    /// The input of this name, which was checked to be FP32.
    pub(super) fn of(inputs: &[Tensor], name: &str) -> Result<Self> {
        let missing = || Error::invalid(format!("input '{name}' is missing"));
        let tensor = inputs.iter().find(|tensor| tensor.name == name).ok_or_else(missing)?;
        let data = tensor.data.contiguous();
        let values = data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        Ok(Self { shape: tensor.shape.iter().map(|size| usize::try_from(*size).unwrap_or(0)).collect(), values })
    }

    /// Of the last dimension.
    pub(super) fn width(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Every row of the last dimension.
    pub(super) fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.width().max(1))
    }

    pub(super) fn rows_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        let width = self.width().max(1);
        self.values.chunks_exact_mut(width)
    }

    pub(super) fn tensor(&self, name: &str) -> Tensor {
        let bytes: Vec<u8> = self.values.iter().flat_map(|value| value.to_le_bytes()).collect();
        tensor(name, Datatype::Fp32, &self.shape, bytes)
    }
}

pub(super) fn tensor(name: &str, datatype: Datatype, shape: &[usize], bytes: Vec<u8>) -> Tensor {
    let shape = shape.iter().map(|size| *size as i64).collect();
    Tensor { name: name.into(), datatype, shape, data: Payload::from(bytes) }
}

pub(super) fn int64(name: &str, shape: &[usize], values: &[i64]) -> Tensor {
    tensor(name, Datatype::Int64, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect())
}
