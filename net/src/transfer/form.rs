//! In which form a chunk is asked for: the one that is predicted to be here soonest.

use orion_proto::peer as wire;

use crate::artifact::{Form, Piece};

/// What is known of the way of a chunk, in bytes a second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rates {
    /// Of the link; none: not measured yet.
    pub(super) link: Option<f64>,
    /// At which chunks are decoded, on all threads; none: not measured yet.
    pub(super) decode: Option<f64>,
}

/// The form of a chunk that takes the fewest seconds, sending and decoding being done at once. Before anything is measured,
/// the shortest.
pub(super) fn choose(piece: &Piece, has_base: bool, rates: Rates) -> Form {
    let raw = f64::from(piece.chunk.bytes);
    let seconds = |form: Form| {
        let (bytes, _) = piece.wire(form)?;
        let sent = f64::from(bytes) / rates.link.unwrap_or(1.0).max(1.0);
        let decoded = match (form, rates.decode, rates.link) {
            (Form::Encoded | Form::Difference, Some(decode), Some(_)) => raw / decode.max(1.0),
            _ => 0.0,
        };
        Some((form, sent.max(decoded)))
    };
    let forms = [Form::Difference, Form::Encoded, Form::Raw].into_iter();
    let known = forms.filter(|form| has_base || *form != Form::Difference).filter_map(seconds);
    known.min_by(|one, other| one.1.total_cmp(&other.1)).map_or(Form::Raw, |(form, _)| form)
}

pub(super) fn form_to_wire(form: Form) -> wire::Form {
    match form {
        Form::Raw => wire::Form::Raw,
        Form::Encoded => wire::Form::Encoded,
        Form::Difference => wire::Form::Difference,
    }
}

pub(super) fn form_from_wire(form: i32) -> Option<Form> {
    match wire::Form::try_from(form).ok()? {
        wire::Form::Raw => Some(Form::Raw),
        wire::Form::Encoded => Some(Form::Encoded),
        wire::Form::Difference => Some(Form::Difference),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        artifact::{Chunk, Difference, Encoded},
        codec::{Codec, Element},
    };

    #[test]
    fn a_link_that_is_faster_than_decoding_carries_bytes_as_they_are() {
        let hash = blake3::hash(b"");
        let chunk = Chunk {
            bytes: 1_000_000,
            address: hash,
            element: Element::Bf16,
            encoded: Some(Encoded { codec: Codec::Weights, bytes: 660_000, hash }),
            difference: Some(Difference { base: hash, bytes: 100_000, hash }),
        };
        let piece = Piece { chunk, places: vec![], encoded_at: 0, difference_at: 0 };
        let rates = |link: f64| Rates { link: Some(link), decode: Some(4e9) };
        assert_eq!(choose(&piece, true, Rates::default()), Form::Difference);
        assert_eq!(choose(&piece, false, Rates::default()), Form::Encoded);
        assert_eq!(choose(&piece, true, rates(125e6)), Form::Difference);
        assert_eq!(choose(&piece, false, rates(1.25e9)), Form::Encoded);
        assert_eq!(choose(&piece, false, rates(10e9)), Form::Raw);
        let slow = Rates { link: Some(125e6), decode: Some(50e6) };
        assert_eq!(choose(&piece, true, slow), Form::Raw);
    }
}
