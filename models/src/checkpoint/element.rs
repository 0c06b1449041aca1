//! What a tensor's elements are on disk, and reading them as f32.

use candle_core::DType;
use half::slice::HalfFloatSliceExt;
use safetensors::Dtype;

use crate::Precision;

/// The type of a tensor's elements, little-endian. The types beyond these are refused when a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names are safetensors' own
pub enum Element {
    Bool,
    U8,
    I8,
    I16,
    I32,
    I64,
    F16,
    Bf16,
    F32,
    F64,
}

/// Name in safetensors' header, bytes, and what candle calls it.
const TABLE: [(Element, Dtype, usize, Option<DType>); 10] = [
    (Element::Bool, Dtype::BOOL, 1, Some(DType::U8)),
    (Element::U8, Dtype::U8, 1, Some(DType::U8)),
    (Element::I8, Dtype::I8, 1, None),
    (Element::I16, Dtype::I16, 2, Some(DType::I16)),
    (Element::I32, Dtype::I32, 4, Some(DType::I32)),
    (Element::I64, Dtype::I64, 8, Some(DType::I64)),
    (Element::F16, Dtype::F16, 2, Some(DType::F16)),
    (Element::Bf16, Dtype::BF16, 2, Some(DType::BF16)),
    (Element::F32, Dtype::F32, 4, Some(DType::F32)),
    (Element::F64, Dtype::F64, 8, Some(DType::F64)),
];

/// Halves are widened in blocks of so many, by the processor's vector instructions where it has them.
const BLOCK: usize = 1024;

impl Element {
    /// Of safetensors' type; none for those that no model here has.
    pub(crate) fn from_safetensors(dtype: Dtype) -> Option<Self> {
        TABLE.iter().find(|row| row.1 == dtype).map(|row| row.0)
    }

    /// Its name and type in a safetensors header.
    pub(crate) fn safetensors(self) -> Dtype {
        TABLE[self as usize].1
    }

    /// Bytes of one.
    pub fn size(self) -> usize {
        TABLE[self as usize].2
    }

    /// Candle's type; none for I8, which candle has not.
    pub fn candle(self) -> Option<DType> {
        TABLE[self as usize].3
    }

    /// Whether it is one of the floating-point types.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::Bf16 | Self::F32 | Self::F64)
    }

    /// Appends elements as f32; an element that is cut off at the end is left out. Only floats are appended.
    pub(crate) fn extend_f32(self, bytes: &[u8], floats: &mut Vec<f32>) {
        match self {
            Self::F32 => floats.extend(bytes.as_chunks().0.iter().map(|&four| f32::from_le_bytes(four))),
            Self::F64 => floats.extend(bytes.as_chunks().0.iter().map(|&eight| f64::from_le_bytes(eight) as f32)),
            Self::F16 => widen(bytes, half::f16::from_le_bytes, half::f16::ZERO, floats),
            Self::Bf16 => widen(bytes, half::bf16::from_le_bytes, half::bf16::ZERO, floats),
            Self::Bool | Self::U8 | Self::I8 | Self::I16 | Self::I32 | Self::I64 => {}
        }
    }
}

impl From<Precision> for Element {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::F16 => Self::F16,
            Precision::Bf16 => Self::Bf16,
        }
    }
}

impl std::fmt::Display for Element {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.safetensors())
    }
}

fn widen<T: Copy>(bytes: &[u8], read: fn([u8; 2]) -> T, zero: T, floats: &mut Vec<f32>)
where
    [T]: HalfFloatSliceExt,
{
    let (mut halves, mut wide) = ([zero; BLOCK], [0.0; BLOCK]);
    for block in bytes.as_chunks().0.chunks(BLOCK) {
        let halves = &mut halves[..block.len()];
        halves.iter_mut().zip(block).for_each(|(half, &two)| *half = read(two));
        halves.convert_to_f32_slice(&mut wide[..block.len()]);
        floats.extend_from_slice(&wide[..block.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_enum() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!((row.0 as usize, row.0.size() * 8), (index, row.1.bitsize()));
            assert_eq!(Element::from_safetensors(row.1), Some(row.0));
            assert!(row.3.is_none_or(|dtype| dtype.size_in_bytes() == row.2));
        }
    }

    #[test]
    fn every_float_type_is_read_across_blocks_and_at_odd_addresses() {
        let values: Vec<f32> = (0..BLOCK as i32 + 7).map(|n| (n - 500) as f32 * 0.25).collect();
        type Encode = fn(&f32) -> Vec<u8>;
        let encodings: [(Element, Encode); 4] = [
            (Element::F32, |v| v.to_le_bytes().to_vec()),
            (Element::F64, |v| f64::from(*v).to_le_bytes().to_vec()),
            (Element::F16, |v| half::f16::from_f32(*v).to_le_bytes().to_vec()),
            (Element::Bf16, |v| half::bf16::from_f32(*v).to_le_bytes().to_vec()),
        ];
        for (element, encode) in encodings {
            let mut bytes = vec![0];
            bytes.extend(values.iter().flat_map(encode));
            let mut floats = Vec::new();
            element.extend_f32(&bytes[1..], &mut floats);
            let want: Vec<f32> = match element {
                Element::Bf16 => values.iter().map(|v| half::bf16::from_f32(*v).to_f32()).collect(),
                _ => values.clone(),
            };
            assert_eq!(floats, want, "{element}");
        }
    }
}
