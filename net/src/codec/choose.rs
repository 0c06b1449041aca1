//! Which codec a chunk is worth.

use super::{Codec, Element};

/// Bytes that are looked at, in as many places.
const SAMPLE_BYTES: usize = 1024;
const SAMPLES: usize = 8;
/// Bits that a byte must take less than eight, on average, for a compression to be tried.
const LEAST_SAVED_BITS: f64 = 0.3;

/// The codec for a chunk of such numbers, by the entropy of samples of it. Weights are always tried in our own, which looks at
/// samples of each of their planes.
pub fn choose(element: Element, raw: &[u8]) -> Codec {
    match element {
        Element::Bf16 | Element::F16 | Element::F32 => Codec::Weights,
        Element::Bytes if sampled_bits(raw) > 8.0 - LEAST_SAVED_BITS => Codec::None,
        Element::Bytes => Codec::Zstd,
    }
}

/// The entropy of order zero of samples of some bytes, in bits a byte.
fn sampled_bits(raw: &[u8]) -> f64 {
    let mut counts = [0u32; 256];
    let stride = (raw.len() / SAMPLES).max(SAMPLE_BYTES);
    for sample in raw.chunks(stride).map(|part| &part[..part.len().min(SAMPLE_BYTES)]) {
        sample.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
    }
    let total: f64 = counts.iter().copied().map(f64::from).sum();
    let bits = |count: f64| -count * (count / total).log2();
    let seen = counts.iter().copied().filter(|count| *count > 0);
    // A sample of n random bytes seems to have a little less than eight bits: 255 / (2 n ln 2).
    let bias = 255.0 / (2.0 * total.max(1.0) * std::f64::consts::LN_2);
    seen.map(f64::from).map(bits).sum::<f64>() / total.max(1.0) + bias.min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_as_good_as_random_is_left_as_it_is() {
        let mut state = 1u64;
        let random: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .take(100_000)
        .collect();
        assert_eq!(choose(Element::Bytes, &random), Codec::None);
        assert_eq!(choose(Element::Bytes, &b"a text that says something ".repeat(1000)), Codec::Zstd);
        assert_eq!(choose(Element::F32, &random), Codec::Weights);
        assert_eq!(choose(Element::Bytes, &[]), Codec::Zstd);
    }
}
