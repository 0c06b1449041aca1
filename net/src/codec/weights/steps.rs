//! The streams of differences: from number to number, with its class's table.

use super::{
    Corrupt, Element,
    ans::{Encoder, Entry, STATES, Shares},
    classes::CLASSES,
    magnitude,
    sparse::STREAMS,
};

/// Bits that a number takes at most: those of a state, and of a zigzag less its first three and with its sign.
const MOST_BITS: usize = 9 + 30;

/// Appends the streams' lengths and states, and the streams.
pub(super) fn encode(zigzags: &[u32], classes: &[u8], shares: &[Shares], out: &mut Vec<u8>) {
    let encoders: Vec<Encoder> = shares.iter().map(Encoder::new).collect();
    let mut head = [0; 6 * STREAMS];
    let room = zigzags.len().div_ceil(STREAMS) * MOST_BITS / 8 + 16;
    let mut rooms: [Vec<u8>; STREAMS] = std::array::from_fn(|_| vec![0; room]);
    let mut writers: [Writer; STREAMS] =
        std::array::from_fn(|_| Writer { state: STATES as u32, bits: 0, count: 0, at: room });
    let (fours, rest) = zigzags.as_chunks::<STREAMS>();
    let (class_fours, class_rest) = classes.as_chunks::<STREAMS>();
    let last = [(rest, class_rest)].into_iter();
    let others = fours.iter().map(|four| &four[..]).zip(class_fours.iter().map(|four| &four[..])).rev();
    for (zigzags, classes) in last.chain(others) {
        for (index, (zigzag, class)) in zigzags.iter().zip(classes).enumerate() {
            writers[index].number(&encoders[usize::from(*class)], *zigzag, &mut rooms[index]);
        }
    }
    for ((writer, room), head) in writers.iter_mut().zip(&mut rooms).zip(head.chunks_mut(6)) {
        writer.finish(room);
        head[..4].copy_from_slice(&((room.len() - writer.at) as u32).to_le_bytes());
        head[4..].copy_from_slice(&((writer.state as usize - STATES) as u16).to_le_bytes());
    }
    out.extend_from_slice(&head);
    writers.iter().zip(&rooms).for_each(|(writer, room)| out.extend_from_slice(&room[writer.at..]));
}

/// A stream that is written, from its end.
struct Writer {
    state: u32,
    /// Bits that are not written yet, the last ones the highest.
    bits: u64,
    count: u32,
    at: usize,
}

impl Writer {
    #[inline(always)]
    fn number(&mut self, encoder: &Encoder, zigzag: u32, room: &mut [u8]) {
        let symbol = magnitude::of(zigzag);
        let (least, more) = magnitude::least(symbol);
        let (state, bits) = encoder.step(self.state, symbol);
        self.bits = self.bits << more | u64::from(zigzag.wrapping_sub(least));
        self.bits = self.bits << bits | u64::from(self.state & ((1 << bits) - 1));
        self.count += u32::from(more) + bits;
        self.state = state;
        let word = self.bits << ((64 - self.count) % 64);
        room[self.at - 8..self.at].copy_from_slice(&word.to_le_bytes());
        self.at -= self.count as usize / 8;
        self.count %= 8;
    }

    /// The first bits, after zeros and a one.
    fn finish(&mut self, room: &mut [u8]) {
        self.at -= 1;
        room[self.at] = ((self.bits << 1 | 1) << (7 - self.count)) as u8;
    }
}

/// The streams of a chunk, and the bytes in which they lie.
pub(super) struct Streams<'b> {
    each: [Stream; STREAMS],
    bytes: &'b [u8],
}

impl<'b> Streams<'b> {
    /// Finds where they begin; what is left of the bytes.
    pub(super) fn of(bytes: &'b [u8]) -> Result<(Self, &'b [u8]), Corrupt> {
        let (head, bytes) = bytes.split_first_chunk::<{ 6 * STREAMS }>().ok_or(Corrupt::Short)?;
        let (mut end, mut each) = (0, [Stream::default(); STREAMS]);
        for (stream, head) in each.iter_mut().zip(head.as_chunks::<6>().0) {
            let [size @ .., low, high] = *head;
            let start = end;
            end += 8 * u64::from(u32::from_le_bytes(size));
            *stream = Stream { at: start, end, state: u32::from(u16::from_le_bytes([low, high])) % STATES as u32 };
        }
        let (bytes, rest) = bytes.split_at_checked((end / 8) as usize).ok_or(Corrupt::Short)?;
        for stream in &mut each {
            let first = bytes.get(stream.at as usize / 8).filter(|first| **first > 0).ok_or(Corrupt::Stream)?;
            stream.at += u64::from(first.trailing_zeros()) + 1;
        }
        Ok((Self { each, bytes }, rest))
    }

