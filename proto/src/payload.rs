//! A tensor's bytes as they arrived: one piece, or several that nobody has copied together.

use bytes::{Bytes, BytesMut};

/// Bytes in one or more reference-counted pieces.
///
/// A tensor that came in frames keeps the frames' memory, so that carrying it on copies nothing.
#[derive(Clone, Debug)]
pub struct Payload {
    pieces: Pieces,
    len: usize,
}

#[derive(Clone, Debug)]
enum Pieces {
    One(Bytes),
    Many(Vec<Bytes>),
}

impl Default for Payload {
    fn default() -> Self {
        Self::from(Bytes::new())
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self { len: bytes.len(), pieces: Pieces::One(bytes) }
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from(Bytes::from(bytes))
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.pieces().iter().flatten().eq(other.pieces().iter().flatten())
    }
}

impl Payload {
    /// Bytes in all pieces together.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pieces in order.
    pub fn pieces(&self) -> &[Bytes] {
        match &self.pieces {
            Pieces::One(bytes) => std::slice::from_ref(bytes),
            Pieces::Many(pieces) => pieces,
        }
    }

    /// Adds a piece at the end.
    pub fn push(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        if self.len == 0 {
            *self = Self::from(piece);
            return;
        }
        self.len += piece.len();
        match &mut self.pieces {
            Pieces::Many(pieces) => pieces.push(piece),
            Pieces::One(first) => self.pieces = Pieces::Many(vec![std::mem::take(first), piece]),
        }
    }

    /// Cuts the first `count` bytes off, without copying. `None` when there are fewer.
    pub fn split_to(&mut self, count: usize) -> Option<Payload> {
        if count > self.len {
            return None;
        }
        if let Pieces::One(bytes) = &mut self.pieces {
            self.len -= count;
            return Some(Payload::from(bytes.split_to(count)));
        }
        let mut front = Payload::default();
        let mut rest = Payload::default();
        for piece in self.pieces() {
            let wanted = (count - front.len()).min(piece.len());
            front.push(piece.slice(..wanted));
            rest.push(piece.slice(wanted..));
        }
        *self = rest;
        Some(front)
    }

    /// One contiguous run of bytes; copies only when there are several pieces.
    pub fn contiguous(&self) -> Bytes {
        match &self.pieces {
            Pieces::One(bytes) => bytes.clone(),
            Pieces::Many(pieces) => {
                let mut all = BytesMut::with_capacity(self.len);
                pieces.iter().for_each(|piece| all.extend_from_slice(piece));
                all.freeze()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_kept_cut_and_joined() {
        let mut payload = Payload::default();
        for piece in ["ab", "", "cde", "f"] {
            payload.push(Bytes::from_static(piece.as_bytes()));
        }
        assert_eq!(payload.len(), 6);
        assert_eq!(payload.pieces().len(), 3);
        let front = payload.split_to(3);
        assert_eq!(front.map(|f| f.contiguous()), Some(Bytes::from_static(b"abc")));
        assert_eq!(payload.contiguous(), Bytes::from_static(b"def"));
        assert_eq!(payload.split_to(4), None);
        assert_eq!(payload, Payload::from(Bytes::from_static(b"def")));
    }

    #[test]
    fn one_piece_is_never_copied() {
        let bytes = Bytes::from(vec![7u8; 64]);
        let address = bytes.as_ptr();
        let mut payload = Payload::from(bytes);
        let front = payload.split_to(10);
        assert_eq!(front.map(|f| f.contiguous().as_ptr()), Some(address));
    }
}
