//! Where a file is cut into chunks: never across a tensor, so that a tensor that did not change has the same chunks.

use std::ops::Range;

use safetensors::{Dtype, SafeTensors};

use crate::codec::Element;

/// Bytes of a chunk, and of one of a model that is small: with fewer than some hundred chunks, peers would wait for each
/// other.
const CHUNK_BYTES: usize = 1 << 20;
const SMALL_CHUNK_BYTES: usize = 256 << 10;
const SMALL_MODEL_BYTES: u64 = 200_000_000;

/// A part of a file, before it is encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Where it lies.
    pub range: Range<usize>,
    /// What its numbers are.
    pub element: Element,
}

/// Bytes of a chunk of a model that has so many, at most.
pub fn chunk_bytes(model_bytes: u64) -> usize {
    if model_bytes < SMALL_MODEL_BYTES { SMALL_CHUNK_BYTES } else { CHUNK_BYTES }
}

/// Cuts a file into chunks of at most so many bytes, which are all of it in its order. Of a safetensors file each tensor is
/// cut by itself, and what its header takes; any other file is cut evenly.
pub fn cut(file: &[u8], chunk_bytes: usize) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    let mut end = 0;
    for (range, element) in tensors(file) {
        pieces(end..range.start, Element::Bytes, chunk_bytes, &mut chunks);
        end = range.end;
        pieces(range, element, chunk_bytes, &mut chunks);
    }
    pieces(end..file.len(), Element::Bytes, chunk_bytes, &mut chunks);
    chunks
}

fn pieces(range: Range<usize>, element: Element, chunk_bytes: usize, chunks: &mut Vec<Chunk>) {
    // Whole numbers, and never nothing.
    let step = (chunk_bytes - chunk_bytes % element.width()).max(element.width());
    let starts = range.clone().step_by(step);
    chunks.extend(starts.map(|start| Chunk { range: start..range.end.min(start + step), element }));
}

/// The tensors of a safetensors file in the order in which they lie there; none of another file.
fn tensors(file: &[u8]) -> Vec<(Range<usize>, Element)> {
    let Ok((header, metadata)) = SafeTensors::read_metadata(file) else { return Vec::new() };
    let start = header.saturating_add(size_of::<u64>());
    let mut tensors: Vec<_> = metadata
        .tensors()
        .values()
        .map(|tensor| {
            let (from, to) = tensor.data_offsets;
            (start.saturating_add(from)..start.saturating_add(to), element(tensor.dtype))
        })
        .collect();
    tensors.sort_by_key(|(range, _)| (range.start, range.end));
    let whole = tensors.iter().all(|(range, _)| range.end <= file.len());
    if whole { tensors } else { Vec::new() }
}

fn element(dtype: Dtype) -> Element {
    match dtype {
        Dtype::BF16 => Element::Bf16,
        Dtype::F16 => Element::F16,
        Dtype::F32 => Element::F32,
        _ => Element::Bytes,
    }
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::TensorView;

    use super::*;

    fn file(tensors: &[(&str, Dtype, usize)]) -> Vec<u8> {
        let bytes = vec![7; 1 << 16];
        let views = tensors.iter().map(|(name, dtype, count)| {
            let width = dtype.bitsize() / 8;
            (*name, TensorView::new(*dtype, vec![*count], &bytes[..count * width]).unwrap())
        });
        safetensors::serialize(views, None).unwrap()
    }

    #[test]
    fn chunks_are_all_of_a_file_and_none_has_two_tensors() {
        let file =
            file(&[("a", Dtype::F32, 1000), ("b", Dtype::BF16, 3001), ("c", Dtype::U8, 5), ("d", Dtype::F16, 0)]);
        let chunks = cut(&file, 1001);
        let mut end = 0;
        for chunk in &chunks {
            assert_eq!(chunk.range.start, end);
            assert!(!chunk.range.is_empty() && chunk.range.len() <= 1001);
            end = chunk.range.end;
        }
        assert_eq!(end, file.len());
        let of = |element: Element| -> Vec<usize> {
            chunks.iter().filter(|chunk| chunk.element == element).map(|chunk| chunk.range.len()).collect()
        };
        assert_eq!(of(Element::F32), [1000, 1000, 1000, 1000]);
        assert_eq!(of(Element::Bf16), [1000, 1000, 1000, 1000, 1000, 1000, 2]);
        assert_eq!(of(Element::Bytes).last(), Some(&5));
        // A file that is none, or was cut off, is cut evenly.
        for other in [&file[..file.len() - 1], &[0; 3000][..]] {
            assert!(cut(other, 1001).iter().all(|chunk| chunk.element == Element::Bytes));
            assert_eq!(cut(other, 1001).iter().map(|chunk| chunk.range.len()).sum::<usize>(), other.len());
        }
        assert!(cut(&[], 1001).is_empty());
    }

    #[test]
    fn small_models_are_cut_into_smaller_chunks() {
        assert_eq!([199_999_999, 200_000_000].map(chunk_bytes), [262_144, 1_048_576]);
    }
}
