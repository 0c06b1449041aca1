//! Differences of which most are zero, or small, as they stand in an encoded chunk.
//!
//! First which blocks of 32 numbers have changed at all; the others do not follow. Then the classes of the base's exponents,
//! and the shares of each class's symbols. Then two streams, of which each has every second number: first of each its length
//! (u32) and the state in which it begins (u16), then the streams, each after as many zeros and a one as make it whole bytes.
//! More than two would not fit the processor's registers.

use super::{
    Corrupt, Element,
    ans::{self, Entry, STATES},
    classes::{CLASSES, Classes, Counts},
    difference,
    magnitude::{self, SYMBOLS},
    plane,
    steps::{self, Streams},
};

/// How many streams there are.
pub(super) const STREAMS: usize = 2;
/// Numbers of a block.
const BLOCK: usize = 32;
/// Numbers that are worked on at once: some blocks, a bit of each in a word.
const BATCH: usize = BLOCK * u32::BITS as usize;

const ALL_CHANGED: u8 = 0;
const SOME_CHANGED: u8 = 1;

/// Room that is kept from one chunk to the next.
#[derive(Debug, Default)]
pub(super) struct Sparse {
    /// Of each number that is encoded the zigzag, and its base's exponent, then its class.
    zigzags: Vec<u32>,
    classes: Vec<u8>,
    room: Box<Room>,
}

/// What the decoder needs for a batch.
#[derive(Debug)]
struct Room {
    /// What it looks up, class by class.
    table: [Entry; CLASSES * STATES],
    classes: [u8; BATCH],
    zigzags: [u32; BATCH],
    /// The zigzags of blocks that have changed, together.
    together: [u32; BATCH],
}

impl Default for Room {
    fn default() -> Self {
        let table = [Entry::default(); CLASSES * STATES];
        Self { table, classes: [0; BATCH], zigzags: [0; BATCH], together: [0; BATCH] }
    }
}

impl Sparse {
    /// Appends whole numbers by what they differ from their base, which is as long.
    pub(super) fn encode(&mut self, element: Element, base: &[u8], raw: &[u8], out: &mut Vec<u8>) {
        let changed = self.changed(element, base, raw);
        let blocks = (raw.len() / element.width()).div_ceil(BLOCK);
        if changed.iter().map(|byte| byte.count_ones() as usize).sum::<usize>() == blocks {
            out.push(ALL_CHANGED);
        } else {
            out.push(SOME_CHANGED);
            plane::encode_dense(&changed, out);
        }
        let mut counts: Vec<Counts> = vec![[0; SYMBOLS]; 256];
        for (exponent, zigzag) in self.classes.iter().zip(&self.zigzags) {
            counts[usize::from(*exponent)][usize::from(magnitude::of(*zigzag))] += 1;
        }
        // Only what is left of an unfinished number has changed: then a class without numbers is told.
        counts[0][0] += u32::from(self.zigzags.is_empty());
        let (classes, counts) = Classes::choose(&counts);
        classes.write(out);
        classes.classify(&mut self.classes);
        let shares: Vec<_> = counts.iter().map(ans::shares).collect();
        shares.iter().for_each(|shares| ans::write(shares, out));
        steps::encode(&self.zigzags, &self.classes, &shares, out);
    }

    /// Takes the zigzags and exponents of blocks that have changed; which they are, a bit each.
    fn changed(&mut self, element: Element, base: &[u8], raw: &[u8]) -> Vec<u8> {
        self.zigzags.clear();
        self.classes.clear();
        let (mut zigzags, mut exponents) = ([0; BATCH], [0; BATCH]);
        let mut changed = Vec::with_capacity(raw.len() / element.width() / BLOCK / 8 + 4);
        let bytes = BATCH * element.width();
        for (base, raw) in base.chunks(bytes).zip(raw.chunks(bytes)) {
            let count = raw.len() / element.width();
            difference::subtract(element, base, raw, &mut zigzags[..count]);
            difference::exponents(element, base, &mut exponents[..count]);
            let mut word = 0u32;
            for (block, zigzags) in zigzags[..count].chunks(BLOCK).enumerate() {
                if zigzags.iter().fold(0, |all, zigzag| all | zigzag) != 0 {
                    word |= 1 << block;
                    self.zigzags.extend_from_slice(zigzags);
                    self.classes.extend_from_slice(&exponents[block * BLOCK..][..zigzags.len()]);
                }
            }
            changed.extend_from_slice(&word.to_le_bytes()[..count.div_ceil(BLOCK * 8)]);
        }
        changed
    }

    /// Decodes whole numbers, given their base, which is as long; what is left of the bytes.
    pub(super) fn decode<'b>(
        &mut self,
        element: Element,
        base: &[u8],
        bytes: &'b [u8],
        raw: &mut [u8],
    ) -> Result<&'b [u8], Corrupt> {
        let width = element.width();
        let blocks = (raw.len() / width).div_ceil(BLOCK);
        let (kind, mut bytes) = bytes.split_first().ok_or(Corrupt::Short)?;
        let mut changed = vec![0xff; blocks.div_ceil(8)];
        match *kind {
            ALL_CHANGED => {}
            SOME_CHANGED => {
                let mut room = vec![0; changed.len()];
                let (plane, rest) = plane::decode_dense(bytes, &mut room)?;
                changed.copy_from_slice(plane);
                bytes = rest;
            }
            other => return Err(Corrupt::Plane(other)),
        }
        let (classes, mut bytes) = Classes::read(bytes)?;
        for table in self.room.table.chunks_mut(STATES).take(classes.count()) {
            let shares;
            (shares, bytes) = ans::read(bytes, magnitude::symbols(width))?;
            ans::decoder(&shares, table);
        }
        let (mut streams, rest) = Streams::of(bytes)?;
        let batches = raw.chunks_mut(BATCH * width).zip(base.chunks(BATCH * width));
        for ((raw, base), changed) in batches.zip(changed.chunks(size_of::<u32>())) {
            let mut four = [0; 4];
            four[..changed.len()].copy_from_slice(changed);
            self.room.batch(element, (&classes, u32::from_le_bytes(four)), (base, raw), &mut streams);
        }
        streams.finish()?;
        Ok(rest)
    }
}

impl Room {
    /// Decodes some blocks: those that have changed lie together until their differences are known.
    fn batch(
        &mut self,
        element: Element,
        (classes, changed): (&Classes, u32),
        (base, raw): (&[u8], &mut [u8]),
        streams: &mut Streams<'_>,
    ) {
        if changed == 0 {
            return raw.copy_from_slice(base);
        }
        let count = raw.len() / element.width();
        let Self { table, classes: own, zigzags, together } = self;
        difference::exponents(element, base, &mut own[..count]);
        classes.classify(&mut own[..count]);
        let block = |index: usize| (index * BLOCK).min(count)..((index + 1) * BLOCK).min(count);
        let changed = || (0..u32::BITS as usize).filter(|index| changed >> index & 1 == 1).map(block);
        let coded: usize = changed().map(|block| block.len()).sum();
        if coded == count {
            steps::decode(streams, element, table, &own[..count], &mut zigzags[..count]);
        } else {
            let mut coded = 0;
            for block in changed() {
                own.copy_within(block.clone(), coded);
                coded += block.len();
            }
            steps::decode(streams, element, table, &own[..coded], &mut together[..coded]);
            zigzags.fill(0);
            let mut rest = &together[..coded];
            for block in changed() {
                let (own, more) = rest.split_at(block.len());
                zigzags[block].copy_from_slice(own);
                rest = more;
            }
        }
        difference::add(element, base, &zigzags[..count], raw);
    }
}
