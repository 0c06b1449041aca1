//! One plane of bytes, as it stands in an encoded chunk: raw, all alike, coded, or sparse, as a difference from zeros.
//!
//! A coded plane is the set of its symbols (32 bytes), the length of each symbol's code (four bits each), the bytes of each
//! of four streams (u32 each), and the streams. Every stream codes a quarter of the plane, the first bits in the lowest
//! bits of its bytes: four at once keep the processor busy where one would wait for itself.

use super::{
    Corrupt, Element, Sparse,
    huffman::{self, Lengths},
    streams,
};

/// How many streams there are.
pub(super) const STREAMS: usize = 4;

const RAW: u8 = 0;
const ALIKE: u8 = 1;
const CODED: u8 = 2;
const SPARSE: u8 = 3;

/// Symbols that are looked at before all are counted, in as many pieces.
const SAMPLE: usize = 4096;
const SAMPLES: usize = 4;
/// What is coded must at least save this share, or decoding it is wasted time.
const LEAST_SAVING: f64 = 0.015;
/// A plane may be sparse if it has more than this share of zeros.
const LEAST_ZEROS: f64 = 0.75;

/// Where each stream's symbols end.
pub(super) fn parts(count: usize) -> [std::ops::Range<usize>; STREAMS] {
    let part = count.div_ceil(STREAMS);
    std::array::from_fn(|stream| (stream * part).min(count)..((stream + 1) * part).min(count))
}

/// Bits that a symbol takes on average, at least: the entropy of order zero.
fn entropy(counts: &[u32; 256]) -> f64 {
    let total: f64 = counts.iter().map(|count| f64::from(*count)).sum();
    let bits = |count: &u32| -f64::from(*count) * (f64::from(*count) / total).log2();
    counts.iter().filter(|count| **count > 0).map(bits).sum::<f64>() / total.max(1.0)
}

/// Whether samples of the plane say that it is as good as random.
fn is_random(symbols: &[u8]) -> bool {
    if symbols.len() < 2 * SAMPLE * SAMPLES {
        return false;
    }
    let stride = (symbols.len() - SAMPLE) / (SAMPLES - 1);
    let mut counts = [0; 256];
    for sample in 0..SAMPLES {
        let own = huffman::counts(&symbols[sample * stride..][..SAMPLE]);
        counts.iter_mut().zip(own).for_each(|(count, own)| *count += own);
    }
    // A sample of random bytes seems to have a little less than eight bits: 255 / (2 n ln 2).
    let bias = 255.0 / (2.0 * (SAMPLE * SAMPLES) as f64 * std::f64::consts::LN_2);
    entropy(&counts) + bias > 8.0 * (1.0 - LEAST_SAVING)
}

/// Appends a plane.
pub(super) fn encode(symbols: &[u8], out: &mut Vec<u8>) {
    encode_as(symbols, true, out);
}

/// Appends a plane that is not sparse.
pub(super) fn encode_dense(symbols: &[u8], out: &mut Vec<u8>) {
    encode_as(symbols, false, out);
}

fn encode_as(symbols: &[u8], or_sparse: bool, out: &mut Vec<u8>) {
    if is_random(symbols) {
        out.push(RAW);
        return out.extend_from_slice(symbols);
    }
    let counts = huffman::counts(symbols);
    if let Some(symbol) = symbols.first().filter(|symbol| counts[usize::from(**symbol)] as usize == symbols.len()) {
        return out.extend_from_slice(&[ALIKE, *symbol]);
    }
    let lengths = if symbols.is_empty() { [0; 256] } else { huffman::lengths(&counts) };
    let bits: u64 = counts.iter().zip(&lengths).map(|(count, length)| u64::from(*count) * u64::from(*length)).sum();
    if bits as f64 / 8.0 + 256.0 > symbols.len() as f64 * (1.0 - LEAST_SAVING) {
        out.push(RAW);
        return out.extend_from_slice(symbols);
    }
    let start = out.len();
    out.push(CODED);
    write_lengths(&lengths, out);
    streams::encode(symbols, &lengths, out);
    // Where a symbol is coded it takes a bit at least; only if zeros are so many that this is much, it is tried without.
    if or_sparse && f64::from(counts[0]) > symbols.len() as f64 * LEAST_ZEROS {
        let mut sparse = vec![SPARSE];
        Sparse::default().encode(Element::Bytes, &vec![0; symbols.len()], symbols, &mut sparse);
        if sparse.len() < out.len() - start {
            out.truncate(start);
            out.append(&mut sparse);
        }
    }
}

/// Reads a plane, to `symbols` unless it lies in the bytes as it is; and what is left of them.
pub(super) fn decode<'r, 'b: 'r>(bytes: &'b [u8], symbols: &'r mut [u8]) -> Result<(&'r [u8], &'b [u8]), Corrupt> {
    match bytes.split_first() {
        Some((&SPARSE, bytes)) => {
            let rest = Sparse::default().decode(Element::Bytes, &vec![0; symbols.len()], bytes, symbols)?;
            Ok((symbols, rest))
        }
        _ => decode_dense(bytes, symbols),
    }
}

/// Reads a plane that is not sparse, to `symbols` unless it lies in the bytes as it is; and what is left of them.
pub(super) fn decode_dense<'r, 'b: 'r>(
    bytes: &'b [u8],
    symbols: &'r mut [u8],
) -> Result<(&'r [u8], &'b [u8]), Corrupt> {
    let (kind, bytes) = bytes.split_first().ok_or(Corrupt::Short)?;
    match *kind {
        RAW => bytes.split_at_checked(symbols.len()).ok_or(Corrupt::Short),
        ALIKE => {
            let (symbol, rest) = bytes.split_first().ok_or(Corrupt::Short)?;
            symbols.fill(*symbol);
            Ok((symbols, rest))
        }
        CODED => {
            let (lengths, bytes) = read_lengths(bytes)?;
            let rest = streams::decode(bytes, &lengths, symbols)?;
            Ok((symbols, rest))
        }
        other => Err(Corrupt::Plane(other)),
    }
}

fn write_lengths(lengths: &Lengths, out: &mut Vec<u8>) {
    let used: Vec<usize> = (0..256).filter(|symbol| lengths[*symbol] > 0).collect();
    let mut set = [0u8; 32];
    used.iter().for_each(|symbol| set[symbol / 8] |= 1 << (symbol % 8));
    out.extend_from_slice(&set);
    out.extend(used.chunks(2).map(|pair| lengths[pair[0]] | pair.get(1).map_or(0, |second| lengths[*second] << 4)));
}

fn read_lengths(bytes: &[u8]) -> Result<(Lengths, &[u8]), Corrupt> {
    let (set, bytes) = bytes.split_first_chunk::<32>().ok_or(Corrupt::Short)?;
    let count: usize = set.iter().map(|byte| byte.count_ones() as usize).sum();
    let (packed, bytes) = bytes.split_at_checked(count.div_ceil(2)).ok_or(Corrupt::Short)?;
    let mut each = packed.iter().flat_map(|pair| [pair & 15, pair >> 4]);
    let mut lengths = [0; 256];
    for symbol in (0..256).filter(|symbol| set[symbol / 8] >> (symbol % 8) & 1 == 1) {
        // As many as there are symbols have been read.
        lengths[symbol] = each.next().unwrap_or_default();
    }
    match huffman::are_whole(&lengths) {
        true => Ok((lengths, bytes)),
        false => Err(Corrupt::Code),
    }
}
