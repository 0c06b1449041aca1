//! In which order examples are seen: each epoch in another, told by seed and number, without a list of them.

use std::ops::Range;

/// A permutation of `0..count`: a Feistel network over the next power of four, walked until it falls below the count
/// (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002).
#[derive(Clone, Copy, Debug)]
struct Order {
    count: u64,
    half: u32,
    key: u64,
}

const ROUNDS: u64 = 6;

impl Order {
    /// The order of an epoch.
    fn new(count: u64, seed: u64, epoch: u64) -> Self {
        let bits = u64::BITS - count.saturating_sub(1).leading_zeros();
        Self { count, half: bits.div_ceil(2).max(1), key: mix(seed ^ mix(epoch.wrapping_add(1))) }
    }

    /// Which example is at a place.
    fn at(&self, place: u64) -> u64 {
        debug_assert!(place < self.count);
        let mask = (1u64 << self.half) - 1;
        let mut value = place;
        loop {
            let (mut left, mut right) = (value >> self.half, value & mask);
            for round in 0..ROUNDS {
                (left, right) = (right, left ^ (mix(right ^ self.key.wrapping_add(round << 56)) & mask));
            }
            value = (left << self.half) | right;
            if value < self.count {
                return value;
            }
        }
    }
}

/// The examples at some places of a batch of this number, in the order of the epochs that it falls into.
pub(in crate::training) fn places(
    seed: u64,
    count: usize,
    number: u64,
    batch: usize,
    range: Range<usize>,
) -> Vec<usize> {
    let (count, first) = (count.max(1) as u64, number.saturating_mul(batch as u64));
    let mut order: Option<(u64, Order)> = None;
    let at = |place: usize| {
        let (epoch, place) = ((first + place as u64) / count, (first + place as u64) % count);
        let (_, order) = match order.filter(|(known, _)| *known == epoch) {
            Some(known) => known,
            None => *order.insert((epoch, Order::new(count, seed, epoch))),
        };
        order.at(place) as usize
    };
    range.map(at).collect()
}

/// SplitMix64's last steps.
pub(in crate::training) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_example_is_seen_once_an_epoch_and_in_another_place() {
        for count in [1, 2, 3, 5, 16, 17, 1000, 4097] {
            let seen = |epoch| (0..count).map(|place| Order::new(count, 7, epoch).at(place)).collect::<Vec<_>>();
            let (first, second) = (seen(0), seen(1));
            for order in [&first, &second] {
                assert_eq!(order.iter().copied().collect::<BTreeSet<_>>(), (0..count).collect(), "{count}");
            }
            let same = first.iter().zip(&second).filter(|(a, b)| a == b).count();
            assert!(count < 16 || same < 10, "{count}: {same} are where they were");
            let moved = first.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) > 1).count();
            assert!(count < 1000 || moved as u64 > count * 9 / 10, "{count}: {moved}");
        }
    }
}
