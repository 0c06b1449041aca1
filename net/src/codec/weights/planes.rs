//! Floating-point numbers taken apart into planes of bytes: what is alike comes together.
//!
//! An exponent is a byte of its own, with the sign moved behind it; of f16, whose exponent is five bits, the sign and two
//! bits of the mantissa stay with it.

/// As many as the widest number has bytes.
pub(super) const MOST_PLANES: usize = 4;

/// What the numbers of a chunk are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// Anything else: one plane.
    Bytes,
    /// bfloat16.
    Bf16,
    /// IEEE 754 binary16.
    F16,
    /// IEEE 754 binary32.
    F32,
}

impl Element {
    /// Bytes of a number, and so planes of a chunk.
    pub fn width(self) -> usize {
        match self {
            Self::Bytes => 1,
            Self::Bf16 | Self::F16 => 2,
            Self::F32 => 4,
        }
    }
}

wide! {
    /// Takes whole numbers apart; each of the planes, one after the other, has as many bytes as there are numbers.
    pub(super) fn split(element: Element, raw: &[u8], planes: &mut [u8]) = split_inlined
}

wide! {
    /// Puts whole numbers together again, of as many planes as a number has bytes.
    pub(super) fn join(element: Element, planes: [&[u8]; MOST_PLANES], raw: &mut [u8]) = join_inlined
}

#[inline(always)]
fn split_inlined(element: Element, raw: &[u8], planes: &mut [u8]) {
    let count = raw.len() / element.width();
    match element {
        Element::Bytes => planes.copy_from_slice(raw),
        Element::Bf16 => {
            let (exponents, rest) = planes.split_at_mut(count);
            for ((number, exponent), rest) in raw.as_chunks::<2>().0.iter().zip(exponents).zip(rest) {
                let bits = u16::from_le_bytes(*number);
                *exponent = (bits >> 7) as u8;
                *rest = (bits & 0x7f | bits >> 8 & 0x80) as u8;
            }
        }
        Element::F16 => {
            let (high, low) = planes.split_at_mut(count);
            for ((number, high), low) in raw.as_chunks::<2>().0.iter().zip(high).zip(low) {
                [*low, *high] = *number;
            }
        }
        Element::F32 => {
            let (exponents, rest) = planes.split_at_mut(count);
            let (low, rest) = rest.split_at_mut(count);
            let (middle, high) = rest.split_at_mut(count);
            let rest = low.iter_mut().zip(middle).zip(high);
            for ((number, exponent), ((low, middle), high)) in raw.as_chunks::<4>().0.iter().zip(exponents).zip(rest) {
                let bits = u32::from_le_bytes(*number);
                *exponent = (bits >> 23) as u8;
                let rest = bits & 0x7f_ffff | bits >> 8 & 0x80_0000;
                (*low, *middle, *high) = (rest as u8, (rest >> 8) as u8, (rest >> 16) as u8);
            }
        }
    }
}

#[inline(always)]
fn join_inlined(element: Element, planes: [&[u8]; MOST_PLANES], raw: &mut [u8]) {
    let [first, second, third, fourth] = planes;
    match element {
        Element::Bytes => raw.copy_from_slice(first),
        Element::Bf16 => {
            for ((number, exponent), rest) in raw.as_chunks_mut::<2>().0.iter_mut().zip(first).zip(second) {
                let rest = u16::from(*rest);
                *number = (u16::from(*exponent) << 7 | rest & 0x7f | (rest & 0x80) << 8).to_le_bytes();
            }
        }
        Element::F16 => {
            for ((number, high), low) in raw.as_chunks_mut::<2>().0.iter_mut().zip(first).zip(second) {
                *number = [*low, *high];
            }
        }
        Element::F32 => {
            let rest = second.iter().zip(third).zip(fourth);
            for ((number, exponent), ((low, middle), high)) in
                raw.as_chunks_mut::<4>().0.iter_mut().zip(first).zip(rest)
            {
                let rest = u32::from(*low) | u32::from(*middle) << 8 | u32::from(*high) << 16;
                *number = (u32::from(*exponent) << 23 | rest & 0x7f_ffff | (rest & 0x80_0000) << 8).to_le_bytes();
            }
        }
    }
}
