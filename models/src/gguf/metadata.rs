//! Typed values of the metadata. Arrays stay in the file: a vocabulary is read where it is needed.

use std::{collections::BTreeMap, ops::Range};

use orion_proto::{Error, Result};

use super::cursor::Cursor;

/// The type number of a text, and of an array.
const TEXT: u32 = 8;
const ARRAY: u32 = 9;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    /// Elements of one type, where they lie in the file.
    Array {
        element: u32,
        count: usize,
        place: Range<usize>,
    },
}

impl Value {
    /// A whole number that is not negative, whatever its width.
    pub(crate) fn unsigned(&self) -> Option<u64> {
        match self {
            Self::Unsigned(value) => Some(*value),
            Self::Signed(value) => u64::try_from(*value).ok(),
            _ => None,
        }
    }

    /// A number.
    pub(crate) fn float(&self) -> Option<f64> {
        match self {
            Self::Float(value) => Some(*value),
            Self::Unsigned(value) => Some(*value as f64),
            Self::Signed(value) => Some(*value as f64),
            _ => None,
        }
    }

    pub(crate) fn bool(&self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(*value) } else { None }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        if let Self::Text(value) = self { Some(value) } else { None }
    }

    pub(super) fn length(&self) -> Option<usize> {
        if let Self::Array { count, .. } = self { Some(*count) } else { None }
    }

    /// Where the elements of an array of this type lie.
    fn elements(&self, allowed: &[u32]) -> Option<(usize, Range<usize>)> {
        match self {
            Self::Array { element, count, place } if allowed.contains(element) => Some((*count, place.clone())),
            _ => None,
        }
    }

    pub(super) fn texts<'a>(&self, file: &'a [u8]) -> Option<impl Iterator<Item = &'a str> + use<'a>> {
        let (count, place) = self.elements(&[TEXT])?;
        let mut cursor = Cursor::new(file.get(place)?);
        Some((0..count).map_while(move |_| cursor.string("a text").ok()))
    }

    pub(super) fn words<'a>(&self, file: &'a [u8]) -> Option<impl Iterator<Item = u32> + use<'a>> {
        let (_, place) = self.elements(&[4, 5, 6])?;
        let (words, _) = file.get(place)?.as_chunks::<4>();
        Some(words.iter().map(|word| u32::from_le_bytes(*word)))
    }
}

/// Reads so many keys with their values.
pub(super) fn read(cursor: &mut Cursor<'_>, count: u64) -> Result<BTreeMap<String, Value>> {
    // A key's length, a type and one byte.
    cursor.check_count(count, 8 + 4 + 1, "values of metadata")?;
    let mut values = BTreeMap::new();
    for _ in 0..count {
        let key = cursor.string("a key of the metadata")?;
        let kind = cursor.u32("a value's type")?;
        let value = if kind == ARRAY { array(cursor, key)? } else { single(cursor, key, kind)? };
        if values.insert(key.to_owned(), value).is_some() {
            return Err(Error::invalid(format!("'{key}' stands twice in the metadata")));
        }
    }
    Ok(values)
}

/// Bytes of a number of this type.
fn width(kind: u32) -> Option<usize> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

fn unknown(key: &str, kind: u32) -> Error {
    Error::invalid(format!("'{key}' has a value of type {kind}, known are 0 to 12"))
}

fn single(cursor: &mut Cursor<'_>, key: &str, kind: u32) -> Result<Value> {
    if kind == TEXT {
        return cursor.string(key).map(|text| Value::Text(text.to_owned()));
    }
    let taken = cursor.take(width(kind).ok_or_else(|| unknown(key, kind))?, key)?;
    let mut bytes = [0; 8];
    bytes[..taken.len()].copy_from_slice(taken);
    let bits = u64::from_le_bytes(bytes);
    // Moving the sign to the top and back extends it.
    let unused = 64 - 8 * taken.len() as u32;
    let signed = ((bits << unused) as i64) >> unused;
    Ok(match kind {
        1 | 3 | 5 | 11 => Value::Signed(signed),
        6 => Value::Float(f32::from_bits(bits as u32).into()),
        12 => Value::Float(f64::from_bits(bits)),
        7 => Value::Bool(bits != 0),
        _ => Value::Unsigned(bits),
    })
}

fn array(cursor: &mut Cursor<'_>, key: &str) -> Result<Value> {
    let element = cursor.u32(key)?;
    let count = cursor.u64(key)?;
    if element == ARRAY {
        return Err(Error::invalid(format!("'{key}' is an array of arrays, which is not read")));
    }
    let least = if element == TEXT { 8 } else { width(element).ok_or_else(|| unknown(key, element))? };
    cursor.check_count(count, least, &format!("elements of '{key}'"))?;
    let (count, start) = (count as usize, cursor.position());
    if element == TEXT {
        for _ in 0..count {
            cursor.string(key)?;
        }
    } else {
        cursor.take(count * least, key)?;
    }
    Ok(Value::Array { element, count, place: start..cursor.position() })
}
