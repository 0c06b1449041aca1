//! Memory for messages that are still arriving: one budget for all connections together.
//!
//! What was admitted is counted by the core. Without this, a client could open streams and send each all but its last
//! byte, and the server would hold every one.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::Frame;
use orion_proto::{Code, Error, Result};
use tonic::{Status, body::Body};
use tower_layer::Layer;
use tower_service::Service;

/// How long a message that has begun may stand still.
pub(super) const STALL: Duration = Duration::from_secs(30);

/// Bytes that may be on their way in at once.
#[derive(Clone, Debug)]
pub struct Budget {
    held: Arc<AtomicUsize>,
    limit: usize,
}

/// A part of the budget, given back when dropped.
#[derive(Debug)]
pub(super) struct Held {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(limit: usize) -> Self {
        Self { held: Arc::default(), limit }
    }

    /// Nothing of it yet.
    pub(super) fn hold(&self) -> Held {
        Held { budget: self.clone(), bytes: 0 }
    }
}

impl Held {
    /// Takes more.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED when the budget is spent.
    pub(super) fn add(&mut self, bytes: usize) -> Result<()> {
        self.bytes += bytes;
        let before = self.budget.held.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) <= self.budget.limit {
            return Ok(());
        }
        let text = format!("messages of {} bytes are arriving at once, no more are taken", self.budget.limit);
        Err(Error::new(Code::ResourceExhausted, text).retry_after(Duration::from_secs(1)))
    }

    fn release(&mut self) {
        self.budget.held.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release();
    }
}

/// Lays the budget over a tonic server.
#[derive(Clone, Debug)]
pub struct BudgetLayer(pub Budget);

/// A service whose request bodies are counted.
#[derive(Clone, Debug)]
pub struct Budgeted<S> {
    budget: Budget,
    inner: S,
}

impl<S> Layer<S> for BudgetLayer {
    type Service = Budgeted<S>;

    fn layer(&self, inner: S) -> Budgeted<S> {
        Budgeted { budget: self.0.clone(), inner }
    }
}

impl<S: Service<http::Request<Body>>> Service<http::Request<Body>> for Budgeted<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<std::result::Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> S::Future {
        let held = self.budget.hold();
        self.inner
            .call(request.map(|inner| Body::new(Receiving { inner, held, message: Message::default(), stall: None })))
    }
}

/// Where in a gRPC message (five bytes of prefix, then its length) the next byte falls.
#[derive(Debug, Default)]
struct Message {
    prefix: Vec<u8>,
    left: usize,
}

impl Message {
    /// Takes a piece; says how many of its bytes belong to a message that has not ended.
    fn take(&mut self, mut piece: &[u8]) -> usize {
        let mut open = 0;
        while !piece.is_empty() {
            if self.left == 0 {
                let wanted = (5 - self.prefix.len()).min(piece.len());
                self.prefix.extend_from_slice(&piece[..wanted]);
                (piece, open) = (&piece[wanted..], open + wanted);
                let Ok([_, a, b, c, d]) = <[u8; 5]>::try_from(self.prefix.as_slice()) else { continue };
                self.prefix.clear();
                self.left = u32::from_be_bytes([a, b, c, d]) as usize;
            }
            let part = self.left.min(piece.len());
            self.left -= part;
            piece = &piece[part..];
            open = if self.left == 0 { 0 } else { open + part };
        }
        open
    }

    fn is_open(&self) -> bool {
        self.left > 0 || !self.prefix.is_empty()
    }
}

/// A request body on its way in.
struct Receiving {
    inner: Body,
    held: Held,
    message: Message,
    stall: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl http_body::Body for Receiving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(context) {
            this.stall = None;
            if let Some(Ok(piece)) = &frame
                && let Some(data) = piece.data_ref()
            {
                let open = this.message.take(data);
                if !this.message.is_open() || open < data.len() {
                    this.held.release();
                }
                if let Err(error) = this.held.add(open) {
                    return Poll::Ready(Some(Err(error.into())));
                }
            }
            return Poll::Ready(frame);
        }
        if !this.message.is_open() {
            return Poll::Pending;
        }
        let stall = this.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep(STALL)));
        ready!(stall.as_mut().poll(context));
        let text = format!("the message stood still for {} s", STALL.as_secs());
        Poll::Ready(Some(Err(Error::new(Code::DeadlineExceeded, text).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_come_of_an_open_message_is_held_however_it_is_cut() {
        let mut bytes = Vec::new();
        for length in [3u32, 0, 70_000, 1] {
            bytes.push(0);
            bytes.extend(length.to_be_bytes());
            bytes.resize(bytes.len() + length as usize, 7);
        }
        for cut in [1, 2, 5, 7, 4096, 100_000] {
            let mut message = Message::default();
            let mut held = 0;
            for piece in bytes.chunks(cut) {
                let open = message.take(piece);
                held = if open < piece.len() { open } else { held + open };
                assert!(held <= 70_005 && (held > 0) == message.is_open(), "cut {cut}");
            }
            assert_eq!(held, 0, "cut {cut}");
        }
    }

    #[test]
    fn a_spent_budget_refuses_and_a_drop_gives_back() {
        let budget = Budget::new(100);
        let (mut one, mut two) = (budget.hold(), budget.hold());
        one.add(60).unwrap();
        assert!(two.add(60).is_err_and(|error| error.code == Code::ResourceExhausted));
        drop((one, two));
        assert!(budget.hold().add(100).is_ok());
    }
}
