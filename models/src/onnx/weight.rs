//! A tensor of a file: its declared shape and type, believed only where as many bytes are there.

use std::path::{Component, Path};

use bytes::Bytes;
use candle_core::{Device, Tensor};

use super::{
    element::Element,
    file,
    schema::{StringStringEntryProto, TensorProto, tensor_proto::Location},
};
use crate::Precision;

/// Dimensions of a tensor, as for clients' tensors.
pub(super) const MOST_DIMENSIONS: usize = 64;

/// A tensor whose bytes are all there.
#[derive(Clone, Debug)]
pub(super) struct Weight {
    pub(super) element: Element,
    pub(super) dims: Vec<usize>,
    /// Little-endian, row-major; a slice of the mapped file where it is stored so.
    data: Bytes,
}

/// Elements of a shape, counted without overflow.
pub(super) fn elements(dims: &[usize]) -> Option<usize> {
    dims.iter().try_fold(1usize, |count, &dim| count.checked_mul(dim))
}

impl Weight {
    /// Checks a tensor; `folder` is where the files that it may refer to lie.
    ///
    /// # Errors
    /// A message naming what does not fit.
    pub(super) fn read(tensor: &TensorProto, folder: &Path) -> Result<Self, String> {
        let about = |problem: String| format!("tensor '{}': {problem}", tensor.name);
        let element = Element::from_number(tensor.data_type.into()).map_err(about)?;
        let dims: Result<Vec<usize>, _> = tensor.dims.iter().map(|&dim| usize::try_from(dim)).collect();
        let dims = dims.map_err(|_| about(format!("its shape {:?} has a negative dimension", tensor.dims)))?;
        let bytes = elements(&dims).and_then(|count| count.checked_mul(element.size()));
        let bytes = bytes.filter(|_| dims.len() <= MOST_DIMENSIONS);
        let bytes = bytes.ok_or_else(|| about(format!("its shape {dims:?} is larger than can be")))?;
        let data = match tensor.data_location() {
            Location::Default if tensor.raw_data.is_empty() => listed(tensor, element),
            Location::Default => tensor.raw_data.clone(),
            Location::External => external(&tensor.external_data, bytes, folder).map_err(about)?,
        };
        if data.len() != bytes {
            let held = data.len();
            return Err(about(format!("its shape {dims:?} takes {bytes} bytes, the file holds {held}")));
        }
        Ok(Self { element, dims, data })
    }

    /// Bytes that it takes in memory.
    pub(super) fn memory_bytes(&self, precision: Precision) -> u64 {
        let count = elements(&self.dims).unwrap_or(usize::MAX) as u64;
        count.saturating_mul(self.element.dtype(precision).size_in_bytes() as u64)
    }

    /// Its values in the host's memory, in the type in which the model computes.
    pub(super) fn tensor(&self, precision: Precision) -> candle_core::Result<Tensor> {
        let stored = self.element.stored();
        let tensor = match self.element {
            // Whatever is not 0 is true.
            Element::Bool => {
                let flags = self.data.iter().map(|&byte| u8::from(byte != 0)).collect();
                Tensor::from_vec::<_, u8>(flags, self.dims.as_slice(), &Device::Cpu)?
            }
            _ => Tensor::from_raw_buffer(&self.data, stored, &self.dims, &Device::Cpu)?,
        };
        tensor.to_dtype(self.element.dtype(precision))
    }
}

/// The bytes of values that are listed as numbers instead of raw.
fn listed(tensor: &TensorProto, element: Element) -> Bytes {
    match element {
        Element::Float32 => tensor.float_data.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Element::Float64 => tensor.double_data.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Element::Int64 => tensor.int64_data.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Element::Uint32 => tensor.uint64_data.iter().flat_map(|&value| (value as u32).to_le_bytes()).collect(),
        Element::Int32 => tensor.int32_data.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Element::Uint8 | Element::Bool => tensor.int32_data.iter().map(|&value| value as u8).collect(),
        Element::Int16 | Element::Float16 | Element::Bfloat16 => {
            tensor.int32_data.iter().flat_map(|&value| (value as u16).to_le_bytes()).collect()
        }
    }
}

/// The bytes of a tensor in another file of the folder.
fn external(entries: &[StringStringEntryProto], bytes: usize, folder: &Path) -> Result<Bytes, String> {
    let value = |key: &str| entries.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str());
    let number = |key: &str, default: u64| match value(key) {
        Some(text) => text.parse().map_err(|_| format!("its external {key} is '{text}', it must be a number")),
        None => Ok(default),
    };
    let location = value("location").ok_or("its data is external, and no location is given")?;
    let inside = Path::new(location).components().all(|part| matches!(part, Component::Normal(_)));
    if !inside || location.is_empty() {
        return Err(format!("its external location is '{location}', it must lie in the model's folder"));
    }
    let (offset, length) = (number("offset", 0)?, number("length", bytes as u64)?);
    let file = file::map(&folder.join(location)).map_err(|error| error.message)?;
    let total = file.len();
    let range = usize::try_from(offset).ok().zip(usize::try_from(length).ok());
    let range = range.and_then(|(from, length)| Some((from, from.checked_add(length)?)));
    let range = range.filter(|&(_, end)| end <= total);
    let (from, end) = range.ok_or_else(|| {
        format!("its data lies at {offset} with {length} bytes in {location}, which has {total} bytes")
    })?;
    Ok(file.slice(from..end))
}
