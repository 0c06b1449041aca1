//! The streams of a coded plane.

use super::{
    Corrupt,
    huffman::{self, Lengths, MOST_BITS},
    plane::{STREAMS, parts},
};

/// Values that the decoder looks up.
const VALUES: usize = 1 << MOST_BITS;
/// Symbols that one look-up gives at most.
const MOST_SYMBOLS: usize = 4;
/// Look-ups between two refills: their bits fit what a refill leaves at least.
const LOOKUPS: usize = 56 / MOST_BITS as usize;

/// What some bits stand for.
#[derive(Clone, Copy, Default)]
#[repr(C, align(8))]
struct Entry {
    symbols: [u8; MOST_SYMBOLS],
    /// Bits that they take.
    bits: u8,
    count: u8,
    /// Bits of the first alone.
    first: u8,
}

/// Appends the lengths of the streams, and the streams.
pub(super) fn encode(symbols: &[u8], lengths: &Lengths, out: &mut Vec<u8>) {
    let codes = huffman::codes(lengths);
    let words: [u32; 256] = std::array::from_fn(|symbol| u32::from(codes[symbol]) | u32::from(lengths[symbol]) << 16);
    let sizes = out.len();
    out.resize(sizes + 4 * STREAMS, 0);
    for (stream, part) in parts(symbols.len()).into_iter().enumerate() {
        let start = out.len();
        encode_stream(&symbols[part], &words, out);
        let size = (out.len() - start) as u32;
        out[sizes + 4 * stream..][..4].copy_from_slice(&size.to_le_bytes());
    }
}

fn encode_stream(symbols: &[u8], words: &[u32; 256], out: &mut Vec<u8>) {
    let start = out.len();
    // A code takes eleven bits at most; eight bytes are written at once.
    out.resize(start + symbols.len() * 2 + 8, 0);
    let (mut at, mut bits, mut count) = (start, 0u64, 0u32);
    let (fours, rest) = symbols.as_chunks::<4>();
    for four in fours.iter().map(|four| &four[..]).chain([rest]) {
        for symbol in four {
            let word = words[usize::from(*symbol)];
            bits |= u64::from(word & 0xffff) << count;
            count += word >> 16;
        }
        out[at..at + 8].copy_from_slice(&bits.to_le_bytes());
        let whole = count / 8;
        at += whole as usize;
        bits >>= 8 * whole;
        count %= 8;
    }
    out.truncate(at + usize::from(count > 0));
}

/// Reads the streams of a plane; what is left of the bytes.
pub(super) fn decode<'b>(bytes: &'b [u8], lengths: &Lengths, symbols: &mut [u8]) -> Result<&'b [u8], Corrupt> {
    let (sizes, mut bytes) = bytes.split_first_chunk::<{ 4 * STREAMS }>().ok_or(Corrupt::Short)?;
    let mut table = [Entry::default(); VALUES];
    fill(lengths, &mut table);
    let mut inputs: [&[u8]; STREAMS] = [&[]; STREAMS];
    for (input, size) in inputs.iter_mut().zip(sizes.as_chunks::<4>().0) {
        (*input, bytes) = bytes.split_at_checked(u32::from_le_bytes(*size) as usize).ok_or(Corrupt::Short)?;
    }
    let mut streams = inputs.map(|input| Stream { input, at: 0, bits: 0, count: 0, out: 0, end: 0 });
    for (stream, part) in streams.iter_mut().zip(parts(symbols.len())) {
        (stream.out, stream.end) = (part.start, part.end);
    }
    together(&mut streams, &table, symbols);
    for stream in &mut streams {
        stream.finish(&table, symbols)?;
    }
    Ok(bytes)
}

wide! {
    /// An entry for each value: as many whole codes as it holds, of four at most.
    fn fill(lengths: &Lengths, table: &mut [Entry; VALUES]) = fill_inlined
}

