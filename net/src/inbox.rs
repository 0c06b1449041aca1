//! What arrives on a data connection: pieces put together into transfers, without copying payloads.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use orion_proto::{Payload, session::Piece};

use crate::outbox::piece_cost;

/// Transfers that may be under way at once: no honest sender interleaves more within a window.
const OPEN_TRANSFERS: usize = 64 * 1024;
/// Bytes held in open transfers, beside one of the largest; more is an attack, not work.
const OPEN_BYTES: u64 = 2 << 30;

/// A whole transfer.
#[derive(Clone, Debug, PartialEq)]
pub struct Transfer {
    /// What it is, encoded.
    pub header: Bytes,
    /// The tensors' bytes, in the pieces in which they came.
    pub payload: Payload,
}

/// A frame that breaks the protocol; the session must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the message says it
pub enum FrameError {
    #[error("a transfer declares {declared} bytes, at most {limit} are taken")]
    TooLarge { declared: u64, limit: u64 },
    #[error("transfer {0} has a piece before its first")]
    Unknown(u64),
    #[error("transfer {0} holds more bytes than it declared")]
    Overrun(u64),
    #[error("more transfers are open at once than can be held")]
    TooMany,
}

/// The receiving side of a data connection.
#[derive(Debug)]
pub struct Inbox {
    open: HashMap<u64, Incoming>,
    limit: u64,
    /// Bytes held in open transfers.
    held: u64,
}

#[derive(Debug)]
struct Incoming {
    header_bytes: u64,
    payload_bytes: u64,
    header: BytesMut,
    payload: Payload,
}

impl Inbox {
    /// An inbox that takes transfers of at most `limit` bytes of payload, and as many of header: parameters and prompts are in
    /// that, and one request that is too long for it would end the session, with all that others have there.
    pub fn new(limit: u64) -> Self {
        Self { open: HashMap::new(), limit, held: 0 }
    }

    /// Takes one piece; gives the transfer that it completes, and the credit to grant for it.
    ///
    /// # Errors
    /// [`FrameError`] when the piece breaks the protocol.
    pub fn accept(&mut self, piece: Piece) -> Result<(Option<Transfer>, u64), FrameError> {
        // Granted at once: what bounds the memory is how much work is booked, not how fast a batch is run.
        let cost = piece_cost(&piece) as u64;
        self.assemble(piece).map(|transfer| (transfer, cost))
    }

    fn assemble(&mut self, piece: Piece) -> Result<Option<Transfer>, FrameError> {
        let id = piece.transfer;
        let first = !self.open.contains_key(&id);
        if first {
            self.check_first(&piece)?;
            // The common case, a transfer in one piece, never touches the map.
            if piece.header.len() as u64 == piece.header_bytes && piece.payload.len() as u64 == piece.payload_bytes {
                return Ok(Some(Transfer { header: piece.header, payload: Payload::from(piece.payload) }));
            }
            let (header_bytes, payload_bytes) = (piece.header_bytes, piece.payload_bytes);
            let empty = Incoming { header_bytes, payload_bytes, header: BytesMut::new(), payload: Payload::default() };
            self.open.insert(id, empty);
        }
        let incoming = self.open.get_mut(&id).ok_or(FrameError::Unknown(id))?;
        incoming.header.extend_from_slice(&piece.header);
        self.held += (piece.payload.len() + piece.header.len()) as u64;
        incoming.payload.push(piece.payload);
        let (header, payload) = (incoming.header.len() as u64, incoming.payload.len() as u64);
        if header > incoming.header_bytes || payload > incoming.payload_bytes {
            return Err(FrameError::Overrun(id));
        }
        if header < incoming.header_bytes || payload < incoming.payload_bytes {
            let full = self.held > self.limit.saturating_add(OPEN_BYTES);
            return if full { Err(FrameError::TooMany) } else { Ok(None) };
        }
        let done = self.open.remove(&id);
        self.held -= payload + header;
        Ok(done.map(|incoming| Transfer { header: incoming.header.freeze(), payload: incoming.payload }))
    }

