//! Which chunks of an artifact move from which node to which: a swarm's decisions, without any I/O.
//!
//! [`Download`] is one for each artifact that a node lacks, [`Upload`] one for each node. An uploader grants turns, and a
//! receiver answers each with the chunk that it wants by then, so that it is chosen as late as can be.

mod availability;
mod bitmap;
mod download;
mod flight;
mod meter;
mod receiver;
mod source;
#[cfg(test)]
mod tests;
mod upload;
mod wire;

pub use bitmap::{Bitmap, BitmapError};
pub use download::{Answer, Command, Download, Limits, Verdict};
pub use receiver::Closed;
pub use upload::{ArtifactId, NotGranted, Receiver, Task, Upload};

/// A node that this one is connected to; the number is the shell's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u64);