#[inline(always)]
fn fill_inlined(lengths: &Lengths, table: &mut [Entry; VALUES]) {
    let codes = huffman::codes(lengths);
    // The symbol that a value begins with, and in the upper byte the length of its code.
    let mut firsts = [0u16; VALUES];
    for symbol in (0..=255u8).filter(|symbol| lengths[usize::from(*symbol)] > 0) {
        let length = lengths[usize::from(symbol)];
        let code = usize::from(codes[usize::from(symbol)]);
        firsts[code..].iter_mut().step_by(1 << length).for_each(|first| *first = u16::from_le_bytes([symbol, length]));
    }
    let mut pairs = [Entry::default(); VALUES];
    for (value, (pair, one)) in pairs.iter_mut().zip(firsts.map(u16::to_le_bytes)).enumerate() {
        let [symbol, first] = one;
        let [other, second] = firsts[value >> (first % 16)].to_le_bytes();
        let fits = u8::from(u32::from(first + second) <= MOST_BITS);
        *pair = Entry { symbols: [symbol, other, 0, 0], bits: first + second * fits, count: 1 + fits, first };
    }
    // Without a branch: which codes fit is as good as random.
    for (value, (entry, pair)) in table.iter_mut().zip(&pairs).enumerate() {
        let next = pairs[value >> (pair.bits % 16)];
        let both = u8::from(u32::from(pair.bits + next.bits) <= MOST_BITS);
        let one = u8::from(u32::from(pair.bits + next.first) <= MOST_BITS);
        let more = if both > 0 { (next.bits, next.count) } else { (next.first * one, one) };
        let symbols = [pair.symbols[0], pair.symbols[1], next.symbols[0], next.symbols[1]];
        *entry = Entry { symbols, bits: pair.bits + more.0, count: pair.count + more.1, first: pair.first };
    }
}

/// A stream that is read.
struct Stream<'b> {
    input: &'b [u8],
    /// Where its next byte is.
    at: usize,
    /// Bits that were taken from it, and how many of them are sure.
    bits: u64,
    count: u32,
    /// Where its next symbol goes, and where its last has gone.
    out: usize,
    end: usize,
}

impl Stream<'_> {
    /// Symbol by symbol to the end; it must be the end of the bytes too.
    fn finish(&mut self, table: &[Entry; VALUES], symbols: &mut [u8]) -> Result<(), Corrupt> {
        for symbol in &mut symbols[self.out..self.end] {
            while self.count <= 56 && self.at < self.input.len() {
                self.bits |= u64::from(self.input[self.at]) << self.count;
                (self.at, self.count) = (self.at + 1, self.count + 8);
            }
            let entry = table[self.bits as usize % VALUES];
            let left = self.count.checked_sub(entry.first.into()).ok_or(Corrupt::Stream)?;
            (*symbol, self.count) = (entry.symbols[0], left);
            self.bits >>= entry.first;
        }
        let last = self.at == self.input.len() && self.count < 8 && self.bits == 0;
        if last { Ok(()) } else { Err(Corrupt::Stream) }
    }
}

wide! {
    /// All streams at once, until one of them is near its end.
    fn together(streams: &mut [Stream<'_>; STREAMS], table: &[Entry; VALUES], symbols: &mut [u8]) = together_inlined
}

#[inline(always)]
fn together_inlined(streams: &mut [Stream<'_>; STREAMS], table: &[Entry; VALUES], symbols: &mut [u8]) {
    let out = symbols.as_mut_ptr();
    loop {
        // A round takes at most seven bytes of each, of which eight are read, and gives so many symbols at most.
        let rounds = |stream: &Stream<'_>| {
            let (input, room) = (stream.input.len() - stream.at, stream.end - stream.out);
            (input / 8).min(room / (LOOKUPS * MOST_SYMBOLS))
        };
        let rounds = streams.iter().map(rounds).min().unwrap_or_default();
        if rounds == 0 {
            return;
        }
        let mut bits = [0u64; STREAMS];
        let mut counts = [0u32; STREAMS];
        let mut inputs = [std::ptr::null::<u8>(); STREAMS];
        let mut outs = [out; STREAMS];
        for (index, stream) in streams.iter().enumerate() {
            (bits[index], counts[index]) = (stream.bits, stream.count);
            inputs[index] = stream.input.as_ptr().wrapping_add(stream.at);
            outs[index] = out.wrapping_add(stream.out);
        }
        for _ in 0..rounds {
            for index in 0..STREAMS {
                // SAFETY: eight bytes are left of its input, and as many symbols of its part as the look-ups give at most;
                // a value of so many bits has an entry.
                unsafe {
                    let more = u64::from_le(inputs[index].cast::<u64>().read_unaligned());
                    let (mut left, mut at) = (bits[index] | more << counts[index], outs[index]);
                    inputs[index] = inputs[index].add(((63 - counts[index]) >> 3) as usize);
                    let mut used = 0;
                    for _ in 0..LOOKUPS {
                        let entry = table.get_unchecked(left as usize % VALUES);
                        at.cast::<[u8; MOST_SYMBOLS]>().write_unaligned(entry.symbols);
                        at = at.add(usize::from(entry.count));
                        left >>= entry.bits;
                        used += u32::from(entry.bits);
                    }
                    (bits[index], outs[index]) = (left, at);
                    counts[index] = (counts[index] | 56) - used;
                }
            }
        }
        for (index, stream) in streams.iter_mut().enumerate() {
            (stream.bits, stream.count) = (bits[index], counts[index]);
            stream.at = inputs[index].addr() - stream.input.as_ptr().addr();
            stream.out = outs[index].addr() - out.addr();
        }
    }
}
