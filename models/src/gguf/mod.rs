//! GGUF files, versions 2 and 3 (the format's specification is in ggml's `docs/gguf.md`): metadata, then tensors that lie
//! in the file as they are used.
//!
//! Every count, offset and length is checked against the file before anything is made of it, and what is made never takes
//! more than the file has bytes.

use std::{collections::BTreeMap, path::Path};

use orion_proto::{Error, Result};

mod cursor;
mod encoding;
mod metadata;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod writer;

use cursor::Cursor;
pub(crate) use encoding::Encoding;
pub(crate) use metadata::Value;

use crate::{
    mapped::{MappedBytes, MappedFile},
    unservable,
};

const MAGIC: &[u8] = b"GGUF";
/// Where `general.alignment` is missing.
const ALIGNMENT: u64 = 32;
/// Dimensions that a tensor may have.
const MOST_DIMENSIONS: u32 = 4;

/// A tensor as the file declares it, found to lie inside the file.
#[derive(Clone, Debug)]
pub(crate) struct TensorInfo {
    pub(crate) encoding: Encoding,
    /// The outermost dimension first.
    pub(crate) shape: Vec<usize>,
    /// Where it begins in the file.
    start: usize,
    /// Its length in the file.
    pub(crate) bytes: usize,
}

/// A mapped file and what its header says.
#[derive(Clone, Debug)]
pub(crate) struct Gguf {
    pub(crate) file: MappedFile,
    metadata: BTreeMap<String, Value>,
    tensors: BTreeMap<String, TensorInfo>,
}

impl Gguf {
    /// Reads the header.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let refused = |error: Error| unservable(format!("{} is not a whole GGUF file: {error}", path.display()));
        Self::parse(MappedFile::open(path)?).map_err(refused)
    }

    fn parse(file: MappedFile) -> Result<Self> {
        let mut cursor = Cursor::new(file.bytes());
        if cursor.take(4, "the magic")? != MAGIC {
            return Err(Error::invalid("it does not begin with 'GGUF'"));
        }
        let version = cursor.u32("the version")?;
        if !(2..=3).contains(&version) {
            return Err(Error::invalid(format!("its version is {version}, versions 2 and 3 are read")));
        }
        let tensor_count = cursor.u64("the count of tensors")?;
        let value_count = cursor.u64("the count of metadata")?;
        let metadata = metadata::read(&mut cursor, value_count)?;
        let alignment = match metadata.get("general.alignment") {
            None => ALIGNMENT,
            Some(value) => value
                .unsigned()
                .filter(|n| n.is_power_of_two() && *n <= 1 << 20)
                .ok_or_else(|| Error::invalid("general.alignment must be a power of two of at most 1048576"))?,
        };
        let declared = Self::read_tensors(&mut cursor, tensor_count)?;
        let data = cursor.position().next_multiple_of(alignment as usize);
        let mut tensors = BTreeMap::new();
        for (name, offset, mut info) in declared {
            let length = file.bytes().len();
            let start = usize::try_from(offset).ok().and_then(|offset| data.checked_add(offset));
            info.start = start
                .filter(|start| start.checked_add(info.bytes).is_some_and(|end| end <= length))
                .ok_or_else(|| {
                    let bytes = info.bytes;
                    Error::invalid(format!(
                        "tensor '{name}' takes {bytes} bytes from {offset} on, the file has {length}"
                    ))
                })?;
            if tensors.insert(name.clone(), info).is_some() {
                return Err(Error::invalid(format!("tensor '{name}' is declared twice")));
            }
        }
        Ok(Self { metadata, tensors, file })
    }

    /// Name, offset and all but the start of each tensor.
    fn read_tensors(cursor: &mut Cursor<'_>, count: u64) -> Result<Vec<(String, u64, TensorInfo)>> {
        // Name's length, dimensions, type and offset.
        cursor.check_count(count, 8 + 4 + 4 + 8, "tensors")?;
        let mut tensors = Vec::new();
        for _ in 0..count {
            let name = cursor.string("a tensor's name")?;
            let dimensions = cursor.u32("a tensor's dimensions")?;
            if dimensions > MOST_DIMENSIONS {
                return Err(Error::invalid(format!(
                    "tensor '{name}' has {dimensions} dimensions, at most {MOST_DIMENSIONS} are read"
                )));
            }
            let mut shape = Vec::new();
            for _ in 0..dimensions {
                let dimension = cursor.u64("a dimension")?;
                let too_large = |_| Error::invalid(format!("tensor '{name}' has a dimension of {dimension}"));
                shape.push(usize::try_from(dimension).map_err(too_large)?);
            }
            shape.reverse();
            let number = cursor.u32("a tensor's type")?;
            let encoding = Encoding::from_number(number)
                .ok_or_else(|| Error::invalid(format!("tensor '{name}' is of type {number}; {}", Encoding::known())))?;
            let bytes = encoding.bytes(&shape).ok_or_else(|| {
                let block = encoding.block();
                Error::invalid(format!(
                    "tensor '{name}' has shape {shape:?}, its {encoding} rows must be blocks of {block}"
                ))
            })?;
            let offset = cursor.u64("a tensor's offset")?;
            tensors.push((name.to_owned(), offset, TensorInfo { encoding, shape, start: 0, bytes }));
        }
        Ok(tensors)
    }

    /// A value of the metadata.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }

    /// The texts of an array; `None` where there is no such array.
    pub(crate) fn texts(&self, key: &str) -> Option<impl Iterator<Item = &str>> {
        self.get(key)?.texts(self.file.bytes())
    }

    /// The numbers of an array of 32-bit numbers; `None` where there is no such array.
    pub(crate) fn words(&self, key: &str) -> Option<impl Iterator<Item = u32>> {
        self.get(key)?.words(self.file.bytes())
    }

    /// How many elements an array has.
    pub(crate) fn length(&self, key: &str) -> Option<usize> {
        self.get(key)?.length()
    }

    /// What is declared of a tensor.
    pub(crate) fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// The bytes of a tensor.
    pub(crate) fn tensor_bytes(&self, info: &TensorInfo) -> Option<MappedBytes> {
        MappedBytes::new(&self.file, info.start..info.start.checked_add(info.bytes)?)
    }
}
