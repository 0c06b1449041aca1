//! A typical request for warm-up.

use bytes::Bytes;

/// Seven seconds of speech, 25 tokens: silence or a tone would be written in four, and warm-up would tell of a decoder that
/// costs nothing. A sentence of "Sense and Sensibility" as read for LibriVox, in the public domain, in Ogg Vorbis.
pub(super) fn speech() -> Bytes {
    Bytes::from_static(include_bytes!("sample.ogg"))
}
