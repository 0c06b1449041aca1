//! The element types of tensors: as ONNX numbers them, as candle computes in them, as clients send them.

use candle_core::DType;
use orion_proto::Datatype;

use crate::Precision;

/// An element type that the evaluator has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    Float32,
    Uint8,
    Int16,
    Int32,
    Int64,
    Bool,
    Float16,
    Float64,
    Uint32,
    Bfloat16,
}

/// ONNX's number, candle's type and the protocol's.
const TABLE: [(Element, i32, DType, Datatype); 10] = [
    (Element::Float32, 1, DType::F32, Datatype::Fp32),
    (Element::Uint8, 2, DType::U8, Datatype::Uint8),
    (Element::Int16, 5, DType::I16, Datatype::Int16),
    (Element::Int32, 6, DType::I32, Datatype::Int32),
    (Element::Int64, 7, DType::I64, Datatype::Int64),
    (Element::Bool, 9, DType::U8, Datatype::Bool),
    (Element::Float16, 10, DType::F16, Datatype::Fp16),
    (Element::Float64, 11, DType::F64, Datatype::Fp64),
    (Element::Uint32, 12, DType::U32, Datatype::Uint32),
    (Element::Bfloat16, 16, DType::BF16, Datatype::Bf16),
];

/// All of ONNX's names by number, for messages.
const NAMES: [&str; 24] = [
    "undefined",
    "float",
    "uint8",
    "int8",
    "uint16",
    "int16",
    "int32",
    "int64",
    "string",
    "bool",
    "float16",
    "double",
    "uint32",
    "uint64",
    "complex64",
    "complex128",
    "bfloat16",
    "float8e4m3fn",
    "float8e4m3fnuz",
    "float8e5m2",
    "float8e5m2fnuz",
    "uint4",
    "int4",
    "float4e2m1",
];

impl Element {
    /// From ONNX's number.
    ///
    /// # Errors
    /// A message naming a type that the evaluator has not.
    pub(super) fn from_number(number: i64) -> Result<Self, String> {
        let found = TABLE.iter().find(|row| i64::from(row.1) == number).map(|row| row.0);
        found.ok_or_else(|| {
            let name = usize::try_from(number).ok().and_then(|number| NAMES.get(number));
            let known = "float, double, float16, bfloat16, bool, uint8, int16, int32, uint32 and int64";
            match name {
                Some(name) => format!("element type {name} is not served, only {known} are"),
                None => format!("element type {number} is unknown"),
            }
        })
    }

    /// Bytes an element in a file or a message.
    pub(super) fn size(self) -> usize {
        TABLE[self as usize].2.size_in_bytes()
    }

    /// The type in which its values are kept; booleans are 0 and 1. A model of another precision than f32 computes in it
    /// wherever its graph says float.
    pub(super) fn dtype(self, precision: Precision) -> DType {
        match (self, precision) {
            (Self::Float32, precision) => precision.dtype(),
            _ => TABLE[self as usize].2,
        }
    }

    /// The type in which its values are stored in files and messages.
    pub(super) fn stored(self) -> DType {
        TABLE[self as usize].2
    }

    /// The protocol's type.
    pub(super) fn datatype(self) -> Datatype {
        TABLE[self as usize].3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_enum_and_others_are_named() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.0 as usize, index);
            assert_eq!(Element::from_number(row.1.into()), Ok(row.0));
            assert_eq!(row.3.size(), Some(row.0.size()));
        }
        for (number, words) in [(3, "int8 is not"), (8, "string is not"), (99, "99 is unknown"), (-1, "-1 is unknown")]
        {
            assert!(Element::from_number(number).is_err_and(|message| message.contains(words)));
        }
    }
}
