//! The networking layer: how a worker and a scheduler reach each other.
//!
//! [`WorkerLink`] and [`SchedulerLink`] are the two ends of a session; a carrier implements them. In one process they
//! are direct calls; over gRPC they are [`Outbox`] and [`Inbox`] (framing, interleaving, credit) and [`KeepAlive`].
//! A [`Strategy`] says which replica a request goes to, a [`Breaker`] where not, a [`RetryBudget`] when not again.
//! Workers that train make sums of what each computed ([`reduce`]).
//! A model travels as chunks ([`artifact`]), each in a [`codec`]; what has no chunks yet comes from an [`origin`].
//! Everything here but [`FrameStream`] and [`receive`] is synchronous and takes the time as an argument.

pub mod artifact;
mod backoff;
mod balance;
mod breaker;
mod cause;
pub mod codec;
mod data;
mod disk;
mod inbox;
mod keepalive;
mod link;
mod loss;
mod mix;
pub mod origin;
mod outbox;
mod quality;
pub mod reduce;
mod retry_budget;
pub mod store;
pub mod swarm;
mod throughput;
pub mod transfer;
mod work;

pub use backoff::Backoff;
pub use balance::{Balancer, Endpoint, Penalty, PenaltyPolicy, Strategy};
pub use breaker::{Breaker, BreakerState};
pub use cause::root_cause;
pub use data::{FrameStream, receive};
pub use disk::free_disk_bytes;
pub use inbox::{FrameError, Inbox, Transfer};
pub use keepalive::{KEEPALIVE, KeepAlive, LEASE, WORK_LEASE};
pub use link::{SchedulerLink, WorkerLink};
pub use loss::LossMeter;
pub use outbox::Outbox;
pub use quality::{Grade, LinkQuality};
pub use retry_budget::RetryBudget;
pub use work::{
    Attempt, AttemptDelta, AttemptResult, Batch, BatchResult, FromWorker, decode_batch, decode_from_worker,
    encode_batch, encode_deltas, encode_probe, encode_result,
};

/// Bytes that one frame may take, encoded.
pub const FRAME_BYTES: usize = 64 * 1024;
/// Bytes of pieces that may be on the way in one direction before the receiver grants more.
///
/// It bounds how long a small transfer waits behind a large one on a slow link: 0.2 s at 20 Mbit/s.
pub const WINDOW_BYTES: u64 = 512 * 1024;
/// Bytes of a control message.
pub const CONTROL_BYTES: usize = 4 * 1024;
/// Bytes of what a worker says of a model: it may hold the model's declaration, which each model has once.
pub const REPORT_BYTES: usize = 64 * 1024;
/// What a piece costs beside its bytes: an upper bound of its encoding, so that empty pieces are not free.
pub(crate) const PIECE_OVERHEAD: usize = 48;