    /// All must have been read to their ends, and end as they were begun.
    pub(super) fn finish(&self) -> Result<(), Corrupt> {
        let ended = self.each.iter().all(|stream| stream.at == stream.end && stream.state == 0);
        if ended { Ok(()) } else { Err(Corrupt::Stream) }
    }
}

/// A stream that is read.
#[derive(Clone, Copy, Default)]
struct Stream {
    /// The bit that is next, of all bytes, and the one after its last.
    at: u64,
    end: u64,
    state: u32,
}

impl Stream {
    /// The next bits, at least 57.
    #[inline(always)]
    fn bits(&self, bytes: &[u8]) -> u64 {
        let at = (self.at / 8) as usize;
        let eight = bytes.get(at..at + 8).and_then(|bytes| bytes.first_chunk());
        eight.map_or_else(|| last(bytes, at), |eight| u64::from_le_bytes(*eight)) >> (self.at % 8)
    }

    /// Takes a number of such a class from the bits.
    #[inline(always)]
    fn number(&mut self, bits: &mut u64, table: &[Entry; CLASSES * STATES], class: u8) -> u32 {
        let entry = table[(usize::from(class) * STATES + self.state as usize) % (CLASSES * STATES)];
        self.state = u32::from(entry.next) + (*bits & ((1 << (entry.bits & 63)) - 1)) as u32;
        let own = *bits & ((1 << (entry.all_bits & 63)) - 1);
        *bits >>= entry.all_bits & 63;
        self.at += u64::from(entry.all_bits);
        entry.least.wrapping_add((own >> (entry.bits & 63)) as u32)
    }
}

/// Less than eight bytes, after which there are zeros.
#[cold]
fn last(bytes: &[u8], at: usize) -> u64 {
    let left = bytes.get(at..).unwrap_or_default();
    left.iter().take(8).rev().fold(0, |all, byte| all << 8 | u64::from(*byte))
}

wide! {
    /// Reads the zigzags of numbers of such classes.
    pub(super) fn decode(
        streams: &mut Streams<'_>,
        element: Element,
        table: &[Entry; CLASSES * STATES],
        classes: &[u8],
        zigzags: &mut [u32],
    ) = decode_inlined
}

#[inline(always)]
fn decode_inlined(
    streams: &mut Streams<'_>,
    element: Element,
    table: &[Entry; CLASSES * STATES],
    classes: &[u8],
    zigzags: &mut [u32],
) {
    // Two of the shorter numbers fit the bits that are there at once.
    match element {
        Element::F32 => rounds::<STREAMS>(streams, table, classes, zigzags),
        _ => rounds::<{ 2 * STREAMS }>(streams, table, classes, zigzags),
    }
}

#[inline(always)]
fn rounds<const ROUND: usize>(
    Streams { each, bytes }: &mut Streams<'_>,
    table: &[Entry; CLASSES * STATES],
    classes: &[u8],
    zigzags: &mut [u32],
) {
    let mut streams = *each;
    let (rounds, last) = classes.as_chunks::<ROUND>();
    let (zigzag_rounds, last_zigzags) = zigzags.as_chunks_mut::<ROUND>();
    for (classes, zigzags) in rounds.iter().zip(zigzag_rounds) {
        let mut bits = streams.map(|stream| stream.bits(bytes));
        for index in 0..ROUND {
            let stream = index % STREAMS;
            zigzags[index] = streams[stream].number(&mut bits[stream], table, classes[index]);
        }
    }
    for (index, (class, zigzag)) in last.iter().zip(last_zigzags).enumerate() {
        let stream = &mut streams[index % STREAMS];
        *zigzag = stream.number(&mut stream.bits(bytes), table, *class);
    }
    *each = streams;
}
