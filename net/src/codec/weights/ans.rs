//! Tables of an entropy coder that wastes no part of a bit: asymmetric numeral systems (Duda, 2013), tabled.
//!
//! A state is a number below `STATES`. Each symbol has a share of them; the decoder's state tells the symbol, and with some
//! bits the state before it. The encoder goes the same way from the last symbol to the first.

use super::{
    Corrupt,
    magnitude::{self, SYMBOLS},
};

/// Bits of a state.
pub(super) const STATE_BITS: u32 = 9;
/// How many states there are.
pub(super) const STATES: usize = 1 << STATE_BITS;

/// How many states each symbol has: at least one if it occurs, all together every state.
pub(super) type Shares = [u16; SYMBOLS];

/// Shares for symbols that occur so often, of which there is at least one.
pub(super) fn shares(counts: &[u32; SYMBOLS]) -> Shares {
    let total: u64 = counts.iter().map(|count| u64::from(*count)).sum::<u64>().max(1);
    let mut shares: Shares = counts.map(|count| {
        let share = (u64::from(count) * STATES as u64 + total / 2) / total;
        share.max(u64::from(count > 0)) as u16
    });
    let worth = |symbol: &usize, share: u16| f64::from(counts[*symbol]) / f64::from(share);
    loop {
        let (sum, used) = (shares.iter().sum::<u16>(), (0..SYMBOLS).filter(|symbol| counts[*symbol] > 0));
        let by = |one: &usize, other: &usize| worth(one, shares[*one]).total_cmp(&worth(other, shares[*other]));
        let changed = match usize::from(sum).cmp(&STATES) {
            std::cmp::Ordering::Equal => return shares,
            std::cmp::Ordering::Less => used.max_by(by).map(|symbol| (symbol, shares[symbol] + 1)),
            std::cmp::Ordering::Greater => {
                used.filter(|symbol| shares[*symbol] > 1).min_by(by).map(|symbol| (symbol, shares[symbol] - 1))
            }
        };
        let Some((symbol, share)) = changed else { return shares };
        shares[symbol] = share;
    }
}

/// Appends shares, each in as many bits as what is left of the states has.
pub(super) fn write(shares: &Shares, out: &mut Vec<u8>) {
    let (mut left, mut bits, mut count) = (STATES as u32, 0u32, 0);
    for share in shares {
        bits |= u32::from(*share) << count;
        count += u32::BITS - left.leading_zeros();
        left -= u32::from(*share).min(left);
        while count >= 8 || left == 0 && count > 0 {
            out.push(bits as u8);
            (bits, count) = (bits >> 8, count.saturating_sub(8));
        }
        if left == 0 {
            return;
        }
    }
}

/// Reads the shares of so many symbols; what is left of the bytes.
pub(super) fn read(mut bytes: &[u8], symbols: usize) -> Result<(Shares, &[u8]), Corrupt> {
    let mut shares = [0; SYMBOLS];
    let (mut left, mut bits, mut count) = (STATES as u32, 0u32, 0);
    for share in shares.iter_mut().take(symbols) {
        let length = u32::BITS - left.leading_zeros();
        while count < length {
            let (next, rest) = bytes.split_first().ok_or(Corrupt::Short)?;
            bits |= u32::from(*next) << count;
            (bytes, count) = (rest, count + 8);
        }
        let own = bits & ((1 << length) - 1);
        (bits, count) = (bits >> length, count - length);
        left = left.checked_sub(own).ok_or(Corrupt::Code)?;
        *share = own as u16;
        if left == 0 {
            return Ok((shares, bytes));
        }
    }
    Err(Corrupt::Code)
}

/// The symbol of each state: those of a symbol lie far from each other.
fn spread(shares: &Shares) -> [u8; STATES] {
    const STEP: usize = STATES / 2 + STATES / 8 + 3;
    let (mut spread, mut at) = ([0; STATES], 0);
    for (symbol, share) in shares.iter().enumerate() {
        for _ in 0..*share {
            spread[at] = symbol as u8;
            at = (at + STEP) % STATES;
        }
    }
    spread
}

/// What a state says.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(8))]
pub(super) struct Entry {
    /// The symbol's least zigzag.
    pub(super) least: u32,
    /// The state before it, to which bits are added: how many, and how many with those of the zigzag, which follow.
    pub(super) next: u16,
    pub(super) bits: u8,
    pub(super) all_bits: u8,
}

/// What the decoder looks up.
pub(super) fn decoder(shares: &Shares, table: &mut [Entry]) {
    let mut next = *shares;
    for (entry, symbol) in table.iter_mut().zip(spread(shares)) {
        let (least, more) = magnitude::least(symbol);
        let place = &mut next[usize::from(symbol)];
        // From its share up to twice as much, of which the bits make a state again.
        let bits = (STATE_BITS + 1).saturating_sub(u16::BITS - place.leading_zeros());
        *entry = Entry { least, next: (*place << bits) % STATES as u16, bits: bits as u8, all_bits: bits as u8 + more };
        *place += 1;
    }
}

/// What the encoder looks up.
#[derive(Clone, Debug)]
pub(super) struct Encoder {
    symbols: [Own; SYMBOLS],
    states: [u16; STATES],
}

/// Of a symbol: added to a state gives in its upper half how many of its bits are written; and where its states lie.
#[derive(Clone, Copy, Debug, Default)]
struct Own {
    bits: u32,
    states: i32,
}

impl Encoder {
    /// For such shares.
    pub(super) fn new(shares: &Shares) -> Self {
        let (mut symbols, mut states, mut start) = ([Own::default(); SYMBOLS], [0; STATES], 0);
        for (own, share) in symbols.iter_mut().zip(shares).filter(|(_, share)| **share > 0) {
            let most = STATE_BITS - (u32::from(*share) - 1).checked_ilog2().unwrap_or_default().min(STATE_BITS);
            let most = if *share == 1 { STATE_BITS } else { most };
            *own =
                Own { bits: (most << 16).wrapping_sub(u32::from(*share) << most), states: start - i32::from(*share) };
            start += i32::from(*share);
        }
        let mut next: [i32; SYMBOLS] = std::array::from_fn(|symbol| symbols[symbol].states + i32::from(shares[symbol]));
        for (state, symbol) in spread(shares).into_iter().enumerate() {
            let next = &mut next[usize::from(symbol)];
            states[*next as usize] = (STATES + state) as u16;
            *next += 1;
        }
        Self { symbols, states }
    }

    /// The state after a symbol, and how many bits of the state before are written. States are told with `STATES` added.
    #[inline(always)]
    pub(super) fn step(&self, state: u32, symbol: u8) -> (u32, u32) {
        let own = self.symbols[usize::from(symbol) % SYMBOLS];
        let bits = own.bits.wrapping_add(state) >> 16;
        let place = (state >> bits) as i32 + own.states;
        (u32::from(self.states[place as usize % STATES]), bits)
    }
}
