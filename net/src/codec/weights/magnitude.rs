//! How large a zigzag is, as a symbol; what more it is follows as it stands.
//!
//! Magnitudes below eight have a symbol each, which leaves the sign; of greater ones it has the length and two bits.

/// Symbols of the widest numbers, and room for more.
pub(super) const SYMBOLS: usize = 128;

/// How many symbols numbers of so many bytes have.
pub(super) fn symbols(width: usize) -> usize {
    // The greatest magnitude is a one before as many zeros as there are other bits.
    usize::from(of(u32::MAX >> (32 - 8 * width.clamp(1, 4)))) + 1
}

/// The symbol of a zigzag.
#[inline(always)]
pub(super) fn of(zigzag: u32) -> u8 {
    let magnitude = zigzag / 2 + zigzag % 2;
    let length = 32 - (magnitude | 4).leading_zeros();
    let two = magnitude >> (length - 3) & 3;
    if magnitude < 8 { magnitude as u8 } else { (4 * length - 8 + two) as u8 }
}

/// The least zigzag of a symbol, and the bits that are added to it.
#[inline(always)]
pub(super) fn least(symbol: u8) -> (u32, u8) {
    let length = (symbol / 4 + 2).min(32);
    match symbol {
        0 => (0, 0),
        1..8 => (2 * u32::from(symbol) - 1, 1),
        _ => ((u32::from(4 + symbol % 4) << (length - 3)).wrapping_mul(2).wrapping_sub(1), length - 2),
    }
}
