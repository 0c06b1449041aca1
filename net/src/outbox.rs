//! What waits to be sent on a data connection: transfers cut into pieces that take turns.

use std::{collections::VecDeque, task::Waker, time::Instant};

use bytes::Bytes;
use orion_proto::{
    Payload,
    session::{Frame, Piece},
};

use crate::{FRAME_BYTES, PIECE_OVERHEAD, WINDOW_BYTES, throughput::Throughput};

/// No piece is cut smaller than this for the sake of fairness.
const FAIR_BYTES: usize = 4 * 1024;
/// Room left in a frame for its own fields.
const FRAME_FIELDS: usize = 16;

/// The sending side of a data connection.
///
/// Transfers take turns, so that a small one never waits for a large one to end; nothing is sent beyond the credit that
/// the receiver gave.
#[derive(Debug)]
pub struct Outbox {
    queue: VecDeque<Outgoing>,
    next_transfer: u64,
    credit: u64,
    grant: u64,
    closed: bool,
    waker: Option<Waker>,
    throughput: Throughput,
}

#[derive(Debug)]
struct Outgoing {
    transfer: u64,
    header_bytes: u64,
    payload_bytes: u64,
    started: bool,
    header: Bytes,
    payload: VecDeque<Bytes>,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            next_transfer: 1,
            credit: WINDOW_BYTES,
            grant: 0,
            closed: false,
            waker: None,
            throughput: Throughput::default(),
        }
    }
}

impl Outbox {
    /// Queues a transfer.
    pub fn push(&mut self, header: Bytes, payload: impl IntoIterator<Item = Payload>) {
        let payload: VecDeque<Bytes> =
            payload.into_iter().flat_map(|p| p.pieces().to_vec()).filter(|piece| !piece.is_empty()).collect();
        self.queue.push_back(Outgoing {
            transfer: self.next_transfer,
            header_bytes: header.len() as u64,
            payload_bytes: payload.iter().map(|piece| piece.len() as u64).sum(),
            started: false,
            header,
            payload,
        });
        self.next_transfer += 1;
        self.wake();
    }

    /// The other side may take this many bytes more of ours.
    pub fn add_credit(&mut self, now: Instant, bytes: u64) {
        if bytes > 0 {
            self.throughput.granted(now, bytes, !self.queue.is_empty());
            self.credit = self.credit.saturating_add(bytes);
            self.wake();
        }
    }

    /// Tells the other side, with the next frame, that it may send this many bytes more.
    pub fn grant(&mut self, bytes: u64) {
        self.grant += bytes;
        // Half a window: credit frames stay rare, and the sender never runs dry waiting for one.
        if self.grant >= WINDOW_BYTES / 4 {
            self.wake();
        }
    }

    /// What the connection carried lately, bytes a second, while more waited than could go; none: it was not busy yet.
    pub fn bytes_per_second(&self, now: Instant) -> Option<f64> {
        self.throughput.bytes_per_second(now)
    }

    /// Nothing more is sent.
    pub fn close(&mut self) {
        self.closed = true;
        self.queue.clear();
        self.wake();
    }

    /// Whether [`Outbox::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Called when there may be something to send again.
    pub fn set_waker(&mut self, waker: &Waker) {
        if !self.waker.as_ref().is_some_and(|old| old.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// The next frame, if there is something to say and the credit for it.
    pub fn next_frame(&mut self) -> Option<Frame> {
        let mut room = FRAME_BYTES - FRAME_FIELDS;
        let fair = (room / self.queue.len().max(1)).max(FAIR_BYTES);
        let mut pieces = Vec::new();
        while room > PIECE_OVERHEAD && self.credit > PIECE_OVERHEAD as u64 {
            let Some(mut outgoing) = self.queue.pop_front() else { break };
            let allowed = room.min(usize::try_from(self.credit).unwrap_or(usize::MAX)).min(fair + PIECE_OVERHEAD);
            let piece = outgoing.cut(allowed - PIECE_OVERHEAD);
            let cost = piece_cost(&piece);
            room -= cost.min(room);
            self.credit -= (cost as u64).min(self.credit);
            pieces.push(piece);
            if !outgoing.is_done() {
                self.queue.push_back(outgoing);
            }
        }
        if self.queue.is_empty() {
            self.throughput.ran_dry();
        }
        if pieces.is_empty() && self.grant < WINDOW_BYTES / 4 {
            return None;
        }
        Some(Frame { pieces, credit: std::mem::take(&mut self.grant) })
    }
}

/// What a piece costs of a frame's room and of the credit, in bytes.
pub(crate) fn piece_cost(piece: &Piece) -> usize {
    piece.header.len() + piece.payload.len() + PIECE_OVERHEAD
}

impl Outgoing {
    /// The next piece, of at most `limit` bytes; its payload is a slice of what was queued.
    fn cut(&mut self, limit: usize) -> Piece {
        let mut piece = Piece { transfer: self.transfer, ..Default::default() };
        if !self.started {
            self.started = true;
            piece.header_bytes = self.header_bytes;
            piece.payload_bytes = self.payload_bytes;
        }
        piece.header = self.header.split_to(limit.min(self.header.len()));
        let left = limit - piece.header.len();
        if left > 0
            && let Some(front) = self.payload.front_mut()
        {
            piece.payload = front.split_to(left.min(front.len()));
            if front.is_empty() {
                self.payload.pop_front();
            }
        }
        piece
    }

    fn is_done(&self) -> bool {
        self.header.is_empty() && self.payload.is_empty()
    }
}
