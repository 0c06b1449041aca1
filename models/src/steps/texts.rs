//! Texts become tokens, and tokens texts.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
    time::SystemTime,
};

use orion_proto::{Datatype, Error, Result, Tensor, bytes_elements, element_count, encode_bytes_elements};
use parking_lot::Mutex;
use tokenizers::{TruncationParams, truncate_encodings};

use super::tensors::{int64, tensor};
use crate::{
    tokenizer::{self, Tokenizer},
    unreadable,
};

/// Tokenizers that are kept.
const KEPT: usize = 16;
/// Bytes that a token can stand for, generously: a longer text is cut before it is looked at.
const BYTES_PER_TOKEN: usize = 512;

type Kept = HashMap<PathBuf, (SystemTime, Arc<Tokenizer>)>;

/// A step is made anew for each request that brings it; reading its file takes a hundred milliseconds.
static READ: LazyLock<Mutex<Kept>> = LazyLock::new(Mutex::default);

/// The tokenizer of a file, read again when that has changed.
pub(super) fn read(path: &str) -> Result<Arc<Tokenizer>> {
    let path = Path::new(path);
    let changed = std::fs::metadata(path).and_then(|data| data.modified()).map_err(|error| unreadable(path, &error))?;
    if let Some((known, tokenizer)) = READ.lock().get(path)
        && *known == changed
    {
        return Ok(tokenizer.clone());
    }
    let tokenizer = Arc::new(tokenizer::read(path)?);
    let mut kept = READ.lock();
    if kept.len() >= KEPT {
        kept.clear();
    }
    kept.insert(path.to_owned(), (changed, tokenizer.clone()));
    Ok(tokenizer)
}

/// `ids`, `mask` and `types` of each text, filled up with zeros to the longest; what is longer than `most` is cut.
pub(super) fn tokens(inputs: &[Tensor], path: &str, most: usize) -> Result<Vec<Tensor>> {
    let tokenizer = read(path)?;
    let rows = texts(inputs)?.into_iter().enumerate().map(|(at, text)| row(&tokenizer, at, &text, most));
    let rows = rows.collect::<Result<Vec<(Vec<i64>, Vec<i64>)>>>()?;
    let width = rows.iter().map(|(ids, _)| ids.len()).max().unwrap_or(0);
    let shape = [rows.len(), width];
    let mut columns = [Vec::new(), Vec::new(), Vec::new()];
    for (at, (ids, types)) in rows.into_iter().enumerate() {
        let end = (at + 1) * width;
        columns[1].resize(at * width + ids.len(), 1);
        columns[0].extend(ids);
        columns[2].extend(types);
        columns.iter_mut().for_each(|column| column.resize(end, 0));
    }
    let named = ["ids", "mask", "types"].iter().zip(&columns);
    Ok(named.map(|(name, column)| int64(name, &shape, column)).collect())
}

fn texts(inputs: &[Tensor]) -> Result<Vec<bytes::Bytes>> {
    let Some(text) = inputs.iter().find(|tensor| tensor.name == "text") else { return Ok(Vec::new()) };
    let count = element_count("text", &text.shape)?;
    if count != text.rows() {
        return Err(Error::invalid(format!("input 'text' has shape {:?}, it must have one text a row", text.shape)));
    }
    bytes_elements("text", &text.data.contiguous(), count)
}

fn row(tokenizer: &Tokenizer, at: usize, text: &[u8], most: usize) -> Result<(Vec<i64>, Vec<i64>)> {
    let wrong = |why: &dyn std::fmt::Display| Error::invalid(format!("element {at} of input 'text' {why}"));
    let text =
        std::str::from_utf8(text).map_err(|error| wrong(&format!("is not UTF-8 from byte {}", error.valid_up_to())))?;
    let text = &text[..text.floor_char_boundary(most.saturating_mul(BYTES_PER_TOKEN))];
    let failed = |error: tokenizers::Error| wrong(&format!("cannot be tokenised: {error}"));
    let words = tokenizer.encode_fast(text, false).map_err(failed)?;
    let special =
        tokenizer.get_post_processor().map_or(0, |processor| tokenizers::PostProcessor::added_tokens(processor, false));
    let limit = TruncationParams { max_length: most.saturating_sub(special), ..TruncationParams::default() };
    let (mut words, _) = truncate_encodings(words, None, &limit).map_err(failed)?;
    words.take_overflowing();
    let whole = tokenizer.post_process(words, None, true).map_err(failed)?;
    let of = |values: &[u32]| values.iter().map(|value| i64::from(*value)).collect();
    Ok((of(whole.get_ids()), of(whole.get_type_ids())))
}

/// The text of each row of `ids`; those that `mask` leaves out, and special ones, are not in it.
pub(super) fn text(inputs: &[Tensor], path: &str) -> Result<Vec<Tensor>> {
    let tokenizer = read(path)?;
    let whole = |name: &str| {
        let tensor = inputs.iter().find(|tensor| tensor.name == name)?;
        let data = tensor.data.contiguous();
        let values = data.chunks_exact(8).map(|b| i64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]));
        Some((tensor.shape.clone(), values.collect::<Vec<i64>>()))
    };
    let (shape, ids) = whole("ids").unwrap_or_default();
    let mask = whole("mask");
    if mask.as_ref().is_some_and(|(of, _)| *of != shape) {
        return Err(Error::invalid(format!("input 'mask' must have the shape of 'ids', {shape:?}")));
    }
    let (rows, width) = (shape[0] as usize, shape[1] as usize);
    let one = |row: usize| {
        let counts = |at: &usize| mask.as_ref().is_none_or(|(_, mask)| mask[*at] != 0);
        let of = (row * width..(row + 1) * width).filter(counts).map(|at| {
            let wrong = || Error::invalid(format!("row {row} of input 'ids' has the token {}, which is none", ids[at]));
            u32::try_from(ids[at]).map_err(|_| wrong())
        });
        let of = of.collect::<Result<Vec<u32>>>()?;
        tokenizer.decode(&of, true).map_err(|error| Error::invalid(format!("row {row} of input 'ids': {error}")))
    };
    let texts = (0..rows).map(one).collect::<Result<Vec<String>>>()?;
    Ok(vec![tensor("text", Datatype::Bytes, &[rows], encode_bytes_elements(&texts).to_vec())])
}
