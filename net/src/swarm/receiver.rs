//! What an uploader knows of one of those that it serves.

use std::{collections::VecDeque, time::Duration};

use super::bitmap::Bitmap;

/// A node that takes chunks of one artifact.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) has: Bitmap,
    /// Chunks that this node has and it lacks.
    pub(super) lacks: usize,
    /// Chunks that are on their way to it from anybody.
    pub(super) coming: Vec<usize>,
    /// When the turns were granted that it has not answered.
    pub(super) granted: VecDeque<Duration>,
    /// Chunks that it wants and that are not being sent yet.
    pub(super) wants: usize,
    /// When it passed its last turn, if nothing has changed since.
    pub(super) passed: Option<Duration>,
    /// Bytes it was served, or was late to be served.
    pub(super) bytes: u64,
    /// Number of the last turn that it was granted.
    pub(super) turn: u64,
}

impl Served {
    pub(super) fn new(has: Bitmap, lacks: usize, bytes: u64) -> Self {
        Self { has, lacks, coming: Vec::new(), granted: VecDeque::new(), wants: 0, passed: None, bytes, turn: 0 }
    }

    /// Turns and wants that are outstanding.
    pub(super) fn outstanding(&self) -> usize {
        self.granted.len() + self.wants
    }
}
