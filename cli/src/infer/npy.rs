//! Reads a tensor from a `.npy` file, numpy's format for one array.

use std::path::Path;

use bytes::Bytes;
use orion_proto::Datatype;

use super::Input;
use crate::Failure;

const MAGIC: &[u8] = b"\x93NUMPY";

/// The array in the file as the input `name`.
pub(crate) fn read(name: &str, path: &Path) -> Result<Input, Failure> {
    let data =
        std::fs::read(path).map_err(|error| Failure::new(format!("'{}' cannot be read: {error}", path.display())))?;
    let (datatype, shape, data) =
        parse(Bytes::from(data)).map_err(|reason| Failure::new(format!("'{}' {reason}", path.display())))?;
    Input::from_raw(name, datatype, shape, data)
}

fn parse(file: Bytes) -> Result<(Datatype, Vec<i64>, Bytes), String> {
    let start = || "is no .npy file".to_owned();
    let rest = file.strip_prefix(MAGIC).ok_or_else(start)?;
    // Version 1 counts its header in two bytes, later ones in four.
    let (length, at) = match rest {
        [1, _, a, b, ..] => (usize::from(u16::from_le_bytes([*a, *b])), MAGIC.len() + 4),
        [2 | 3, _, a, b, c, d, ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, MAGIC.len() + 6),
        _ => return Err(start()),
    };
    let end = at.checked_add(length).filter(|&end| end <= file.len()).ok_or_else(start)?;
    let header = std::str::from_utf8(&file[at..end]).map_err(|_| start())?;
    let descr = field(header, "descr").and_then(|text| text.trim_start().strip_prefix('\''));
    let descr = descr.and_then(|text| text.split('\'').next()).unwrap_or_default();
    let datatype = datatype(descr).ok_or_else(|| format!("holds elements of type '{descr}', which no tensor has"))?;
    if field(header, "fortran_order").is_none_or(|text| !text.trim_start().starts_with("False")) {
        return Err("is in column-major order, it must be row-major (numpy.ascontiguousarray)".into());
    }
    let shape = field(header, "shape").and_then(|text| text.split(['(', ')']).nth(1)).ok_or_else(start)?;
    let shape =
        shape.split(',').map(str::trim).filter(|dim| !dim.is_empty()).map(|dim| dim.parse().map_err(|_| start()));
    Ok((datatype, shape.collect::<Result<_, _>>()?, file.slice(end..)))
}

/// What follows a key of the header, which is a Python dictionary.
fn field<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    header.split_once(&format!("'{key}':")).map(|(_, rest)| rest)
}

fn datatype(descr: &str) -> Option<Datatype> {
    Some(match descr {
        "|b1" => Datatype::Bool,
        "|u1" => Datatype::Uint8,
        "<u2" => Datatype::Uint16,
        "<u4" => Datatype::Uint32,
        "<u8" => Datatype::Uint64,
        "|i1" => Datatype::Int8,
        "<i2" => Datatype::Int16,
        "<i4" => Datatype::Int32,
        "<i8" => Datatype::Int64,
        "<f2" => Datatype::Fp16,
        "<f4" => Datatype::Fp32,
        "<f8" => Datatype::Fp64,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As `numpy.save` writes it, version 1.
    fn file(header: &str, data: &[u8]) -> Bytes {
        let length = u16::try_from(header.len()).unwrap().to_le_bytes();
        [MAGIC, &[1, 0], &length, header.as_bytes(), data].concat().into()
    }

    #[test]
    fn an_array_is_read_and_what_is_none_is_named() {
        let good = file("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }   \n", &[0; 8]);
        assert_eq!(parse(good).unwrap(), (Datatype::Fp32, vec![1, 2], Bytes::from_static(&[0; 8])));
        let scalar = file("{'descr': '|u1', 'fortran_order': False, 'shape': (), }\n", &[7]);
        assert_eq!(parse(scalar).unwrap(), (Datatype::Uint8, vec![], Bytes::from_static(&[7])));
        for (header, part) in [
            ("{'descr': '>f4', 'fortran_order': False, 'shape': (1,), }", "'>f4'"),
            ("{'descr': '<f4', 'fortran_order': True, 'shape': (1,), }", "column-major"),
            ("{'descr': '<f4', 'fortran_order': False, }", "no .npy file"),
        ] {
            let reason = parse(file(header, &[0; 4])).unwrap_err();
            assert!(reason.contains(part), "{reason}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(version in 0u8..5, rest in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse([MAGIC, &[version, 0], &rest].concat().into());
        }
    }
}
