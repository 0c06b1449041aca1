//! A tensor's elements between JSON and little-endian bytes.

use std::str::FromStr;

use bytes::{BufMut, Bytes, BytesMut};
use orion_proto::{Code, Datatype, Error, Result, Tensor, bytes_elements, element_count};

use super::reply::excerpt;

/// Arrays in arrays that a tensor's data may be.
const DEEPEST: usize = 64;

/// Reads a JSON array, flat or nested, of `count` elements. `json` must be well-formed, as serde_json's `RawValue` is:
/// this only looks for the elements, without recursion.
///
/// # Errors
/// INVALID_ARGUMENT naming the element that is none of this datatype, or the number of elements.
pub(super) fn parse(name: &str, datatype: Datatype, count: usize, json: &str) -> Result<Bytes> {
    let mut elements = Elements { name, datatype, json, at: 0, depth: 0 };
    if !json.starts_with('[') {
        return Err(Error::invalid(format!("input '{name}' has data that is no JSON array")));
    }
    // An element takes two characters: a larger count is wrong, and must not reserve memory.
    let most = count.min(json.len() / 2 + 1);
    let mut out = BytesMut::with_capacity(most.saturating_mul(datatype.size().unwrap_or(4)));
    let read = match datatype {
        Datatype::Bool => elements.each(count, |text| boolean(text).map(|v| out.put_u8(v)))?,
        Datatype::Int8 => elements.each(count, |text| integer(text).map(|v| out.put_i8(v)))?,
        Datatype::Int16 => elements.each(count, |text| integer(text).map(|v| out.put_i16_le(v)))?,
        Datatype::Int32 => elements.each(count, |text| integer(text).map(|v| out.put_i32_le(v)))?,
        Datatype::Int64 => elements.each(count, |text| integer(text).map(|v| out.put_i64_le(v)))?,
        Datatype::Uint8 => elements.each(count, |text| integer(text).map(|v| out.put_u8(v)))?,
        Datatype::Uint16 => elements.each(count, |text| integer(text).map(|v| out.put_u16_le(v)))?,
        Datatype::Uint32 => elements.each(count, |text| integer(text).map(|v| out.put_u32_le(v)))?,
        Datatype::Uint64 => elements.each(count, |text| integer(text).map(|v| out.put_u64_le(v)))?,
        Datatype::Fp32 => elements
            .each(count, |text| text.parse::<f32>().ok().filter(|v| v.is_finite()).map(|v| out.put_f32_le(v)))?,
        Datatype::Fp64 => elements
            .each(count, |text| text.parse::<f64>().ok().filter(|v| v.is_finite()).map(|v| out.put_f64_le(v)))?,
        Datatype::Bytes => elements.each(count, |text| string(text, &mut out))?,
        Datatype::Fp16 | Datatype::Bf16 => {
            return Err(Error::invalid(format!("input '{name}' is {datatype}, which travels as binary data only")));
        }
    };
    match read == count {
        true => Ok(out.freeze()),
        false => Err(Error::invalid(format!("input '{name}' holds {read} elements, its shape says {count}"))),
    }
}

struct Elements<'a> {
    name: &'a str,
    datatype: Datatype,
    json: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Elements<'a> {
    /// Calls `put` with the text of each element; it says `None` to what is no element of the datatype.
    #[inline(always)]
    fn each(&mut self, count: usize, mut put: impl FnMut(&'a str) -> Option<()>) -> Result<usize> {
        let mut read = 0usize;
        while let Some(text) = self.next()? {
            if read == count {
                let name = self.name;
                return Err(Error::invalid(format!(
                    "input '{name}' holds more than the {count} elements of its shape"
                )));
            }
            put(text).ok_or_else(|| self.wrong(read, text))?;
            read += 1;
        }
        Ok(read)
    }

    fn next(&mut self) -> Result<Option<&'a str>> {
        let bytes = self.json.as_bytes();
        while let Some(&byte) = bytes.get(self.at) {
            let start = self.at;
            self.at += 1;
            match byte {
                b'[' => {
                    self.depth += 1;
                    if self.depth > DEEPEST {
                        let name = self.name;
                        return Err(Error::invalid(format!("input '{name}' has data nested over {DEEPEST} deep")));
                    }
                }
                b']' => self.depth = self.depth.saturating_sub(1),
                b',' | b' ' | b'\n' | b'\r' | b'\t' => {}
                b'{' => {
                    let Self { name, datatype, .. } = self;
                    return Err(Error::invalid(format!(
                        "input '{name}' holds an object, it must hold {datatype} elements"
                    )));
                }
                _ => {
                    self.at = if byte == b'"' { string_end(bytes, self.at) } else { literal_end(bytes, self.at) };
                    return Ok(self.json.get(start..self.at));
                }
            }
        }
        Ok(None)
    }

    fn wrong(&self, index: usize, text: &str) -> Error {
        let Self { name, datatype, .. } = self;
        Error::invalid(format!("input '{name}' holds {} as element {index}, which is no {datatype}", excerpt(text)))
    }
}

