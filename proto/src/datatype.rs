//! The tensor element types of the Open Inference Protocol.

use crate::{Code, Error, inference::DataType};

/// A tensor's element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are the protocol's own
pub enum Datatype {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Bf16,
    Fp32,
    Fp64,
    Bytes,
}

/// Name on the wire, bytes an element (`None`: each element carries its own length), Triton's number.
const TABLE: [(Datatype, &str, Option<usize>, DataType); 14] = [
    (Datatype::Bool, "BOOL", Some(1), DataType::TypeBool),
    (Datatype::Uint8, "UINT8", Some(1), DataType::TypeUint8),
    (Datatype::Uint16, "UINT16", Some(2), DataType::TypeUint16),
    (Datatype::Uint32, "UINT32", Some(4), DataType::TypeUint32),
    (Datatype::Uint64, "UINT64", Some(8), DataType::TypeUint64),
    (Datatype::Int8, "INT8", Some(1), DataType::TypeInt8),
    (Datatype::Int16, "INT16", Some(2), DataType::TypeInt16),
    (Datatype::Int32, "INT32", Some(4), DataType::TypeInt32),
    (Datatype::Int64, "INT64", Some(8), DataType::TypeInt64),
    (Datatype::Fp16, "FP16", Some(2), DataType::TypeFp16),
    (Datatype::Bf16, "BF16", Some(2), DataType::TypeBf16),
    (Datatype::Fp32, "FP32", Some(4), DataType::TypeFp32),
    (Datatype::Fp64, "FP64", Some(8), DataType::TypeFp64),
    (Datatype::Bytes, "BYTES", None, DataType::TypeString),
];

impl Datatype {
    /// From its name on the wire, such as `FP32`.
    ///
    /// # Errors
    /// INVALID_ARGUMENT naming the unknown name and the known ones.
    pub fn from_name(name: &str) -> Result<Self, Error> {
        TABLE.iter().find(|row| row.1 == name).map(|row| row.0).ok_or_else(|| {
            let known: Vec<&str> = TABLE.iter().map(|row| row.1).collect();
            Error::new(
                Code::InvalidArgument,
                format!("datatype '{}' is unknown, it must be one of {}", shortened(name), known.join(", ")),
            )
        })
    }

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        TABLE[self as usize].1
    }

    /// Bytes an element; `None` for BYTES.
    pub fn size(self) -> Option<usize> {
        TABLE[self as usize].2
    }

    /// From Triton's number for it in a model's configuration.
    pub fn from_triton(number: DataType) -> Option<Self> {
        TABLE.iter().find(|row| row.3 == number).map(|row| row.0)
    }

    /// Triton's number for it in a model's configuration.
    pub fn triton(self) -> DataType {
        TABLE[self as usize].3
    }
}

impl std::fmt::Display for Datatype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A foreign string as a message may repeat it: at most 64 characters, no control characters.
pub(crate) fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(64).map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.chars().nth(64).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_enum_and_round_trips() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.0 as usize, index);
            assert_eq!(Datatype::from_name(row.0.name()).ok(), Some(row.0));
            assert_eq!(Datatype::from_triton(row.0.triton()), Some(row.0));
        }
        assert!(Datatype::from_name("FLOAT").is_err_and(|e| e.message.contains("FLOAT") && e.message.contains("FP32")));
    }
}
