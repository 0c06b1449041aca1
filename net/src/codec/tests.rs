use proptest::prelude::*;

use super::*;

const ELEMENTS: [Element; 4] = [Element::Bytes, Element::Bf16, Element::F16, Element::F32];

fn element() -> impl Strategy<Value = Element> {
    prop::sample::select(&ELEMENTS[..])
}

/// Numbers around zero as trained weights are: exponents of few values, mantissas of any.
fn weights(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        // xorshift64 (Marsaglia, 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u32 << 24) as f32 - 0.5
    };
    (0..count).flat_map(|_| ((next() + next() + next()) * 0.1).to_le_bytes()).collect()
}

/// Bytes as chunks have them: few values, runs, weights of any width, noise.
fn chunk() -> impl Strategy<Value = Vec<u8>> {
    let few = (prop::collection::vec(any::<u8>(), 1..40), prop::collection::vec(any::<prop::sample::Index>(), 0..3000));
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..600),
        few.prop_map(|(values, at)| at.iter().map(|at| *at.get(&values)).collect()),
        (any::<u8>(), 0usize..70_000).prop_map(|(value, count)| vec![value; count]),
        (any::<u64>(), 0usize..40_000).prop_map(|(seed, count)| weights(seed, count)),
        (prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..300), 1usize..70_000).prop_map(sparse),
        // Each value half as often as the one before: the longest codes.
        (9u32..17).prop_map(|depth| (0..depth).flat_map(|at| vec![at as u8; 1 << (depth - at)]).collect()),
    ]
}

/// Zeros but for some.
fn sparse((others, count): (Vec<(prop::sample::Index, u8)>, usize)) -> Vec<u8> {
    let mut bytes = vec![0; count];
    others.iter().for_each(|(at, value)| *at.get_mut(&mut bytes) = *value);
    bytes
}

/// Two versions of a chunk: some bytes changed by little, all numbers by little, or nothing alike.
fn versions() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..300);
    prop_oneof![
        (chunk(), changes, 0u8..3).prop_map(|(base, changes, least)| {
            let mut raw = base.clone();
            if !raw.is_empty() {
                changes.iter().for_each(|(at, by)| *at.get_mut(&mut raw) ^= by >> (least * 3));
            }
            (base, raw)
        }),
        (any::<u64>(), 0usize..40_000, 0.0f32..0.01).prop_map(|(seed, count, step)| trained(seed, count, step)),
        (chunk(), chunk()).prop_map(|(base, raw)| {
            let both = base.len().min(raw.len());
            (base[..both].to_vec(), raw[..both].to_vec())
        }),
    ]
}

/// Weights, and the same after so large a step, up or down.
fn trained(seed: u64, count: usize, step: f32) -> (Vec<u8>, Vec<u8>) {
    let number = |bytes: &[u8; 4]| f32::from_le_bytes(*bytes);
    let (base, steps) = (weights(seed, count), weights(!seed, count));
    let pairs = base.as_chunks().0.iter().zip(steps.as_chunks().0);
    let raw = pairs.flat_map(|(base, by)| (number(base) + step * number(by)).to_le_bytes()).collect();
    (base, raw)
}

fn difference(element: Element, base: &[u8], raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Coder::default().encode_difference(element, base, raw, &mut out).unwrap();
    out
}

