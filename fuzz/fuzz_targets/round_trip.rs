//! Any bytes come back as they were, from every codec and as a difference from any other bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use orion_fuzz::{Input, decoded, repeated};
use orion_net::codec::{Codec, Coder, choose};

/// Stands before what is encoded and must stay.
const BEFORE: &[u8] = b"before";
const MOST_BYTES: usize = 1 << 16;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let (way, element, times) = (usize::from(input.byte()) % 8, input.element(), 1 + usize::from(input.byte()));
    let (mut coder, mut out) = (Coder::default(), BEFORE.to_vec());
    let Some(codec) = Codec::ALL.get(way).copied() else {
        let (base, raw) = input.0.split_at(input.0.len() / 2);
        let raw = &raw[..base.len()];
        let length = (raw.len() * times).min(MOST_BYTES);
        let (base, raw) = (repeated(base, length), repeated(raw, length));
        assert_eq!(coder.encode_difference(element, &base, &raw, &mut out), Ok(()));
        let encoded = out.strip_prefix(BEFORE).expect("what was there stays");
        assert_eq!(encoded == [0], base == raw);
        let back = decoded(length, usize::MAX, |coder, raw| coder.decode_difference(element, &base, encoded, raw));
        assert!(back == Ok(raw), "{element:?}: a difference gives something else");
        return;
    };
    let raw = repeated(input.0, (input.0.len() * times).min(MOST_BYTES));
    choose(element, &raw);
    coder.encode(codec, element, &raw, &mut out).expect("memory is there");
    let encoded = out.strip_prefix(BEFORE).expect("what was there stays");
    let back = decoded(raw.len(), usize::MAX, |coder, raw| coder.decode(codec, element, encoded, raw));
    assert!(back == Ok(raw), "{codec}, {element:?}: something else comes back");
});