/// The place after the quote that ends the string whose content starts at `at`.
fn string_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The place where a number, `true`, `false` or `null` ends.
fn literal_end(bytes: &[u8], at: usize) -> usize {
    let ends = |byte: &u8| matches!(byte, b',' | b']' | b' ' | b'\n' | b'\r' | b'\t');
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().position(ends).unwrap_or(rest.len())
}

fn boolean(text: &str) -> Option<u8> {
    match text {
        "true" => Some(1),
        "false" => Some(0),
        _ => None,
    }
}

fn integer<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn string(text: &str, out: &mut BytesMut) -> Option<()> {
    let content = text.strip_prefix('"')?.strip_suffix('"')?;
    match content.contains('\\') {
        false => put_string(content, out),
        true => put_string(&serde_json::from_str::<String>(text).ok()?, out),
    }
}

fn put_string(content: &str, out: &mut BytesMut) -> Option<()> {
    out.reserve(4 + content.len());
    out.put_u32_le(u32::try_from(content.len()).ok()?);
    out.put_slice(content.as_bytes());
    Some(())
}

/// Writes a tensor's elements as a flat JSON array. NaN and infinities are written as Triton and Python do, `NaN`,
/// `Infinity` and `-Infinity`: JSON has no form for them.
///
/// # Errors
/// INVALID_ARGUMENT for what JSON cannot carry, saying that binary data can.
pub(super) fn write(out: &mut Vec<u8>, tensor: &Tensor) -> Result<()> {
    let data = tensor.data.contiguous();
    match tensor.datatype {
        Datatype::Bool => list(out, &data, |out, [v]: [u8; 1]| number(out, v != 0)),
        Datatype::Int8 => list(out, &data, |out, v| number(out, i8::from_le_bytes(v))),
        Datatype::Int16 => list(out, &data, |out, v| number(out, i16::from_le_bytes(v))),
        Datatype::Int32 => list(out, &data, |out, v| number(out, i32::from_le_bytes(v))),
        Datatype::Int64 => list(out, &data, |out, v| number(out, i64::from_le_bytes(v))),
        Datatype::Uint8 => list(out, &data, |out, v| number(out, u8::from_le_bytes(v))),
        Datatype::Uint16 => list(out, &data, |out, v| number(out, u16::from_le_bytes(v))),
        Datatype::Uint32 => list(out, &data, |out, v| number(out, u32::from_le_bytes(v))),
        Datatype::Uint64 => list(out, &data, |out, v| number(out, u64::from_le_bytes(v))),
        Datatype::Fp32 => floats(out, &data),
        Datatype::Fp64 => list(out, &data, |out, v| {
            let value = f64::from_le_bytes(v);
            if value.is_finite() { number(out, value) } else { not_finite(out, value) }
        }),
        Datatype::Bytes => return strings(out, tensor, &data),
        Datatype::Fp16 | Datatype::Bf16 => {
            return Err(Error::invalid(format!(
                "output '{}' is {}, which travels as binary data only, ask for it with binary_data",
                tensor.name, tensor.datatype
            )));
        }
    }
    Ok(())
}

/// Writes little-endian FP32 elements as a flat JSON array.
pub(super) fn floats(out: &mut Vec<u8>, data: &[u8]) {
    list(out, data, |out, v| {
        let value = f32::from_le_bytes(v);
        if value.is_finite() { number(out, value) } else { not_finite(out, f64::from(value)) }
    });
}

#[inline(always)]
fn list<const N: usize>(out: &mut Vec<u8>, data: &[u8], mut put: impl FnMut(&mut Vec<u8>, [u8; N])) {
    let (elements, _) = data.as_chunks::<N>();
    out.push(b'[');
    for (index, element) in elements.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        put(out, *element);
    }
    out.push(b']');
}

#[inline]
fn number(out: &mut Vec<u8>, value: impl serde::Serialize) {
    // Writing to memory cannot fail.
    let _ = serde_json::to_writer(out, &value);
}

fn not_finite(out: &mut Vec<u8>, value: f64) {
    let text = match value {
        f64::INFINITY => "Infinity",
        f64::NEG_INFINITY => "-Infinity",
        _ => "NaN",
    };
    out.extend_from_slice(text.as_bytes());
}

fn strings(out: &mut Vec<u8>, tensor: &Tensor, data: &Bytes) -> Result<()> {
    let name = &tensor.name;
    let elements = bytes_elements(name, data, element_count(name, &tensor.shape)?)
        .map_err(|error| Error::new(Code::Internal, error.message))?;
    out.push(b'[');
    for (index, element) in elements.iter().enumerate() {
        let text = std::str::from_utf8(element).map_err(|_| {
            Error::invalid(format!("output '{name}' element {index} is not UTF-8, ask for it with binary_data"))
        })?;
        if index > 0 {
            out.push(b',');
        }
        number(out, text);
    }
    out.push(b']');
    Ok(())
}

#[cfg(test)]
mod tests;
