//! A tensor's elements as text, and text as a tensor's bytes.

use bytes::{BufMut, Bytes, BytesMut};
use half::{bf16, f16};
use orion_proto::{Datatype, bytes_elements, encode_bytes_elements};
use serde::Serialize;

use crate::Failure;

/// A tensor's elements in the type that shows them without loss.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Values {
    /// BOOL.
    Bool(Vec<bool>),
    /// INT8 to INT64.
    Int(Vec<i64>),
    /// UINT8 to UINT64.
    Uint(Vec<u64>),
    /// FP16, BF16 and FP32.
    Float(Vec<f32>),
    /// FP64.
    Double(Vec<f64>),
    /// BYTES; what is no UTF-8 is replaced.
    Text(Vec<String>),
}

/// The raw bytes of the values of `fields`.
pub(crate) fn encode(name: &str, datatype: Datatype, fields: &[&str]) -> Result<Bytes, Failure> {
    let mut out = BytesMut::new();
    match datatype {
        Datatype::Bytes => return Ok(encode_bytes_elements(fields)),
        Datatype::Bool => each(name, datatype, fields, |v: bool| out.put_u8(u8::from(v)))?,
        Datatype::Uint8 => each(name, datatype, fields, |v| out.put_u8(v))?,
        Datatype::Uint16 => each(name, datatype, fields, |v| out.put_u16_le(v))?,
        Datatype::Uint32 => each(name, datatype, fields, |v| out.put_u32_le(v))?,
        Datatype::Uint64 => each(name, datatype, fields, |v| out.put_u64_le(v))?,
        Datatype::Int8 => each(name, datatype, fields, |v| out.put_i8(v))?,
        Datatype::Int16 => each(name, datatype, fields, |v| out.put_i16_le(v))?,
        Datatype::Int32 => each(name, datatype, fields, |v| out.put_i32_le(v))?,
        Datatype::Int64 => each(name, datatype, fields, |v| out.put_i64_le(v))?,
        Datatype::Fp16 => each(name, datatype, fields, |v: f32| out.put_u16_le(f16::from_f32(v).to_bits()))?,
        Datatype::Bf16 => each(name, datatype, fields, |v: f32| out.put_u16_le(bf16::from_f32(v).to_bits()))?,
        Datatype::Fp32 => each(name, datatype, fields, |v| out.put_f32_le(v))?,
        Datatype::Fp64 => each(name, datatype, fields, |v| out.put_f64_le(v))?,
    }
    Ok(out.freeze())
}

fn each<T: std::str::FromStr>(
    name: &str,
    datatype: Datatype,
    fields: &[&str],
    mut put: impl FnMut(T),
) -> Result<(), Failure> {
    for field in fields {
        let value = field.trim().parse();
        put(value
            .map_err(|_| Failure::new(format!("input '{name}' holds '{}', which is no {datatype}", field.trim())))?);
    }
    Ok(())
}

/// The elements of raw bytes that hold `count` of them.
pub(crate) fn decode(name: &str, datatype: Datatype, data: &Bytes, count: usize) -> Result<Values, Failure> {
    if datatype.size().is_some_and(|size| count.checked_mul(size) != Some(data.len())) {
        return Err(Failure::new(format!(
            "output '{name}' holds {} bytes, its shape says {count} elements of {datatype}",
            data.len()
        )));
    }
    Ok(match datatype {
        Datatype::Bytes => {
            let text = |element: &Bytes| String::from_utf8_lossy(element).into_owned();
            Values::Text(bytes_elements(name, data, count)?.iter().map(text).collect())
        }
        Datatype::Bool => Values::Bool(data.iter().map(|&byte| byte != 0).collect()),
        Datatype::Uint8 => Values::Uint(data.iter().map(|&byte| u64::from(byte)).collect()),
        Datatype::Uint16 => Values::Uint(numbers(data, |b| u64::from(u16::from_le_bytes(b)))),
        Datatype::Uint32 => Values::Uint(numbers(data, |b| u64::from(u32::from_le_bytes(b)))),
        Datatype::Uint64 => Values::Uint(numbers(data, u64::from_le_bytes)),
        Datatype::Int8 => Values::Int(numbers(data, |b| i64::from(i8::from_le_bytes(b)))),
        Datatype::Int16 => Values::Int(numbers(data, |b| i64::from(i16::from_le_bytes(b)))),
        Datatype::Int32 => Values::Int(numbers(data, |b| i64::from(i32::from_le_bytes(b)))),
        Datatype::Int64 => Values::Int(numbers(data, i64::from_le_bytes)),
        Datatype::Fp16 => Values::Float(numbers(data, |b| f16::from_le_bytes(b).to_f32())),
        Datatype::Bf16 => Values::Float(numbers(data, |b| bf16::from_le_bytes(b).to_f32())),
        Datatype::Fp32 => Values::Float(numbers(data, f32::from_le_bytes)),
        Datatype::Fp64 => Values::Double(numbers(data, f64::from_le_bytes)),
    })
}

