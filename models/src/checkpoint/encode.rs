//! Elements of one floating-point type written as another.

use orion_proto::{Error, Result};

use super::Element;

/// Appends `bytes`, elements of `from`, as elements of `to`. What is no float stays as it is.
///
/// # Errors
/// INVALID_ARGUMENT with the first finite value that `to` has no room for.
pub(crate) fn encode(bytes: &[u8], from: Element, to: Element, out: &mut Vec<u8>) -> Result<()> {
    if from == to || !from.is_float() {
        out.extend_from_slice(bytes);
        return Ok(());
    }
    // Through f64, which holds each exactly.
    let mut each = |value: f64| narrow(value, to, out);
    match from {
        Element::F64 => bytes.as_chunks().0.iter().try_for_each(|&b| each(f64::from_le_bytes(b))),
        Element::F32 => bytes.as_chunks().0.iter().try_for_each(|&b| each(f64::from(f32::from_le_bytes(b)))),
        Element::F16 => bytes.as_chunks().0.iter().try_for_each(|&b| each(half::f16::from_le_bytes(b).to_f64())),
        _ => bytes.as_chunks().0.iter().try_for_each(|&b| each(half::bf16::from_le_bytes(b).to_f64())),
    }
}

fn narrow(value: f64, to: Element, out: &mut Vec<u8>) -> Result<()> {
    // Halves are made of f32, as PyTorch makes them.
    let single = value as f32;
    let finite = match to {
        Element::F16 => {
            let half = half::f16::from_f32(single);
            out.extend_from_slice(&half.to_le_bytes());
            half.is_finite()
        }
        Element::Bf16 => {
            let half = half::bf16::from_f32(single);
            out.extend_from_slice(&half.to_le_bytes());
            half.is_finite()
        }
        Element::F32 => {
            out.extend_from_slice(&single.to_le_bytes());
            single.is_finite()
        }
        _ => {
            out.extend_from_slice(&value.to_le_bytes());
            true
        }
    };
    if finite || !value.is_finite() {
        return Ok(());
    }
    Err(Error::invalid(format!("it holds {value:e}, which {to} has no room for")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_rounded_and_what_has_no_room_is_refused() {
        let encoded = |value: f64, to| {
            let mut out = Vec::new();
            encode(&value.to_le_bytes(), Element::F64, to, &mut out).map(|()| out)
        };
        // Halfway to the next half: to the even one.
        let tie = 1.0 + f64::powi(2.0, -11);
        assert_eq!(encoded(tie, Element::F16), Ok(half::f16::ONE.to_le_bytes().to_vec()));
        assert_eq!(encoded(0.5, Element::F32), Ok(0.5f32.to_le_bytes().to_vec()));
        assert!(encoded(f64::NAN, Element::F16).is_ok() && encoded(f64::INFINITY, Element::Bf16).is_ok());
        for (value, to) in [(65520.0, Element::F16), (3.4e38, Element::Bf16), (1e39, Element::F32)] {
            assert!(encoded(value, to).is_err_and(|e| e.message.contains("has no room")), "{value}");
        }
    }

    #[test]
    fn whole_numbers_stay_as_they_are() {
        let mut out = Vec::new();
        encode(&7i64.to_le_bytes(), Element::I64, Element::F16, &mut out).unwrap();
        assert_eq!(out, 7i64.to_le_bytes());
    }
}
