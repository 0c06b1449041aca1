//! Answers as numbers: rows of a floating-point tensor.

use bytes::{BufMut, BytesMut};
use half::{bf16, f16};
use orion_proto::{Code, Datatype, Error, Payload, Result, Tensor};

/// A tensor's values, and how many are a row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rows {
    values: Vec<f32>,
    pub(super) width: usize,
    rows: usize,
    /// The shape; the first dimension is rows.
    pub(super) shape: Vec<i64>,
}

impl Rows {
    /// Reads a tensor of floating-point numbers.
    pub(super) fn read(tensor: &Tensor) -> Result<Self> {
        let data = tensor.data.contiguous();
        let values: Vec<f32> = match tensor.datatype {
            Datatype::Fp32 => data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            Datatype::Fp16 => data.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
            Datatype::Bf16 => data.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
            Datatype::Fp64 => {
                let wide = |b: &[u8]| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f32;
                data.chunks_exact(8).map(wide).collect()
            }
            other => {
                return Err(Error::new(Code::Internal, format!("output '{}' is {other}, no numbers", tensor.name)));
            }
        };
        let rows = tensor.rows();
        let width = values.len().checked_div(rows).unwrap_or(0);
        Ok(Self { values, width, rows, shape: tensor.shape.clone() })
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    #[cfg(test)]
    pub(super) fn values(&self) -> &[f32] {
        &self.values
    }

    pub(super) fn row(&self, at: usize) -> &[f32] {
        &self.values[at * self.width..][..self.width]
    }
}

/// A tensor of these values.
pub(super) fn fp32(name: &str, shape: Vec<i64>, values: &[f32]) -> Tensor {
    let mut bytes = BytesMut::with_capacity(values.len() * 4);
    values.iter().for_each(|value| bytes.put_f32_le(*value));
    Tensor { name: name.into(), datatype: Datatype::Fp32, shape, data: Payload::from(bytes.freeze()) }
}

pub(super) fn int64(name: &str, values: &[i64]) -> Tensor {
    let mut bytes = BytesMut::with_capacity(values.len() * 8);
    values.iter().for_each(|value| bytes.put_i64_le(*value));
    let shape = vec![values.len() as i64];
    Tensor { name: name.into(), datatype: Datatype::Int64, shape, data: Payload::from(bytes.freeze()) }
}

pub(super) fn int32(name: &str, value: i32, rows: usize) -> Tensor {
    let mut bytes = BytesMut::with_capacity(rows * 4);
    (0..rows).for_each(|_| bytes.put_i32_le(value));
    let data = Payload::from(bytes.freeze());
    Tensor { name: name.into(), datatype: Datatype::Int32, shape: vec![rows as i64], data }
}

/// Where the greatest value of a row is; the first of equal ones, and of an empty row 0. What is no number is none.
pub(super) fn greatest(row: &[f32]) -> usize {
    let mut best = 0;
    for (at, value) in row.iter().enumerate().skip(1) {
        if *value > row[best] || (row[best].is_nan() && !value.is_nan()) {
            best = at;
        }
    }
    best
}

/// How sure a row is of its class: the share of the greatest value. Values that are no shares yet become such by softmax;
/// what is no number is less sure than anything.
pub(super) fn confidence(row: &[f32]) -> f32 {
    if row.iter().any(|value| value.is_nan()) {
        return f32::NEG_INFINITY;
    }
    let sum: f32 = row.iter().sum();
    let shares = row.iter().all(|value| (0.0..=1.0).contains(value)) && (sum - 1.0).abs() < 1e-3;
    let best = row.get(greatest(row)).copied().unwrap_or(0.0);
    match (row.len(), shares) {
        (0, _) => 0.0,
        // One value is as sure as it is far from undecided.
        (1, _) => best.abs(),
        (_, true) => best,
        (_, false) => 1.0 / row.iter().map(|value| (value - best).exp()).sum::<f32>(),
    }
}
