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
        // Each value half as often as the one before: the longest codes.
        (9u32..17).prop_map(|depth| (0..depth).flat_map(|at| vec![at as u8; 1 << (depth - at)]).collect()),
    ]
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
    assert_eq!(decode(&[&[3], &bytes[1..]].concat()), Err(Corrupt::Plane(3)));
    // A length of a code that leaves bits without a symbol would be looked up for ever.
    let mut broken = bytes.clone();
    broken[33] = 0;
    assert_eq!(decode(&broken), Err(Corrupt::Code));
}

#[test]
fn a_codec_is_called_by_its_name() {
    for codec in Codec::ALL {
        assert_eq!(codec.to_string().parse(), Ok(codec));
    }
    assert_eq!("snappy".parse::<Codec>(), Err("one of none, gzip, deflate, brotli, lz4, zstd, weights".into()));
}
