//! What a safetensors file says it holds, believed only where the file is long enough for it.

use std::{collections::HashMap, path::Path};

use orion_proto::Result;
use safetensors::tensor::{Metadata, TensorInfo};

use crate::unservable;

/// The format's own limit on its header.
pub(super) const MAX_HEADER_BYTES: u64 = 100_000_000;
/// A header takes up to sixteen times its bytes once read, so one beyond 1 MiB may have a sixteenth of its file.
const HEADER_BYTES_AT_LEAST: usize = 1 << 20;
const FILE_BYTES_PER_HEADER_BYTE: usize = 16;

/// The header of one safetensors file.
#[derive(Clone, Debug)]
pub(super) struct Header {
    tensors: Metadata,
    /// Where the first tensor begins.
    pub(super) data_start: usize,
}

impl Header {
    /// Reads the header of a mapped file, and checks every length in it against the file's; `path` names it in errors.
    ///
    /// # Errors
    /// FAILED_PRECONDITION saying what is wrong.
    pub(super) fn parse(path: &Path, file: &[u8]) -> Result<Self> {
        let refused =
            |reason: String| unservable(format!("{} is not a whole safetensors file: {reason}", path.display()));
        let Some((length, rest)) = file.split_first_chunk() else {
            return Err(refused(format!("it has {} bytes, the header's length alone takes 8", file.len())));
        };
        let length = u64::from_le_bytes(*length);
        let header = usize::try_from(length).ok().filter(|_| length <= MAX_HEADER_BYTES).and_then(|n| rest.get(..n));
        let Some(header) = header else {
            return Err(refused(format!("its header declares {length} bytes, {} follow", rest.len())));
        };
        let most = (file.len() / FILE_BYTES_PER_HEADER_BYTE).max(HEADER_BYTES_AT_LEAST);
        if header.len() > most {
            let (header, file) = (header.len(), file.len());
            return Err(refused(format!("its header has {header} of its {file} bytes, at most {most} may be")));
        }
        let tensors: Metadata = serde_json::from_slice(header)
            .map_err(|error| refused(format!("its header cannot be read: {}", error.to_string().to_lowercase())))?;
        let (declared, left) = (tensors.data_len(), rest.len() - header.len());
        if declared != left {
            return Err(refused(format!("its tensors take {declared} bytes, {left} follow the header")));
        }
        Ok(Self { tensors, data_start: 8 + header.len() })
    }

    /// Every tensor; offsets count from `data_start`.
    pub(super) fn tensors(&self) -> HashMap<String, &TensorInfo> {
        self.tensors.tensors()
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

    /// More names of tensors than bytes of them.
    fn many_empty() -> Vec<u8> {
        let tensor = |i| format!(r#""t{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#);
        let header = format!("{{{}}}", (0..20_000).map(tensor).collect::<Vec<_>>().join(","));
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat()
    }

    fn read(bytes: &[u8]) -> Result<Header> {
        Header::parse(Path::new("x.safetensors"), bytes)
    }

    #[test]
    fn a_whole_file_is_read_and_lies_are_named() {
        let header = read(&whole()).unwrap();
        assert_eq!((header.tensors()["a"].shape.as_slice(), header.data_start), (&[2, 3][..], whole().len() - 32));
        let huge = [&u64::MAX.to_le_bytes()[..], b"{}"].concat();
        let beyond = String::from_utf8_lossy(&whole()).replace("24,32", "24,92").into_bytes();
        for (bytes, words) in [
            (huge, "declares 18446744073709551615 bytes, 2 follow"),
            (whole()[..whole().len() - 1].to_vec(), "take 32 bytes, 31 follow"),
            (beyond, "header cannot be read"),
            (many_empty(), "at most 1048576 may be"),
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
            if let Ok(header) = read(&bytes) {
                prop_assert!(header.tensors.data_len() < bytes.len());
            }
        }
    }
}
