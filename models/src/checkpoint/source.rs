//! A file of weights that is to be converted, recognised by its content.

use std::path::Path;

use orion_proto::{Error, Result};

use super::{
    Element,
    header::Header,
    llama2c, torch,
    view::{Storage, View},
};
use crate::{mapped::MappedFile, unservable};

/// How a file of weights is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `torch.save` since PyTorch 1.6: a zip archive with a pickle.
    Torch,
    /// `torch.save` before: a row of pickles.
    TorchLegacy,
    /// llama2.c's version 0.
    Llama2c,
    /// Hugging Face's, which is what a conversion writes.
    Safetensors,
}

/// What a file holds.
pub(super) struct Tensors {
    /// In the file's order, each with its name.
    pub(super) views: Vec<(String, View)>,
    /// The key below which they were found, where the file has several.
    pub(super) key: Option<String>,
    /// Keys that hold other tensors.
    pub(super) left_out: Vec<String>,
}

/// A mapped file and the tensors that were found in it.
pub(super) struct Source {
    pub(super) file: MappedFile,
    pub(super) format: Format,
    pub(super) tensors: Tensors,
    /// What llama2.c's header says of the model.
    pub(super) llama: Option<llama2c::Header>,
}

impl Source {
    /// Opens a file; nothing but headers and pickles is read. `key` names the dict of a pickle that holds the weights.
    ///
    /// # Errors
    /// NOT_FOUND, or FAILED_PRECONDITION naming the file and what is wrong in it.
    pub(super) fn open(path: &Path, key: Option<&str>) -> Result<Self> {
        let file = MappedFile::open(path)?;
        let bytes = file.bytes();
        let refused = |error: Error| unservable(format!("{}: {error}", path.display()));
        let format = Format::of(bytes).ok_or_else(|| refused(unknown(bytes)))?;
        let mut llama = None;
        let tensors = match format {
            Format::Torch => torch::read_archive(bytes, key).map_err(refused)?,
            Format::TorchLegacy => torch::read_legacy(bytes, key).map_err(refused)?,
            Format::Llama2c => {
                let header = llama2c::Header::read(bytes).map_err(refused)?;
                let views = header.views(bytes.len()).map_err(refused)?;
                llama = Some(header);
                Tensors::all(views)
            }
            Format::Safetensors => Tensors::all(safetensors(path, bytes)?),
        };
        if let (Some(key), None) = (key, &tensors.key) {
            return Err(refused(Error::invalid(format!(
                "it has no keys, so not '{key}' either; its tensors are all taken"
            ))));
        }
        Ok(Self { file, format, tensors, llama })
    }
}

impl Format {
    fn of(bytes: &[u8]) -> Option<Self> {
        match bytes {
            _ if bytes.starts_with(torch::ARCHIVE_MAGIC) => Some(Self::Torch),
            _ if bytes.starts_with(torch::LEGACY_MAGIC) => Some(Self::TorchLegacy),
            // A header's length, then JSON.
            _ if bytes.get(8) == Some(&b'{') && bytes.get(4..8) == Some(&[0; 4]) => Some(Self::Safetensors),
            _ if llama2c::Header::read(bytes).is_ok() => Some(Self::Llama2c),
            _ => None,
        }
    }

    /// Its name as people know it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Torch => "PyTorch zip archive",
            Self::TorchLegacy => "PyTorch before 1.6",
            Self::Llama2c => "llama2.c",
            Self::Safetensors => "safetensors",
        }
    }
}

impl Tensors {
    fn all(views: Vec<(String, View)>) -> Self {
        Self { views, key: None, left_out: Vec::new() }
    }
}

/// Why a file is none of the known ones.
fn unknown(bytes: &[u8]) -> Error {
    const KNOWN: &str = "converted are PyTorch's .pt and .pth, llama2.c's .bin and .safetensors";
    Error::invalid(match bytes {
        [] => format!("the file is empty; {KNOWN}"),
        _ if bytes.starts_with(b"GGUF") => {
            "a GGUF file is not converted, a folder with it is served as it is".to_owned()
        }
        _ if bytes.starts_with(b"24ka") => format!("llama2.c's versions 1 and 2 are not read, only 0; {KNOWN}"),
        _ if bytes.starts_with(b"\x80") => format!("it is a pickle, but not one that torch.save wrote; {KNOWN}"),
        _ => match llama2c::Header::read(bytes) {
            Err(error) if llama2c::begins_like_one(bytes) => format!("as llama2.c's .bin, {error}"),
            _ => format!("its format is unknown; {KNOWN}"),
        },
    })
}

fn safetensors(path: &Path, bytes: &[u8]) -> Result<Vec<(String, View)>> {
    let header = Header::parse(path, bytes)?;
    let view = |(name, info): (String, &safetensors::tensor::TensorInfo)| {
        let refused = |reason: String| unservable(format!("{}: tensor '{name}': {reason}", path.display()));
        let element =
            Element::from_safetensors(info.dtype).ok_or_else(|| refused(format!("{} is not read", info.dtype)))?;
        let (start, end) = info.data_offsets;
        let storage = Storage { element, bytes: header.data_start + start..header.data_start + end };
        let view = View::contiguous(&storage, 0, &info.shape).map_err(|error| refused(error.message))?;
        Ok((name, view))
    };
    header.tensors().into_iter().map(view).collect()
}
