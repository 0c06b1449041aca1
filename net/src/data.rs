//! The two pumps of a data connection: outbox to stream, stream to inbox. Any carrier of frames will do.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use futures::{Stream, StreamExt};
use orion_proto::session::Frame;
use parking_lot::Mutex;

use crate::{FrameError, Inbox, Outbox, Transfer};

/// The frames of an outbox, until it is closed.
#[derive(Debug)]
pub struct FrameStream(pub Arc<Mutex<Outbox>>);

impl Stream for FrameStream {
    type Item = Frame;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Frame>> {
        let mut outbox = self.0.lock();
        if outbox.is_closed() {
            return Poll::Ready(None);
        }
        match outbox.next_frame() {
            Some(frame) => Poll::Ready(Some(frame)),
            None => {
                outbox.set_waker(context.waker());
                Poll::Pending
            }
        }
    }
}

/// Takes frames until the stream ends, granting credit through `outbox`; calls `deliver` once a frame, with the
/// transfers that it completed.
///
/// # Errors
/// Why the stream ended: the carrier's error, a frame that breaks the protocol, or what `deliver` refused.
pub async fn receive<S, E>(
    mut frames: S,
    outbox: &Mutex<Outbox>,
    transfer_limit: u64,
    mut deliver: impl FnMut(&mut Vec<Transfer>) -> Result<(), String>,
) -> Result<(), String>
where
    S: Stream<Item = Result<Frame, E>> + Unpin,
    E: std::fmt::Display,
{
    let mut inbox = Inbox::new(transfer_limit);
    let mut done = Vec::new();
    while let Some(frame) = frames.next().await {
        let frame = frame.map_err(|error| error.to_string())?;
        let mut granted = 0;
        for piece in frame.pieces {
            let (transfer, credit) = inbox.accept(piece).map_err(|error: FrameError| error.to_string())?;
            granted += credit;
            done.extend(transfer);
        }
        {
            let mut outbox = outbox.lock();
            outbox.add_credit(Instant::now(), frame.credit);
            outbox.grant(granted);
        }
        deliver(&mut done)?;
        done.clear();
    }
    Ok(())
}
