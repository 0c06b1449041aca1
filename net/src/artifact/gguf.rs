//! The tensors of a GGUF file (ggml's docs/gguf.md, versions 2 and 3): where they lie, not what they hold.

use super::Tensor;

const MAGIC: &[u8] = b"GGUF";
/// Where tensors begin, unless the file says otherwise.
const ALIGNMENT: u64 = 32;
/// Types of values: a number's width, or one of these.
const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// The tensors in the order in which they lie; nothing where it is no such file, or not a whole one. A quantised one reaches to the
/// next: how its blocks are laid out is the reader's affair.
pub(super) fn tensors(file: &[u8]) -> Option<Vec<Tensor>> {
    let mut header = Header(file);
    let version = (header.take(4)? == MAGIC).then(|| header.u32())??;
    if !(2..=3).contains(&version) {
        return None;
    }
    let (count, values) = (header.u64()?, header.u64()?);
    let mut alignment = ALIGNMENT;
    for _ in 0..values {
        let key = header.string()?;
        let kind = header.u32()?;
        let value = header.value(kind)?;
        if key == b"general.alignment" {
            alignment = u64::from(u32::from_le_bytes(value.try_into().ok()?)).max(1);
        }
    }
    let mut tensors: Vec<Tensor> = Vec::new();
    for _ in 0..count {
        tensors.push(header.tensor()?);
    }
    let begin = ((file.len() - header.0.len()) as u64).checked_next_multiple_of(alignment)?;
    for tensor in &mut tensors {
        tensor.start = tensor.start.checked_add(begin)?;
    }
    tensors.sort_by(|one, other| (one.start, &one.name).cmp(&(other.start, &other.name)));
    let ends = tensors.iter().skip(1).map(|next| next.start).chain([file.len() as u64]);
    let ends: Vec<u64> = ends.collect();
    for (tensor, end) in tensors.iter_mut().zip(ends) {
        let most = end.checked_sub(tensor.start)?;
        let own = match tensor.datatype.as_str() {
            "F32" => numbers(&tensor.shape, 4)?,
            "F16" | "BF16" => numbers(&tensor.shape, 2)?,
            _ => most,
        };
        tensor.bytes = (own <= most).then_some(own)?;
    }
    Some(tensors)
}

fn numbers(shape: &[u64], width: u64) -> Option<u64> {
    shape.iter().try_fold(width, |bytes, size| bytes.checked_mul(*size))
}

/// What is left of a file's header.
struct Header<'f>(&'f [u8]);

impl<'f> Header<'f> {
    fn take(&mut self, count: u64) -> Option<&'f [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(count).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn string(&mut self) -> Option<&'f [u8]> {
        let length = self.u64()?;
        self.take(length)
    }

    /// A value's bytes; of an array only that they are there.
    fn value(&mut self, kind: u32) -> Option<&'f [u8]> {
        match kind {
            STRING => self.string(),
            ARRAY => {
                let (of, count) = (self.u32()?, self.u64()?);
                match of {
                    // None has them.
                    ARRAY => None,
                    STRING => (0..count).try_fold(&[][..], |_, _| self.string()),
                    _ => self.take(count.checked_mul(width(of)?)?),
                }
            }
            _ => self.take(width(kind)?),
        }
    }

    /// A tensor; it begins so many bytes after where they all begin.
    fn tensor(&mut self) -> Option<Tensor> {
        let name = String::from_utf8(self.string()?.to_vec()).ok()?;
        let dimensions = self.u32().filter(|count| *count <= 8)?;
        let shape = (0..dimensions).map(|_| self.u64()).collect::<Option<_>>()?;
        let datatype = match self.u32()? {
            0 => "F32".to_owned(),
            1 => "F16".to_owned(),
            30 => "BF16".to_owned(),
            quantised => format!("GGML{quantised}"),
        };
        Some(Tensor { name, datatype, shape, start: self.u64()?, bytes: 0 })
    }
}

fn width(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{artifact::cut, codec::Element};

    fn text(text: &str) -> Vec<u8> {
        [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
    }

    /// A file with a name, a list of words, and these tensors: their types, sizes, and bytes.
    fn file(alignment: Option<u32>, tensors: &[(u32, &[u64], usize)]) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend((tensors.len() as u64).to_le_bytes());
        out.extend((2 + u64::from(alignment.is_some())).to_le_bytes());
        out.extend([text("general.name"), STRING.to_le_bytes().to_vec(), text("a model")].concat());
        out.extend([text("words"), ARRAY.to_le_bytes().to_vec(), STRING.to_le_bytes().to_vec()].concat());
        out.extend([2u64.to_le_bytes().to_vec(), text("one"), text("two")].concat());
        if let Some(alignment) = alignment {
            out.extend([text("general.alignment"), 4u32.to_le_bytes().to_vec()].concat());
            out.extend(alignment.to_le_bytes());
        }
        let step = u64::from(alignment.unwrap_or(32));
        let (mut at, mut data) = (0u64, Vec::new());
        for (index, (kind, shape, bytes)) in tensors.iter().enumerate() {
            out.extend(text(&format!("t{index}")));
            out.extend((shape.len() as u32).to_le_bytes());
            shape.iter().for_each(|size| out.extend(size.to_le_bytes()));
            out.extend(kind.to_le_bytes());
            out.extend(at.to_le_bytes());
            data.resize(at as usize + bytes, index as u8 + 1);
            at = (at + *bytes as u64).next_multiple_of(step);
            data.resize(at as usize, 0);
        }
        out.resize((out.len() as u64).next_multiple_of(step) as usize, 0);
        out.extend(data);
        out
    }

    #[test]
    fn each_tensor_is_found_and_cut_by_itself() {
        for alignment in [None, Some(64)] {
            let file = file(alignment, &[(0, &[10, 3], 120), (3, &[32, 40], 800), (30, &[7], 14), (1, &[1], 2)]);
            let found = tensors(&file).unwrap();
            let told: Vec<_> = found.iter().map(|one| (one.name.as_str(), one.datatype.as_str())).collect();
            assert_eq!(told, [("t0", "F32"), ("t1", "GGML3"), ("t2", "BF16"), ("t3", "F16")]);
            for (index, tensor) in found.iter().enumerate() {
                let bytes = &file[tensor.start as usize..][..tensor.bytes as usize];
                let own = [120, 800, 14, 2][index];
                assert!(bytes[..own].iter().all(|byte| *byte == index as u8 + 1));
                assert!(bytes[own..].iter().all(|byte| *byte == 0));
            }
            let cuts = cut(&file, &found, 512);
            assert_eq!(cuts.iter().map(|cut| cut.range.len()).sum::<usize>(), file.len());
            let elements = [Element::F32, Element::Bf16, Element::F16];
            assert!(elements.iter().all(|element| cuts.iter().any(|cut| cut.element == *element)));
        }
    }

    #[test]
    fn what_is_cut_off_or_no_such_file_has_no_tensors() {
        let file = file(None, &[(0, &[10, 3], 120), (3, &[32, 40], 800)]);
        let ends = file.len() - 800;
        assert!((0..ends).all(|end| tensors(&file[..end]).is_none()));
        assert!(tensors(&file).is_some());
        // Any count that is off ends at the file's end, at once.
        for at in (4..200).step_by(4) {
            let mut broken = file.clone();
            broken[at..at + 4].copy_from_slice(&[0xff; 4]);
            if let Some(found) = tensors(&broken) {
                assert!(found.iter().all(|one| one.start + one.bytes <= broken.len() as u64));
            }
        }
    }
}
