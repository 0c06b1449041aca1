//! BYTES tensors: each element is a little-endian 32-bit length and that many bytes.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{Error, Result, datatype::shortened};

/// The elements of a BYTES tensor, without copying.
///
/// # Errors
/// INVALID_ARGUMENT when a length passes the end, or when there are not `expected` elements.
pub fn bytes_elements(name: &str, data: &Bytes, expected: usize) -> Result<Vec<Bytes>> {
    let name = shortened(name);
    // An element takes 4 bytes at least: a larger expectation is wrong, and must not reserve memory.
    let mut elements = Vec::with_capacity(expected.min(data.len() / 4));
    let mut at = 0usize;
    while at < data.len() {
        let length = data.get(at..at + 4).and_then(|four| <[u8; 4]>::try_from(four).ok());
        let length = length.map(u32::from_le_bytes).ok_or_else(|| {
            Error::invalid(format!("BYTES tensor '{name}' ends inside the length of element {}", elements.len()))
        })? as usize;
        at += 4;
        let end = at.checked_add(length).filter(|&end| end <= data.len()).ok_or_else(|| {
            let left = data.len() - at;
            Error::invalid(format!(
                "BYTES tensor '{name}': element {} declares {length} bytes but {left} are left",
                elements.len()
            ))
        })?;
        elements.push(data.slice(at..end));
        at = end;
    }
    if elements.len() != expected {
        let got = elements.len();
        return Err(Error::invalid(format!("BYTES tensor '{name}' holds {got} elements, its shape says {expected}")));
    }
    Ok(elements)
}

/// Elements in the form of a BYTES tensor. An element longer than `u32::MAX` cannot come from a message.
pub fn encode_bytes_elements<E: AsRef<[u8]>>(elements: &[E]) -> Bytes {
    let total = elements.iter().map(|e| 4 + e.as_ref().len()).sum();
    let mut out = BytesMut::with_capacity(total);
    for element in elements {
        out.put_u32_le(element.as_ref().len() as u32);
        out.put_slice(element.as_ref());
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn elements_round_trip(elements in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..20)) {
            let data = encode_bytes_elements(&elements);
            let back = bytes_elements("x", &data, elements.len()).unwrap();
            prop_assert_eq!(back.iter().map(|b| b.to_vec()).collect::<Vec<_>>(), elements);
        }

        #[test]
        fn garbage_never_panics_nor_reserves(data in prop::collection::vec(any::<u8>(), 0..64), expected in any::<usize>()) {
            let _ = bytes_elements("x", &Bytes::from(data), expected);
        }
    }

    #[test]
    fn a_wrong_length_is_named() {
        let error = bytes_elements("text", &Bytes::from_static(&[9, 0, 0, 0, 1]), 1).unwrap_err();
        assert_eq!(error.message, "BYTES tensor 'text': element 0 declares 9 bytes but 1 are left");
        assert!(bytes_elements("text", &Bytes::from_static(&[9, 0]), 1).is_err());
        assert!(bytes_elements("text", &Bytes::new(), 1).is_err());
    }
}
