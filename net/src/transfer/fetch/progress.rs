//! What others are told of a fetch.

use orion_proto::Result;

/// How far a fetch is.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Bytes of the artifact's files.
    pub bytes: u64,
    /// Of these, that are here.
    pub here: u64,
    /// Of these, that were here before it began.
    pub found: u64,
    /// Bytes that came over links.
    pub received: u64,
    /// Seconds until all is here, as it goes; none: not known.
    pub remaining_seconds: Option<f64>,
    /// Peers that send.
    pub peers: usize,
    /// How it ended.
    pub outcome: Option<Result<()>>,
}
