//! A chunk from a peer, in any codec: decoding returns, and writes and allocates no more than was declared.
#![no_main]

use libfuzzer_sys::fuzz_target;
use orion_fuzz::{Input, decoded};
use orion_net::codec::Codec;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let codec = Codec::ALL[usize::from(input.byte()) % Codec::ALL.len()];
    let (element, length) = (input.element(), input.length());
    // The largest window of RFC 7932 is 16 MiB.
    let fixed = if codec == Codec::Brotli { 20 << 20 } else { 1 << 20 };
    let result = decoded(length, fixed + 4 * length, |coder, raw| coder.decode(codec, element, input.0, raw));
    if codec == Codec::None {
        assert_eq!(result.is_ok(), input.0.len() == length);
    }
});