    fn check_first(&self, piece: &Piece) -> Result<(), FrameError> {
        if piece.header_bytes == 0 {
            return Err(FrameError::Unknown(piece.transfer));
        }
        let (declared, limit) = (piece.header_bytes.max(piece.payload_bytes), self.limit);
        if declared > limit {
            return Err(FrameError::TooLarge { declared, limit });
        }
        if piece.header.len() as u64 > piece.header_bytes || piece.payload.len() as u64 > piece.payload_bytes {
            return Err(FrameError::Overrun(piece.transfer));
        }
        if self.open.len() >= OPEN_TRANSFERS { Err(FrameError::TooMany) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FRAME_BYTES, Outbox, WINDOW_BYTES};
    use orion_proto::session::Frame;
    use proptest::prelude::*;
    use prost::Message;

    fn deliver(frame: Frame, inbox: &mut Inbox, outbox: &mut Outbox) -> Vec<Transfer> {
        assert!(frame.encoded_len() <= FRAME_BYTES, "a frame of {} bytes", frame.encoded_len());
        let mut done = Vec::new();
        for piece in frame.pieces {
            let (transfer, credit) = inbox.accept(piece).unwrap();
            outbox.add_credit(std::time::Instant::now(), credit);
            done.extend(transfer);
        }
        done
    }

    proptest! {
        #[test]
        fn every_transfer_arrives_whole_whatever_is_interleaved(
            sizes in prop::collection::vec((1usize..200_000, prop::collection::vec(0usize..300_000, 0..4)), 1..12),
        ) {
            let (mut outbox, mut inbox) = (Outbox::default(), Inbox::new(1 << 30));
            let mut expected: Vec<(Bytes, Vec<u8>)> = Vec::new();
            for (index, (header, payload)) in sizes.iter().enumerate() {
                let header = Bytes::from(vec![index as u8; *header]);
                let parts: Vec<Payload> = payload.iter().enumerate().map(|(i, n)| Payload::from(vec![i as u8; *n])).collect();
                expected.push((header.clone(), parts.iter().flat_map(|p| p.contiguous().to_vec()).collect()));
                outbox.push(header, parts);
            }
            let mut got = Vec::new();
            while let Some(frame) = outbox.next_frame() {
                got.extend(deliver(frame, &mut inbox, &mut outbox));
            }
            prop_assert_eq!(got.len(), expected.len());
            for transfer in got {
                let pair = (transfer.header, transfer.payload.contiguous().to_vec());
                prop_assert!(expected.contains(&pair));
            }
            prop_assert!(inbox.open.is_empty() && inbox.held == 0);
        }

        #[test]
        fn hostile_pieces_never_panic_nor_reserve(
            pieces in prop::collection::vec((0u64..3, any::<u64>(), 0u64..100, 0usize..50, 0usize..50), 0..20),
        ) {
            let mut inbox = Inbox::new(1024);
            for (transfer, payload_bytes, header_bytes, header, payload) in pieces {
                let piece = Piece {
                    transfer, header_bytes, payload_bytes,
                    header: vec![0; header].into(), payload: vec![0; payload].into(),
                };
                let _ = inbox.accept(piece);
            }
        }
    }

    #[test]
    fn a_small_transfer_overtakes_a_large_one() {
        let (mut outbox, mut inbox) = (Outbox::default(), Inbox::new(1 << 30));
        outbox.push(Bytes::from_static(b"large"), [Payload::from(vec![0; 16 << 20])]);
        assert!(deliver(outbox.next_frame().unwrap(), &mut inbox, &mut outbox).is_empty());
        outbox.push(Bytes::from_static(b"small"), [Payload::from(vec![1; 64])]);
        let frame = outbox.next_frame().unwrap();
        assert_eq!(deliver(frame, &mut inbox, &mut outbox)[0].header.as_ref(), b"small");
    }

    #[test]
    fn nothing_is_sent_beyond_the_credit() {
        let mut outbox = Outbox::default();
        outbox.push(Bytes::from_static(b"h"), [Payload::from(vec![0; 4 << 20])]);
        let sent: usize =
            std::iter::from_fn(|| outbox.next_frame()).flat_map(|f| f.pieces).map(|p| piece_cost(&p)).sum();
        assert!(sent as u64 <= WINDOW_BYTES && sent as u64 > WINDOW_BYTES - FRAME_BYTES as u64, "{sent}");
        outbox.add_credit(std::time::Instant::now(), 1000);
        assert!(outbox.next_frame().is_some_and(|f| f.pieces.len() == 1));
    }

    #[test]
    fn declared_sizes_are_limits() {
        let mut inbox = Inbox::new(1024);
        let piece = |payload_bytes, payload: usize| Piece {
            transfer: 1,
            header_bytes: 1,
            payload_bytes,
            header: Bytes::from_static(b"h"),
            payload: vec![0; payload].into(),
        };
        assert_eq!(inbox.accept(piece(2000, 1)), Err(FrameError::TooLarge { declared: 2000, limit: 1024 }));
        assert_eq!(inbox.accept(piece(10, 11)), Err(FrameError::Overrun(1)));
        assert_eq!(inbox.accept(piece(10, 9)).map(|(t, _)| t), Ok(None));
        let more = Piece { transfer: 1, payload: vec![0; 2].into(), ..Default::default() };
        assert_eq!(inbox.accept(more), Err(FrameError::Overrun(1)));
        let lost = Piece { transfer: 9, payload: vec![0; 2].into(), ..Default::default() };
        assert_eq!(inbox.accept(lost), Err(FrameError::Unknown(9)));
    }
}
