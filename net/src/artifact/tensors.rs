//! The tensors of a file of weights.

use safetensors::SafeTensors;

use super::{Tensor, gguf};

/// The tensors of a safetensors or GGUF file in the order in which they lie there; none of any other file.
pub fn tensors(file: &[u8]) -> Vec<Tensor> {
    let tensors = gguf::tensors(file).unwrap_or_else(|| of_safetensors(file));
    let is_within =
        |tensor: &Tensor| tensor.start.checked_add(tensor.bytes).is_some_and(|end| end <= file.len() as u64);
    let in_turn = tensors.windows(2).all(|pair| pair[0].start + pair[0].bytes <= pair[1].start);
    // A file that was cut off is no file of tensors.
    if tensors.iter().all(is_within) && in_turn { tensors } else { Vec::new() }
}

/// A header takes up to sixteen times its bytes once read: beyond a MiB one that is not small beside its file is not read.
fn header_is_small(file: &[u8]) -> bool {
    let header = file.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
    header <= (file.len() as u64 / 16).max(1 << 20)
}

fn of_safetensors(file: &[u8]) -> Vec<Tensor> {
    if !header_is_small(file) {
        return Vec::new();
    }
    let Ok((header, metadata)) = SafeTensors::read_metadata(file) else { return Vec::new() };
    let begin = header.saturating_add(size_of::<u64>());
    let mut tensors: Vec<_> = metadata
        .tensors()
        .iter()
        .map(|(name, tensor)| {
            let (from, to) = tensor.data_offsets;
            Tensor {
                name: name.clone(),
                datatype: tensor.dtype.to_string(),
                shape: tensor.shape.iter().map(|size| *size as u64).collect(),
                start: begin.saturating_add(from) as u64,
                bytes: to.saturating_sub(from) as u64,
            }
        })
        .collect();
    tensors.sort_by(|one, other| (one.start, one.bytes, &one.name).cmp(&(other.start, other.bytes, &other.name)));
    tensors
}
