//! A model's weights, whichever and how many files they are in.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
};

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::{Init, VarBuilder, var_builder::SimpleBackend};
use orion_proto::Result;

use super::{Element, header::Header, shards::Shards};
use crate::{
    mapped::{MappedBytes, MappedFile},
    unservable,
};

/// The safetensors of a model's folder, memory-mapped, every length checked against its file.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    files: Vec<MappedFile>,
    tensors: BTreeMap<String, TensorEntry>,
}

/// Where a tensor is, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorEntry {
    /// What its elements are on disk.
    pub element: Element,
    /// Its sizes, outermost first; row-major.
    pub shape: Vec<usize>,
    file: usize,
    range: Range<usize>,
}

impl TensorEntry {
    /// How many elements it has.
    pub fn elements(&self) -> u64 {
        (self.range.len() / self.element.size()) as u64
    }
}

impl Checkpoint {
    /// Opens `model.safetensors`, else the shards that `model.safetensors.index.json` names, else every `*.safetensors`.
    /// Reads headers only.
    ///
    /// # Errors
    /// FAILED_PRECONDITION naming the file or the tensor that is not what it should be.
    pub fn open(folder: &Path) -> Result<Self> {
        let shards = Shards::find(folder)?;
        let mut checkpoint = Self { folder: folder.into(), files: Vec::new(), tensors: BTreeMap::new() };
        for (file, path) in shards.files.iter().enumerate() {
            let map = MappedFile::open(path)?;
            let wanted = |name: &str| shards.index.as_ref().is_none_or(|index| index.get(name) == Some(&file));
            for (name, entry) in entries(path, file, map.bytes())? {
                if wanted(&name) && checkpoint.tensors.insert(name.clone(), entry).is_some() {
                    return Err(checkpoint.refused(&format!("tensor '{name}' is in more than one file")));
                }
            }
            checkpoint.files.push(map);
        }
        for (name, &file) in shards.index.iter().flatten() {
            if !checkpoint.tensors.contains_key(name) {
                let file = shards.files[file].display();
                return Err(checkpoint.refused(&format!("tensor '{name}' is not in {file}, where the index has it")));
            }
        }
        Ok(checkpoint)
    }

    /// Every tensor, by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &TensorEntry)> {
        self.tensors.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    /// A tensor's type and shape.
    pub fn get(&self, name: &str) -> Option<&TensorEntry> {
        self.tensors.get(name)
    }

    /// The same, where it has this shape and holds floats.
    ///
    /// # Errors
    /// FAILED_PRECONDITION naming the tensor and what it is instead.
    pub fn expect(&self, name: &str, shape: &[usize]) -> Result<&TensorEntry> {
        let entry = self.get(name).ok_or_else(|| self.refused(&format!("tensor '{name}' is missing")))?;
        if entry.shape != shape {
            let found = &entry.shape;
            return Err(self.refused(&format!("tensor '{name}' has shape {found:?}, it must be {shape:?}")));
        }
        if !entry.element.is_float() {
            let element = entry.element;
            return Err(self.refused(&format!("tensor '{name}' is {element}, it must be F32, F16, BF16 or F64")));
        }
        Ok(entry)
    }

    /// A tensor's bytes as they are in the file: little-endian, row-major, at any address.
    pub fn bytes(&self, entry: &TensorEntry) -> &[u8] {
        self.files.get(entry.file).and_then(|file| file.bytes().get(entry.range.clone())).unwrap_or_default()
    }

    /// The same, mapped for as long as they are held.
    pub(crate) fn mapped(&self, entry: &TensorEntry) -> Option<MappedBytes> {
        MappedBytes::new(self.files.get(entry.file)?, entry.range.clone())
    }

    /// The mapped files.
    pub(crate) fn files(&self) -> &[MappedFile] {
        &self.files
    }

    /// A tensor's floats.
    ///
    /// # Errors
    /// As [`Checkpoint::expect`].
    pub fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let entry = self.expect(name, shape)?;
        let mut floats = Vec::with_capacity(entry.range.len() / entry.element.size());
        entry.element.extend_f32(self.bytes(entry), &mut floats);
        Ok(floats)
    }

    /// A tensor of floats on a device.
    ///
    /// # Errors
    /// As [`Checkpoint::expect`], or what the device says.
    pub fn tensor(&self, name: &str, shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
        let entry = self.expect(name, shape)?;
        self.to_candle(entry, dtype, device).map_err(|error| self.refused(&format!("tensor '{name}': {error}")))
    }

    /// Bytes of its files: what loading reads.
    pub fn file_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes().len() as u64).sum()
    }

    /// The elements of all tensors of floats.
    pub fn parameters(&self) -> u64 {
        let floats = self.tensors.values().filter(|entry| entry.element.is_float());
        floats.map(TensorEntry::elements).sum()
    }

    /// As candle's layers take it.
    pub fn into_vars(self, dtype: DType, device: &Device) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(self), dtype, device.clone())
    }

    fn to_candle(&self, entry: &TensorEntry, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        let Some(stored) = entry.element.candle() else {
            return Err(candle_core::Error::Msg(format!("{} has no counterpart in candle", entry.element)));
        };
        Tensor::from_raw_buffer(self.bytes(entry), stored, &entry.shape, device)?.to_dtype(dtype)
    }

    fn refused(&self, reason: &str) -> orion_proto::Error {
        unservable(format!("{}: {reason}", self.folder.display()))
    }
}

