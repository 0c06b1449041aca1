//! The safetensors files of a folder, whose headers are read before they are loaded.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use orion_proto::{Error, Result};

use crate::{folder::files_ending, unservable, weights::Weights};

/// `model.safetensors`, or every `*.safetensors` where there is none.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    paths: Vec<PathBuf>,
    headers: Vec<Weights>,
}

impl Files {
    /// Reads the headers alone.
    pub(crate) fn inspect(folder: &Path) -> Result<Self> {
        let whole = folder.join("model.safetensors");
        let paths = if whole.is_file() { vec![whole] } else { files_ending(folder, ".safetensors")? };
        if paths.is_empty() {
            return Err(unservable(format!("folder {} has no *.safetensors", folder.display())));
        }
        let headers = paths.iter().map(|path| Weights::read(path)).collect::<Result<_>>()?;
        Ok(Self { paths, headers })
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.headers.iter().map(|header| header.bytes).sum()
    }

    /// The first dimension of a tensor.
    pub(crate) fn rows(&self, name: &str) -> Result<usize> {
        let shape = self.headers.iter().find_map(|header| header.tensor(name));
        let rows = shape.and_then(|(_, shape, _)| shape.first().copied());
        rows.ok_or_else(|| self.refused(&Error::invalid(format!("tensor '{name}' is missing or has no dimension"))))
    }

    /// Checks presence, shapes and types.
    pub(crate) fn expect(&self, tensors: &[(String, Vec<usize>)]) -> Result<()> {
        for (name, shape) in tensors {
            let header = self.headers.iter().find(|header| header.has(name)).unwrap_or(&self.headers[0]);
            header.expect(name, shape).map_err(|error| self.refused(&error))?;
        }
        Ok(())
    }

    /// The tensors, memory-mapped, as f32.
    pub(crate) fn open(&self) -> Result<VarBuilder<'static>> {
        // SAFETY: the files are only read while loading; one that is cut meanwhile ends the process, as for every
        // memory-mapped file.
        unsafe { VarBuilder::from_mmaped_safetensors(&self.paths, DType::F32, &Device::Cpu) }
            .map_err(|error| self.unloadable(&error))
    }

    /// What stands in the way of loading.
    pub(crate) fn unloadable(&self, error: &candle_core::Error) -> Error {
        let text = error.to_string().to_lowercase();
        unservable(format!("the weights in {} cannot be loaded: {text}", self.folder().display()))
    }

    fn refused(&self, error: &Error) -> Error {
        unservable(format!("{}: {error}", self.folder().display()))
    }

    fn folder(&self) -> &Path {
        self.paths.first().and_then(|path| path.parent()).unwrap_or(Path::new(""))
    }
}
