//! What both ends of a connection between nodes keep to.

use std::time::Duration;

use bytes::Bytes;
use tonic::transport::Endpoint;

/// Without it a cut would hang for minutes.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// What may wait unread at a receiver: as much as a sender's window may grow.
pub(super) const STREAM_BYTES: u32 = 128 << 20;
/// Bytes of a message.
pub(super) const MESSAGE_BYTES: usize = 256 * 1024;
/// Bytes of a manifest in one message.
const PART_BYTES: usize = 128 * 1024;

/// A connection is tried for so long.
const CONNECT: Duration = Duration::from_secs(5);

/// How this node connects to another, or to its scheduler's relay; so many bytes may wait unread at this end.
pub(super) fn tuned(endpoint: Endpoint, window: u32) -> Endpoint {
    endpoint
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .initial_stream_window_size(window)
        .initial_connection_window_size(window)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
}

/// A manifest as it is sent.
pub(super) fn parts(manifest: &Bytes) -> impl Iterator<Item = Bytes> + '_ {
    let starts = (0..manifest.len()).step_by(PART_BYTES);
    starts.map(|at| manifest.slice(at..manifest.len().min(at + PART_BYTES)))
}
