//! What a safetensors file says it holds, believed only where the file is long enough for it.

use std::{fs::File, io::Read, path::Path};

use orion_proto::{Error, Result};
use safetensors::{Dtype, tensor::Metadata};

use crate::{unreadable, unservable};

/// The format's own limit on its header.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// The header of one safetensors file.
#[derive(Clone, Debug)]
pub(crate) struct Weights {
    tensors: Metadata,
    /// Bytes of the file.
    pub(crate) bytes: u64,
}

impl Weights {
    /// Reads the header alone, and checks every length in it against the file's.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let refused =
            |reason: String| unservable(format!("{} is not a whole safetensors file: {reason}", path.display()));
        let io = |error: std::io::Error| unreadable(path, &error);
        crate::file::check_regular(path)?;
        let mut file = File::open(path).map_err(io)?;
        let bytes = file.metadata().map_err(io)?.len();
        let mut length = [0; 8];
        if bytes < 8 {
            return Err(refused(format!("it has {bytes} bytes, the header's length alone takes 8")));
        }
        file.read_exact(&mut length).map_err(io)?;
        let length = u64::from_le_bytes(length);
        if length > (bytes - 8).min(MAX_HEADER_BYTES) {
            return Err(refused(format!("its header declares {length} bytes, {} follow", bytes - 8)));
        }
        let mut header = vec![0; usize::try_from(length).map_err(|e| refused(e.to_string()))?];
        file.read_exact(&mut header).map_err(io)?;
        let tensors: Metadata = serde_json::from_slice(&header)
            .map_err(|error| refused(format!("its header cannot be read: {}", error.to_string().to_lowercase())))?;
        let (declared, left) = (tensors.data_len() as u64, bytes - 8 - length);
        if declared != left {
            return Err(refused(format!("its tensors take {declared} bytes, {left} follow the header")));
        }
        Ok(Self { tensors, bytes })
    }

    /// Whether a tensor of that name is there.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.tensors.info(name).is_some()
    }

    /// A tensor's type and shape, and where in the file it lies.
    pub(crate) fn tensor(&self, name: &str) -> Option<(Dtype, &[usize], std::ops::Range<usize>)> {
        let info = self.tensors.info(name)?;
        let start = usize::try_from(self.bytes).ok()?.checked_sub(self.tensors.data_len())?;
        let (from, to) = info.data_offsets;
        Some((info.dtype, &info.shape, start.checked_add(from)?..start.checked_add(to)?))
    }

    /// Checks a tensor's presence, shape and type; its count of elements.
    pub(crate) fn expect(&self, name: &str, shape: &[usize]) -> Result<u64> {
        let Some(info) = self.tensors.info(name) else {
            return Err(Error::invalid(format!("tensor '{name}' is missing")));
        };
        if info.shape != shape {
            return Err(Error::invalid(format!(
                "tensor '{name}' has shape {:?}, config.json says {shape:?}",
                info.shape
            )));
        }
        if !matches!(info.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            return Err(Error::invalid(format!("tensor '{name}' is {}, it must be F32, F16 or BF16", info.dtype)));
        }
        Ok(shape.iter().map(|&dim| dim as u64).product())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole() -> Vec<u8> {
        let header = br#"{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"F16","shape":[4],"data_offsets":[24,32]}}"#;
        [&(header.len() as u64).to_le_bytes()[..], header, &[0; 32]].concat()
    }

    fn read(bytes: &[u8]) -> Result<Weights> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        Weights::read(file.path())
    }

    #[test]
    fn a_whole_file_is_read_and_lies_are_named() {
        let weights = read(&whole()).unwrap();
        assert_eq!(weights.expect("a", &[2, 3]).ok(), Some(6));
        assert!(weights.expect("a", &[3, 2]).is_err_and(|e| e.message.contains("[2, 3]")));
        assert!(weights.expect("c", &[]).is_err_and(|e| e.message.contains("'c' is missing")));
        let huge = [&u64::MAX.to_le_bytes()[..], b"{}"].concat();
        let beyond = String::from_utf8_lossy(&whole()).replace("24,32", "24,92").into_bytes();
        for (bytes, words) in [
            (huge, "declares 18446744073709551615 bytes, 2 follow"),
            (whole()[..whole().len() - 1].to_vec(), "take 32 bytes, 31 follow"),
            (beyond, "header cannot be read"),
            (vec![1, 2], "has 2 bytes"),
            (Vec::new(), "has 0 bytes"),
        ] {
            let message = read(&bytes).unwrap_err().message;
            assert!(message.contains(words), "{message}");
        }
    }

    proptest! {
        #[test]
        fn cut_or_flipped_files_never_panic(at in 0usize..150, bit in 0u8..8, cut in 0usize..160) {
            let mut bytes = whole();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            bytes.truncate(cut);
            // Whatever passes must lie inside the file.
            if let Ok(weights) = read(&bytes) {
                prop_assert!(weights.tensors.data_len() < bytes.len());
            }
        }
    }
}
