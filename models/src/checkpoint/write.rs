//! Writing safetensors, tensor by tensor: no more than a block is in memory.

use std::{
    cmp::Reverse,
    collections::HashMap,
    io::{self, Write},
};

use orion_proto::{Error, Result};
use safetensors::tensor::{Metadata, TensorInfo};

use super::{Element, encode::encode, header::MAX_HEADER_BYTES, view::View};

/// Bytes that are read before they are written.
const BLOCK_BYTES: usize = 1 << 20;

/// Writes tensors of a mapped file. Floats become `float` where it is given. Returns the bytes written. `progress` is told
/// the share that is done.
///
/// # Errors
/// INVALID_ARGUMENT naming the tensor whose values `float` cannot hold, or INTERNAL where writing fails.
pub(super) fn write(
    file: &[u8],
    tensors: &[(String, View)],
    float: Option<Element>,
    out: &mut impl Write,
    progress: &dyn Fn(f32),
) -> Result<u64> {
    let mut planned: Vec<Planned<'_>> = tensors.iter().map(|(name, view)| Planned::new(name, view, float)).collect();
    // As the format's own library does: with the widest elements first each tensor is aligned.
    planned.sort_by_key(|tensor| (Reverse(tensor.element.size()), tensor.name));
    let header = header(&planned)?;
    out.write_all(&header).map_err(|error| unwritten(&error))?;
    let total = planned.iter().fold(0u64, |total, tensor| total + tensor.bytes as u64);
    let mut written = 0u64;
    for tensor in &planned {
        tensor.write(file, out).map_err(|error| match error {
            Stop::Value(error) => Error::invalid(format!("tensor '{}': {error}", tensor.name)),
            Stop::Io(error) => unwritten(&error),
        })?;
        written += tensor.bytes as u64;
        progress(written as f32 / total.max(1) as f32);
    }
    Ok(header.len() as u64 + written)
}

struct Planned<'s> {
    name: &'s str,
    view: &'s View,
    element: Element,
    bytes: usize,
}

enum Stop {
    Value(Error),
    Io(io::Error),
}

impl<'s> Planned<'s> {
    fn new(name: &'s str, view: &'s View, float: Option<Element>) -> Self {
        let element = float.filter(|_| view.element.is_float()).unwrap_or(view.element);
        // No overflow: its elements are in a file, each of at least a byte and at most eight when written.
        Self { name, view, element, bytes: view.count().saturating_mul(element.size()) }
    }

    fn write(&self, file: &[u8], out: &mut impl Write) -> std::result::Result<(), Stop> {
        let mut block = Vec::with_capacity(BLOCK_BYTES.min(self.bytes));
        for run in self.view.runs() {
            let run = file.get(run).unwrap_or_default();
            for part in run.chunks(BLOCK_BYTES / self.element.size()) {
                encode(part, self.view.element, self.element, &mut block).map_err(Stop::Value)?;
                if block.len() >= BLOCK_BYTES {
                    out.write_all(&block).map_err(Stop::Io)?;
                    block.clear();
                }
            }
        }
        out.write_all(&block).map_err(Stop::Io)
    }
}

/// The header with its length before it, padded so that the tensors begin at a multiple of eight bytes.
fn header(planned: &[Planned<'_>]) -> Result<Vec<u8>> {
    let refused = |reason: String| Error::invalid(format!("its tensors cannot be safetensors: {reason}"));
    // The name under which the header tells of itself.
    if planned.iter().any(|tensor| tensor.name == "__metadata__") {
        return Err(refused("one is named '__metadata__'".into()));
    }
    let mut end = 0usize;
    let infos = planned.iter().map(|tensor| {
        let start = end;
        end = end.saturating_add(tensor.bytes);
        let info = TensorInfo {
            dtype: tensor.element.safetensors(),
            shape: tensor.view.shape.clone(),
            data_offsets: (start, end),
        };
        (tensor.name.to_owned(), info)
    });
    // Hugging Face's libraries ask for it.
    let about = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let metadata =
        Metadata::new(Some(about), infos.collect()).map_err(|error| refused(error.to_string().to_lowercase()))?;
    let mut json = serde_json::to_vec(&metadata).map_err(|error| refused(error.to_string()))?;
    json.resize(json.len().next_multiple_of(8), b' ');
    if json.len() as u64 > MAX_HEADER_BYTES {
        return Err(refused(format!("the header takes {} bytes, at most {MAX_HEADER_BYTES}", json.len())));
    }
    Ok([&(json.len() as u64).to_le_bytes()[..], &json].concat())
}

fn unwritten(error: &io::Error) -> Error {
    Error::new(orion_proto::Code::Internal, error.to_string().to_lowercase())
}
