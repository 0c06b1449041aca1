//! A difference from a peer, and a base that is part of the input: decoding returns, and writes and allocates no more than
//! was declared; what it gives can be told as a difference again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use orion_fuzz::{Input, decoded, repeated};
use orion_net::codec::{Coder, Corrupt};

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let (element, length, other) = (input.element(), input.length(), input.length());
    let (pattern, encoded) = input.0.split_at(other.min(input.0.len()));
    // The highest bit of the second length: a base that is too short.
    let base = repeated(pattern, length.saturating_sub(other >> 15));
    let result =
        decoded(length, (1 << 20) + 4 * length, |coder, raw| coder.decode_difference(element, &base, encoded, raw));
    if base.len() != length {
        assert_eq!(result, Err(Corrupt::Base(base.len(), length)));
    }
    let Ok(raw) = result else { return };
    let (mut coder, mut out) = (Coder::default(), Vec::new());
    assert_eq!(coder.encode_difference(element, &base, &raw, &mut out), Ok(()));
    let again = decoded(length, usize::MAX, |coder, raw| coder.decode_difference(element, &base, &out, raw));
    assert!(again == Ok(raw), "{element:?}: its own difference gives something else");
});
