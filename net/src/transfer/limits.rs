//! What both ends of a connection between nodes keep to.

use std::time::Duration;

use bytes::Bytes;

/// Without it a cut would hang for minutes.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// What may wait unread at a receiver: as much as a sender's window may grow.
pub(super) const STREAM_BYTES: u32 = 128 << 20;
/// Bytes of a message.
pub(super) const MESSAGE_BYTES: usize = 256 * 1024;
/// Bytes of a manifest in one message.
const PART_BYTES: usize = 128 * 1024;

/// A manifest as it is sent.
pub(super) fn parts(manifest: &Bytes) -> impl Iterator<Item = Bytes> + '_ {
    let starts = (0..manifest.len()).step_by(PART_BYTES);
    starts.map(|at| manifest.slice(at..manifest.len().min(at + PART_BYTES)))
}