fn numbers<const SIZE: usize, T>(data: &Bytes, read: impl Fn([u8; SIZE]) -> T) -> Vec<T> {
    data.as_chunks().0.iter().map(|chunk| read(*chunk)).collect()
}

impl Values {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Bool(list) => list.len(),
            Self::Int(list) => list.len(),
            Self::Uint(list) => list.len(),
            Self::Float(list) => list.len(),
            Self::Double(list) => list.len(),
            Self::Text(list) => list.len(),
        }
    }

    /// One as a person reads it.
    pub(crate) fn show(&self, index: usize) -> String {
        let text = match self {
            Self::Bool(list) => list.get(index).map(ToString::to_string),
            Self::Int(list) => list.get(index).map(ToString::to_string),
            Self::Uint(list) => list.get(index).map(ToString::to_string),
            Self::Float(list) => list.get(index).map(|value| float(f64::from(*value))),
            Self::Double(list) => list.get(index).map(|value| float(*value)),
            Self::Text(list) => list.get(index).cloned(),
        };
        text.unwrap_or_default()
    }

    /// The Euclidean norm of a run of floating-point values; `None` for other types and for runs out of range.
    pub(crate) fn norm(&self, run: std::ops::Range<usize>) -> Option<f64> {
        let squares: f64 = match self {
            Self::Float(list) => list.get(run)?.iter().map(|value| f64::from(*value).powi(2)).sum(),
            Self::Double(list) => list.get(run)?.iter().map(|value| value.powi(2)).sum(),
            _ => return None,
        };
        Some(squares.sqrt())
    }
}

/// Four decimals where they say something, else the shortest form.
fn float(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        size if (1e-3..1e6).contains(&size) => format!("{value:.4}"),
        _ => format!("{value:e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_datatype_comes_back_as_it_was_written() {
        let cases: [(Datatype, &[&str], &str); 14] = [
            (Datatype::Bool, &["true", "false"], "[true,false]"),
            (Datatype::Uint8, &["0", "255"], "[0,255]"),
            (Datatype::Uint16, &["65535"], "[65535]"),
            (Datatype::Uint32, &["4294967295"], "[4294967295]"),
            (Datatype::Uint64, &["18446744073709551615"], "[18446744073709551615]"),
            (Datatype::Int8, &["-128"], "[-128]"),
            (Datatype::Int16, &["-32768"], "[-32768]"),
            (Datatype::Int32, &["-2147483648"], "[-2147483648]"),
            (Datatype::Int64, &["-9223372036854775808"], "[-9223372036854775808]"),
            (Datatype::Fp16, &["0.5", "-2"], "[0.5,-2.0]"),
            (Datatype::Bf16, &["0.5"], "[0.5]"),
            (Datatype::Fp32, &["0.1", " 3e-5 "], "[0.1,0.00003]"),
            (Datatype::Fp64, &["0.1"], "[0.1]"),
            (Datatype::Bytes, &["a,b", ""], "[\"a,b\",\"\"]"),
        ];
        for (datatype, fields, json) in cases {
            let data = encode("x", datatype, fields).unwrap();
            let values = decode("x", datatype, &data, fields.len()).unwrap();
            assert_eq!(values.len(), fields.len());
            assert_eq!(serde_json::to_string(&values).unwrap(), json, "{datatype}");
            assert!(decode("x", datatype, &data, fields.len() + 1).is_err());
        }
        let wrong = encode("x", Datatype::Uint8, &["256"]).unwrap_err();
        assert_eq!(wrong.message, "input 'x' holds '256', which is no UINT8");
    }
}
