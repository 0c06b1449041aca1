//! What an uploader knows of one of those that it serves.

use std::{collections::VecDeque, time::Duration};

use super::bitmap::Bitmap;

/// A chunk that was announced so long ago does not count as coming.
const STALE: Duration = Duration::from_secs(1);

/// Why a receiver wants no turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// Enough is on its way to it; it will say when it can use a turn.
    Busy,
    /// This node has nothing that it wants; the next chunk here may change that.
    Nothing,
}

/// A node that takes chunks of one artifact.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) has: Bitmap,
    /// Chunks that this node has and it lacks.
    pub(super) lacks: usize,
    /// Chunks that are on their way to it from anybody, and when that was announced.
    pub(super) coming: Vec<(usize, Duration)>,
    /// When the turns were granted that it has not answered, and what was suggested with each.
    pub(super) granted: VecDeque<(Duration, Option<usize>)>,
    /// Chunks that it wants and that are not being sent yet, and that are.
    pub(super) wants: usize,
    pub(super) sending: usize,
    /// Since when it wants no turn, and whether it had enough, or there was nothing here for it.
    pub(super) closed: Option<(Duration, Closed)>,
    /// Bytes it was served, or missed being served.
    pub(super) bytes: u64,
}

impl Served {
    pub(super) fn new(has: Bitmap, lacks: usize, bytes: u64) -> Self {
        Self { has, lacks, coming: Vec::new(), granted: VecDeque::new(), wants: 0, sending: 0, closed: None, bytes }
    }

    /// A chunk is on its way to it.
    pub(super) fn comes(&mut self, now: Duration, chunk: usize) {
        if chunk < self.has.len() && !self.has.contains(chunk) {
            self.coming.retain(|(coming, _)| *coming != chunk);
            self.coming.push((chunk, now));
        }
    }

    /// Whether it has a chunk or gets it.
    pub(super) fn gets(&self, chunk: usize) -> bool {
        self.has.contains(chunk) || self.coming.iter().any(|(coming, _)| *coming == chunk)
    }

    /// Turns and wants that are outstanding.
    pub(super) fn outstanding(&self) -> usize {
        self.granted.len() + self.wants
    }

    /// Turns, wants, and chunks that are being sent to it.
    pub(super) fn under_way(&self) -> usize {
        self.outstanding().saturating_add(self.sending)
    }

    /// Chunks that this node has and could send it: it lacks them, and they neither come to it nor have a turn here.
    ///
    /// What was announced long ago may never come: its peer may be gone, or lie.
    pub(super) fn novel(&self, now: Duration, have: &Bitmap) -> usize {
        let comes = |(chunk, since): &&(usize, Duration)| have.contains(*chunk) && now.saturating_sub(*since) < STALE;
        self.lacks.saturating_sub(self.coming.iter().filter(comes).count() + self.granted.len())
    }
}