/// The tensors of one file.
fn entries(path: &Path, file: usize, bytes: &[u8]) -> Result<Vec<(String, TensorEntry)>> {
    let header = Header::parse(path, bytes)?;
    let entry = |(name, info): (String, &safetensors::tensor::TensorInfo)| {
        let Some(element) = Element::from_safetensors(info.dtype) else {
            let reason = format!("{}: tensor '{name}' is {}, which is not served yet", path.display(), info.dtype);
            return Err(unservable(reason));
        };
        let (start, end) = info.data_offsets;
        // Within the file: the header says how much follows it, and that was found to be there.
        let range = header.data_start + start..header.data_start + end;
        Ok((name, TensorEntry { element, shape: info.shape.clone(), file, range }))
    };
    header.tensors().into_iter().map(entry).collect()
}

impl SimpleBackend for Checkpoint {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        self.tensor(name, shape.dims(), dtype, device).map_err(|error| candle_core::Error::Msg(error.message))
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        let Some(entry) = Checkpoint::get(self, name) else {
            return Err(candle_core::Error::CannotFindTensor { path: name.to_owned() });
        };
        self.to_candle(entry, dtype, device)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A file of one F32 tensor `[2]` and one F16 tensor `[3]`, both named so.
    fn file(first: &str, second: &str) -> Vec<u8> {
        let header = format!(
            r#"{{"{first}":{{"dtype":"F32","shape":[2],"data_offsets":[0,8]}},"{second}":{{"dtype":"F16","shape":[3],"data_offsets":[8,14]}}}}"#
        );
        let floats = [1.5f32, -2.0].map(f32::to_le_bytes).concat();
        let halves = [0.5, 1.0, 2.0].map(|half| half::f16::from_f32(half).to_le_bytes()).concat();
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &floats, &halves].concat()
    }

    fn folder(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, bytes)| fs::write(folder.path().join(name), bytes).unwrap());
        folder
    }

    #[test]
    fn floats_of_every_shard_are_read_by_name_and_shape() {
        let index = br#"{"metadata": {"total_size": 28}, "weight_map": {"a": "1.safetensors", "b": "1.safetensors", "d": "2.safetensors"}}"#;
        let shards = [("1.safetensors", file("a", "b")), ("2.safetensors", file("c", "d"))];
        let indexed = folder(&[&shards[..], &[("model.safetensors.index.json", index.to_vec())]].concat());
        let checkpoint = Checkpoint::open(indexed.path()).unwrap();
        assert_eq!(checkpoint.tensors().map(|tensor| tensor.0).collect::<Vec<_>>(), ["a", "b", "d"]);
        assert_eq!(checkpoint.floats("a", &[2]), Ok(vec![1.5, -2.0]));
        assert_eq!(checkpoint.floats("d", &[3]), Ok(vec![0.5, 1.0, 2.0]));
        assert_eq!(checkpoint.bytes(checkpoint.get("a").unwrap()), [1.5f32, -2.0].map(f32::to_le_bytes).concat());
        let tensor = checkpoint.tensor("b", &[3], DType::F32, &Device::Cpu).unwrap();
        assert_eq!(tensor.to_vec1::<f32>().unwrap(), [0.5, 1.0, 2.0]);
        assert_eq!((checkpoint.parameters(), checkpoint.file_bytes()), (8, 2 * file("a", "b").len() as u64));
        for (name, shape, words) in
            [("x", vec![2], "'x' is missing"), ("a", vec![1, 2], "shape [2], it must be [1, 2]")]
        {
            assert!(checkpoint.expect(name, &shape).is_err_and(|error| error.message.contains(words)));
        }
        // Without an index every file is read, and with one whole file only that.
        let loose = folder(&shards);
        assert_eq!(Checkpoint::open(loose.path()).unwrap().tensors().count(), 4);
        fs::write(loose.path().join("model.safetensors"), file("e", "f")).unwrap();
        let vars = Checkpoint::open(loose.path()).unwrap().into_vars(DType::F16, &Device::Cpu);
        assert_eq!(vars.get(3, "f").unwrap().to_vec1::<half::f16>().unwrap()[2], half::f16::from_f32(2.0));
        assert!(!vars.contains_tensor("a") && vars.get(2, "f").is_err());
    }

    #[test]
    fn folders_that_are_not_whole_are_named() {
        let shard = ("1.safetensors", file("a", "b"));
        let index = |map: &str| ("model.safetensors.index.json", format!(r#"{{"weight_map": {map}}}"#).into_bytes());
        let complex = r#"{"a":{"dtype":"C64","shape":[1],"data_offsets":[0,8]}}"#;
        let complex = [&(complex.len() as u64).to_le_bytes()[..], complex.as_bytes(), &[0; 8]].concat();
        for (files, words) in [
            (vec![], "no *.safetensors"),
            (vec![shard.clone(), ("2.safetensors", file("c", "b"))], "'b' is in more than one file"),
            (vec![shard.clone(), index(r#"{"a": "1.safetensors", "z": "1.safetensors"}"#)], "'z' is not in"),
            (
                vec![shard.clone(), index(r#"{"a": "../1.safetensors"}"#)],
                "'../1.safetensors', which is not in its folder",
            ),
            (vec![shard.clone(), index(r#"{"a": ".."}"#)], "'..', which is not in its folder"),
            (vec![shard.clone(), index("{}")], "names no file"),
            (vec![shard.clone(), index(r#"{"a": "3.safetensors"}"#)], "3.safetensors"),
            (vec![shard, index("[")], "cannot be read"),
            (vec![("1.safetensors", complex)], "tensor 'a' is C64"),
            (vec![("1.safetensors", vec![1, 2, 3])], "1.safetensors is not a whole safetensors file"),
        ] {
            let error = Checkpoint::open(folder(&files).path()).unwrap_err();
            assert!(error.message.contains(words), "{words}: {error}");
        }
    }
}
