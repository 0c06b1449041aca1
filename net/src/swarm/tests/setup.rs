//! Networks to simulate, and what came of them.

use std::time::Duration;

use crate::{
    mix::mix,
    swarm::{Bitmap, Closed, Limits},
};

/// What is wrong with a node, and from when on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fault {
    /// Nothing.
    None,
    /// Its chunks are corrupt.
    Lies,
    /// It falls silent, but stays connected.
    Stalls(f64),
    /// It goes.
    Leaves(f64),
}

/// One node. Links are in bytes a second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    pub(super) up: f64,
    pub(super) down: f64,
    /// Seconds after which it joins.
    pub(super) joins: f64,
    /// Whether it begins with all chunks, and whether the others take it for an origin.
    pub(super) seed: bool,
    pub(super) origin: bool,
    pub(super) fault: Fault,
}

impl Setup {
    /// A receiver with the same link both ways.
    pub(super) fn receiver(rate: f64) -> Self {
        Self { up: rate, down: rate, joins: 0.0, seed: false, origin: false, fault: Fault::None }
    }

    /// The origin.
    pub(super) fn origin(rate: f64) -> Self {
        Self { seed: true, origin: true, ..Self::receiver(rate) }
    }
}

/// A network before it runs.
#[derive(Clone, Debug)]
pub(super) struct Network {
    pub(super) chunks: usize,
    pub(super) chunk_bytes: u32,
    /// Whether two of five chunks are tiny, as those of trees and small files are.
    pub(super) mixed: bool,
    /// Seconds from any node to any other.
    pub(super) delay: f64,
    /// Seconds from a chunk's last byte until it is decoded, written, and may be passed on.
    pub(super) work: f64,
    /// Bytes of each chunk being sent that a message waits behind.
    pub(super) buffer: f64,
    pub(super) limits: Limits,
    pub(super) nodes: Vec<Setup>,
    /// Seconds after which it is stopped.
    pub(super) ends: f64,
}

impl Network {
    /// The bytes of each chunk.
    pub(super) fn sizes(&self, seed: u64) -> Vec<u32> {
        let size = |chunk: u64| match mix(mix(seed) ^ chunk) {
            _ if !self.mixed => self.chunk_bytes,
            random if random % 27 < 11 => 768 + (random >> 32) as u32 % 7400,
            random => (0.74 * f64::from(self.chunk_bytes)) as u32 + (random >> 32) as u32 % (self.chunk_bytes / 3),
        };
        (0..self.chunks as u64).map(size).collect()
    }
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Seconds after which each node was whole; those that never were have none.
    pub(super) whole: Vec<Option<f64>>,
    /// Copies of the artifact that each node sent, and received.
    pub(super) sent: Vec<f64>,
    pub(super) received: Vec<f64>,
    /// Wants beyond the first, of chunks that were on their way already.
    pub(super) hedges: usize,
    pub(super) grants: usize,
    pub(super) passes: usize,
    /// Who banned whom.
    pub(super) bans: Vec<(usize, usize)>,
    /// Since when nodes have had nothing on its way at the end.
    pub(super) starved: Vec<Option<Duration>>,
}

/// What nodes say to each other.
#[derive(Clone, Debug)]
pub(super) enum Message {
    Hello(Bitmap),
    Have(usize),
    Coming(usize, bool),
    Interested,
    Grant(Option<usize>),
    Want(usize),
    Pass(Closed),
    Cancel(usize),
    Bye,
}
