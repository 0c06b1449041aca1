//! Draws that depend on the seed and the position alone, so that whoever goes on with a generation draws the same.

/// A number from 0 to below 1 for a position: SplitMix64 (Steele et al. 2014), its counter set to the position.
pub(super) fn draw(seed: u64, position: u64) -> f64 {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    // The seed is mixed before the position is added, lest one seed's positions be the next one's, shifted.
    let bits = mix(mix(seed.wrapping_add(GOLDEN)).wrapping_add(position.wrapping_mul(GOLDEN)));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_even_and_their_own() {
        let mut tenths = [0u32; 10];
        for seed in 0..100 {
            for position in 0..100 {
                tenths[(draw(seed, position) * 10.0) as usize] += 1;
            }
        }
        assert!(tenths.iter().all(|count| (900..1100).contains(count)), "{tenths:?}");
        assert_eq!(draw(1, 2), draw(1, 2));
        assert!(draw(1, 2) != draw(2, 1) && draw(0, 0) != draw(0, 1) && draw(u64::MAX, u64::MAX) < 1.0);
    }
}