fn encoded(codec: Codec, element: Element, raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Coder::default().encode(codec, element, raw, &mut out).unwrap();
    out
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(raw in chunk(), element in element()) {
        for codec in Codec::ALL {
            let bytes = encoded(codec, element, &raw);
            let mut got = vec![0xa5; raw.len()];
            prop_assert_eq!(Coder::default().decode(codec, element, &bytes, &mut got), Ok(()), "{}", codec);
            prop_assert!(got == raw, "{codec} {element:?}");
            // Of another length it is no chunk; our own has no length, which the manifest tells.
            let mut longer = vec![0; raw.len() + 1];
            let refused = Coder::default().decode(codec, element, &bytes, &mut longer).is_err();
            prop_assert!(refused || codec == Codec::Weights, "{}", codec);
        }
    }

    #[test]
    fn raw_bytes_take_little_more_in_our_own_codec(raw in chunk(), element in element()) {
        prop_assert!(encoded(Codec::Weights, element, &raw).len() <= raw.len() + element.width());
    }

    #[test]
    fn bytes_that_were_changed_are_refused_or_decoded_to_as_many(
        raw in chunk(),
        element in element(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        cut in any::<prop::sample::Index>(),
    ) {
        for codec in Codec::ALL {
            let mut bytes = encoded(codec, element, &raw);
            if !bytes.is_empty() {
                // Most often where the kinds of planes and the lengths of codes are.
                let head = bytes.len().min(200);
                changes.iter().for_each(|(at, value)| bytes[at.index(head)] = *value);
                changes.iter().take(1).for_each(|(at, value)| *at.get_mut(&mut bytes) = *value);
            }
            let mut got = vec![0; raw.len()];
            let _ = Coder::default().decode(codec, element, &bytes, &mut got);
            let end = if bytes.is_empty() { 0 } else { cut.index(bytes.len()) };
            let _ = Coder::default().decode(codec, element, &bytes[..end], &mut got);
        }
    }

    #[test]
    fn any_bytes_are_refused_or_decoded(bytes in prop::collection::vec(any::<u8>(), 0..400), element in element(), length in 0usize..4000) {
        let mut raw = vec![0; length];
        for codec in Codec::ALL {
            let _ = Coder::default().decode(codec, element, &bytes, &mut raw);
        }
    }
}

proptest! {
    #[test]
    fn a_difference_and_its_base_are_the_chunk((base, raw) in versions(), element in element()) {
        let bytes = difference(element, &base, &raw);
        prop_assert!(bytes.len() <= raw.len() + element.width() + 1, "{} of {}", bytes.len(), raw.len());
        let mut got = vec![0xa5; raw.len()];
        prop_assert_eq!(Coder::default().decode_difference(element, &base, &bytes, &mut got), Ok(()));
        prop_assert!(got == raw, "{element:?}");
        // What more follows does not belong to it.
        let more = [&bytes[..], &[0]].concat();
        let refused = Coder::default().decode_difference(element, &base, &more, &mut got);
        prop_assert!(refused.is_err());
    }

    #[test]
    fn differences_that_were_changed_are_refused_or_decoded_to_as_many(
        (base, raw) in versions(),
        element in element(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = difference(element, &base, &raw);
        let mut got = vec![0; raw.len()];
        let mut coder = Coder::default();
        let _ = coder.decode_difference(element, &base, &bytes[..cut.index(bytes.len())], &mut got);
        // Of another base it is another chunk.
        let other: Vec<u8> = base.iter().rev().copied().collect();
        let _ = coder.decode_difference(element, &other, &bytes, &mut got);
        let head = bytes.len().min(100);
        changes.iter().for_each(|(at, value)| bytes[at.index(head)] = *value);
        let _ = coder.decode_difference(element, &base, &bytes, &mut got);
        changes.iter().for_each(|(at, value)| *at.get_mut(&mut bytes) = *value);
        bytes[0] = 1;
        let _ = coder.decode_difference(element, &base, &bytes, &mut got);
    }

    #[test]
    fn any_bytes_are_refused_or_decoded_as_a_difference(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        kind in 0u8..4,
        element in element(),
        length in 0usize..4000,
    ) {
        let (base, mut raw) = (vec![7; length], vec![0; length]);
        let _ = Coder::default().decode_difference(element, &base, &bytes, &mut raw);
        let _ = Coder::default().decode_difference(element, &base, &[&[kind], &bytes[..]].concat(), &mut raw);
    }
}

#[test]
fn a_difference_takes_what_has_changed() {
    let (base, raw) = trained(3, 60_000, 1e-6);
    assert_eq!(difference(Element::F32, &base, &base), [0]);
    // By some numbers each, of which the smallest move most.
    let all = difference(Element::F32, &base, &raw).len();
    assert!(all < raw.len() / 4, "{all} of {}", raw.len());
    // A tenth of the numbers lie together.
    let some = [&base[..100_000], &raw[100_000..124_000], &base[124_000..]].concat();
    let less = difference(Element::F32, &base, &some).len();
    assert!(less < all / 8, "{less} of {all}");
    // As whole numbers of so many bytes they have no classes.
    let bytes = difference(Element::Bytes, &base, &raw).len();
    assert!(all < bytes && bytes < raw.len() / 2, "{all}, {bytes}");
}

#[test]
fn only_an_unfinished_number_may_have_changed() {
    let (base, mut raw) = ([3; 4003], [3; 4003]);
    raw[4002] = 4;
    let (bytes, mut got) = (difference(Element::F32, &base, &raw), [0; 4003]);
    assert!(bytes.len() < 100, "{}", bytes.len());
    assert_eq!(Coder::default().decode_difference(Element::F32, &base, &bytes, &mut got), Ok(()));
    assert_eq!(got, raw);
}

#[test]
fn a_base_of_another_length_is_refused() {
    let (mut out, mut raw) = (vec![9], [0; 8]);
    let mut coder = Coder::default();
    assert_eq!(coder.encode_difference(Element::F32, &[0; 7], &raw, &mut out), Err(Corrupt::Base(7, 8)));
    assert_eq!(out, [9]);
    assert_eq!(coder.decode_difference(Element::F32, &[0; 9], &[0], &mut raw), Err(Corrupt::Base(9, 8)));
    assert_eq!(coder.decode_difference(Element::F32, &[0; 8], &[3], &mut raw), Err(Corrupt::Difference(3)));
    assert_eq!(coder.decode_difference(Element::F32, &[0; 8], &[0, 0], &mut raw), Err(Corrupt::Long(1)));
    assert_eq!(coder.decode_difference(Element::F32, &[0; 8], &[], &mut raw), Err(Corrupt::Short));
}

#[test]
fn a_plane_of_zeros_but_for_some_takes_less_than_a_bit_of_each() {
    let raw: Vec<u8> = (0..80_000u32).map(|at| if at % 37 == 0 { at as u8 } else { 0 }).collect();
    let bytes = encoded(Codec::Weights, Element::Bytes, &raw).len();
    assert!(bytes < raw.len() / 16, "{bytes}");
}

#[test]
fn a_chunk_that_ends_early_or_goes_on_is_refused() {
    let raw = weights(7, 20_000);
    let bytes = encoded(Codec::Weights, Element::F32, &raw);
    assert!(bytes.len() < raw.len() * 9 / 10, "{} of {}", bytes.len(), raw.len());
    let mut got = vec![0; raw.len()];
    let mut decode = |bytes: &[u8]| Coder::default().decode(Codec::Weights, Element::F32, bytes, &mut got);
    assert_eq!(decode(&bytes), Ok(()));
    for end in [0, 1, 40, bytes.len() / 2, bytes.len() - 1] {
        assert_eq!(decode(&bytes[..end]), Err(Corrupt::Short), "{end} bytes");
    }
    assert_eq!(decode(&[&bytes[..], &[0]].concat()), Err(Corrupt::Long(1)));
    assert_eq!(decode(&[&[4], &bytes[1..]].concat()), Err(Corrupt::Plane(4)));
    // A length of a code that leaves bits without a symbol would be looked up for ever.
    let mut broken = bytes.clone();
    broken[33] = 0;
    assert_eq!(decode(&broken), Err(Corrupt::Code));
}

#[test]
fn a_window_of_a_gigabyte_is_refused() {
    // Not in RFC 7932: the bits that say so, a window of 2^30 bytes, the end.
    let decode = |bytes: &[u8]| Coder::default().decode(Codec::Brotli, Element::Bytes, bytes, &mut []);
    assert_eq!(decode(&[0x11, 0xde]), Err(Corrupt::Library("its window is larger than 16 MiB".into())));
    assert_eq!(decode(&encoded(Codec::Brotli, Element::Bytes, &[])), Ok(()));
}

#[test]
fn a_codec_is_called_by_its_name() {
    for codec in Codec::ALL {
        assert_eq!(codec.to_string().parse(), Ok(codec));
    }
    assert_eq!("snappy".parse::<Codec>(), Err("one of none, gzip, deflate, brotli, lz4, zstd, weights".into()));
}
