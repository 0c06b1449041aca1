//! Where a file is cut into chunks: never across a tensor, so that a tensor that did not change has the same chunks.

use std::ops::Range;

use fastcdc::v2020::{AVERAGE_MAX, FastCDC, MAXIMUM_MAX, MAXIMUM_MIN, MINIMUM_MAX};

use super::Tensor;
use crate::codec::Element;

/// Bytes of a chunk, and of one of a model that is small: with fewer than some hundred chunks, peers would wait for each
/// other.
const CHUNK_BYTES: usize = 1 << 20;
const SMALL_CHUNK_BYTES: usize = 256 << 10;
const SMALL_MODEL_BYTES: u64 = 200_000_000;

/// A part of a file, before it is encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Where it lies.
    pub range: Range<usize>,
    /// What its numbers are.
    pub element: Element,
}

/// Bytes of a chunk of a model that has so many, at most.
pub fn chunk_bytes(model_bytes: u64) -> usize {
    if model_bytes < SMALL_MODEL_BYTES { SMALL_CHUNK_BYTES } else { CHUNK_BYTES }
}

/// Cuts a file into chunks of at most so many bytes, which are all of it in its order. Each of its tensors is cut by itself,
/// evenly; anything else by its contents, so that bytes that were put in move no border but the nearest.
pub fn cut(file: &[u8], tensors: &[Tensor], chunk_bytes: usize) -> Vec<Cut> {
    let (mut cuts, mut end) = (Vec::new(), 0);
    for tensor in tensors {
        // Of this file, so they fit it.
        let range = tensor.start as usize..(tensor.start + tensor.bytes) as usize;
        by_contents(file, end..range.start, chunk_bytes, &mut cuts);
        end = range.end;
        evenly(range, element(&tensor.datatype), chunk_bytes, &mut cuts);
    }
    by_contents(file, end..file.len(), chunk_bytes, &mut cuts);
    cuts
}

fn evenly(range: Range<usize>, element: Element, chunk_bytes: usize, cuts: &mut Vec<Cut>) {
    // Whole numbers, and never nothing.
    let step = (chunk_bytes - chunk_bytes % element.width()).max(element.width());
    let starts = range.clone().step_by(step);
    cuts.extend(starts.map(|start| Cut { range: start..range.end.min(start + step), element }));
}

/// FastCDC (Xia et al., 2020).
fn by_contents(file: &[u8], range: Range<usize>, chunk_bytes: usize, cuts: &mut Vec<Cut>) {
    let most = chunk_bytes.min(MAXIMUM_MAX as usize) as u32;
    let (least, average) = ((most / 8).min(MINIMUM_MAX), (most / 2).min(AVERAGE_MAX));
    // Too small for the algorithm's window.
    if most < MAXIMUM_MIN || range.len() <= least as usize {
        return evenly(range, Element::Bytes, chunk_bytes, cuts);
    }
    let start = range.start;
    for chunk in FastCDC::new(&file[range], least, average, most) {
        let from = start + chunk.offset;
        cuts.push(Cut { range: from..from + chunk.length, element: Element::Bytes });
    }
}

fn element(datatype: &str) -> Element {
    match datatype {
        "BF16" => Element::Bf16,
        "F16" => Element::F16,
        "F32" => Element::F32,
        _ => Element::Bytes,
    }
}

#[cfg(test)]
mod tests {
    use safetensors::{Dtype, tensor::TensorView};

    use super::*;
    use crate::artifact::tensors;

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
        let chunks = cut(&file, &tensors(&file), 1001);
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
        // A file that is none, or was cut off, has no tensors.
        for other in [&file[..file.len() - 1], &[0; 3000][..]] {
            assert_eq!(tensors(other), []);
        }
        assert!(cut(&[], &[], 1001).is_empty());
    }

    #[test]
    fn bytes_that_are_put_in_move_few_borders() {
        let mut state = 7u64;
        let before: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .take(400_000)
        .collect();
        let after = [&before[..100_000], b"new", &before[100_000..]].concat();
        let pieces = |file: &[u8]| -> Vec<Vec<u8>> {
            cut(file, &[], 16_384).into_iter().map(|cut| file[cut.range].to_vec()).collect()
        };
        let (old, new) = (pieces(&before), pieces(&after));
        assert_eq!(new.concat(), after);
        let kept = new.iter().filter(|piece| old.contains(piece)).count();
        assert!(old.len() > 40 && kept + 3 >= new.len(), "{kept} of {}", new.len());
        assert!(old.iter().all(|piece| piece.len() <= 16_384));
    }

    #[test]
    fn small_models_are_cut_into_smaller_chunks() {
        assert_eq!([199_999_999, 200_000_000].map(chunk_bytes), [262_144, 1_048_576]);
    }
}
