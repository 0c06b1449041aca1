//! The difference of two versions of each number, as whole numbers that are in the numbers' order.
//!
//! Such a difference counts the numbers between the two, whatever their exponents and signs are. It is told as a zigzag: the
//! sign is the lowest bit, so that what changed little is small.

use super::Element;

wide! {
    /// The zigzags of whole numbers, less those of their base.
    pub(super) fn subtract(element: Element, base: &[u8], raw: &[u8], zigzags: &mut [u32]) = subtract_inlined
}

wide! {
    /// The whole numbers that differ so from those of their base.
    pub(super) fn add(element: Element, base: &[u8], zigzags: &[u32], raw: &mut [u8]) = add_inlined
}

wide! {
    /// The exponents of whole numbers; zero where there are none.
    pub(super) fn exponents(element: Element, numbers: &[u8], exponents: &mut [u8]) = exponents_inlined
}

/// Of a number's bits a number in their order, and back: of negative ones all bits are turned, of others the first.
macro_rules! order {
    ($to:ident, $from:ident, $zigzag:ident, $unzigzag:ident, $bits:ty, $signed:ty) => {
        #[inline(always)]
        fn $to(bits: $bits) -> $bits {
            let first = 1 << (<$bits>::BITS - 1);
            bits ^ ((bits as $signed >> (<$bits>::BITS - 1)) as $bits | first)
        }

        #[inline(always)]
        fn $from(order: $bits) -> $bits {
            let first = 1 << (<$bits>::BITS - 1);
            order ^ (!(order as $signed >> (<$bits>::BITS - 1)) as $bits | first)
        }

        #[inline(always)]
        fn $zigzag(difference: $bits) -> u32 {
            let difference = difference as $signed;
            u32::from((difference << 1 ^ difference >> (<$bits>::BITS - 1)) as $bits)
        }

        #[inline(always)]
        fn $unzigzag(zigzag: u32) -> $bits {
            let zigzag = zigzag as $bits;
            zigzag >> 1 ^ (zigzag & 1).wrapping_neg()
        }
    };
}

order!(ordered16, unordered16, zigzag16, unzigzag16, u16, i16);
order!(ordered32, unordered32, zigzag32, unzigzag32, u32, i32);

#[inline(always)]
fn subtract_inlined(element: Element, base: &[u8], raw: &[u8], zigzags: &mut [u32]) {
    match element {
        Element::Bytes => {
            for ((base, raw), zigzag) in base.iter().zip(raw).zip(zigzags) {
                let difference = raw.wrapping_sub(*base) as i8;
                *zigzag = u32::from((difference << 1 ^ difference >> 7) as u8);
            }
        }
        Element::Bf16 | Element::F16 => {
            for ((base, raw), zigzag) in base.as_chunks::<2>().0.iter().zip(raw.as_chunks::<2>().0).zip(zigzags) {
                let [base, raw] = [base, raw].map(|bytes| ordered16(u16::from_le_bytes(*bytes)));
                *zigzag = zigzag16(raw.wrapping_sub(base));
            }
        }
        Element::F32 => {
            for ((base, raw), zigzag) in base.as_chunks::<4>().0.iter().zip(raw.as_chunks::<4>().0).zip(zigzags) {
                let [base, raw] = [base, raw].map(|bytes| ordered32(u32::from_le_bytes(*bytes)));
                *zigzag = zigzag32(raw.wrapping_sub(base));
            }
        }
    }
}

#[inline(always)]
fn add_inlined(element: Element, base: &[u8], zigzags: &[u32], raw: &mut [u8]) {
    match element {
        Element::Bytes => {
            for ((base, raw), zigzag) in base.iter().zip(raw).zip(zigzags) {
                let zigzag = *zigzag as u8;
                *raw = base.wrapping_add(zigzag >> 1 ^ (zigzag & 1).wrapping_neg());
            }
        }
        Element::Bf16 | Element::F16 => {
            let bases = base.as_chunks::<2>().0;
            for ((base, raw), zigzag) in bases.iter().zip(raw.as_chunks_mut::<2>().0).zip(zigzags) {
                let base = ordered16(u16::from_le_bytes(*base));
                *raw = unordered16(base.wrapping_add(unzigzag16(*zigzag))).to_le_bytes();
            }
        }
        Element::F32 => {
            let bases = base.as_chunks::<4>().0;
            for ((base, raw), zigzag) in bases.iter().zip(raw.as_chunks_mut::<4>().0).zip(zigzags) {
                let base = ordered32(u32::from_le_bytes(*base));
                *raw = unordered32(base.wrapping_add(unzigzag32(*zigzag))).to_le_bytes();
            }
        }
    }
}

#[inline(always)]
fn exponents_inlined(element: Element, numbers: &[u8], exponents: &mut [u8]) {
    match element {
        Element::Bytes => exponents.fill(0),
        Element::Bf16 => {
            for (number, exponent) in numbers.as_chunks::<2>().0.iter().zip(exponents) {
                *exponent = (u16::from_le_bytes(*number) >> 7) as u8;
            }
        }
        Element::F16 => {
            for (number, exponent) in numbers.as_chunks::<2>().0.iter().zip(exponents) {
                *exponent = (u16::from_le_bytes(*number) >> 10 & 0x1f) as u8;
            }
        }
        Element::F32 => {
            for (number, exponent) in numbers.as_chunks::<4>().0.iter().zip(exponents) {
                *exponent = (u32::from_le_bytes(*number) >> 23) as u8;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn neighbours_differ_by_one(number in any::<f32>()) {
            let next = number.next_up();
            prop_assume!(number.is_finite() && next != 0.0 && number != 0.0);
            let (mut up, mut down) = ([0], [0]);
            subtract(Element::F32, &number.to_le_bytes(), &next.to_le_bytes(), &mut up);
            subtract(Element::F32, &next.to_le_bytes(), &number.to_le_bytes(), &mut down);
            prop_assert_eq!((up, down), ([2], [1]));
        }
    }

    #[test]
    fn every_number_of_sixteen_bits_differs_from_every_other() {
        let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        for base in [0u16, 1, 0x7fff, 0x8000, 0x8001, 0x7fc0, 0xffff] {
            let base = base.to_le_bytes().repeat(1 << 16);
            let (mut zigzags, mut got) = (vec![0; 1 << 16], vec![0; 2 << 16]);
            subtract(Element::Bf16, &base, &all, &mut zigzags);
            add(Element::Bf16, &base, &zigzags, &mut got);
            assert!(got == all);
            zigzags.sort_unstable();
            assert!(zigzags.iter().copied().eq(0..1 << 16));
        }
    }
}
