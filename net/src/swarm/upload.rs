//! Who is sent a chunk next.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use thiserror::Error;

use super::{
    PeerId,
    bitmap::Bitmap,
    receiver::{Closed, Served},
    wire::Wire,
};
use crate::mix::mix;

/// A turn is granted when this part of a chunk is left to send, and what is sent while so many answers come.
const LEAD: f64 = 0.07;
const TRIES: f64 = 2.5;
/// Chunks ahead of the wire that turns are granted, at most.
const DEEP: f64 = 64.0;
/// A turn that is not answered for so long does not count any more.
const ANSWER: Duration = Duration::from_secs(1);
/// A receiver that passed is asked again after this, though nothing changed.
const AGAIN: Duration = Duration::from_secs(1);

/// An artifact that this node serves; the number is the shell's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArtifactId(pub u64);

/// A peer as it takes one artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Receiver {
    /// Who.
    pub peer: PeerId,
    /// What.
    pub artifact: ArtifactId,
}

/// What the shell has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Tell the receiver that it has a turn.
    Grant(Receiver),
    /// Send it the chunk, then call [`Upload::sent`].
    Send(Receiver, usize),
}

/// A receiver wants what it may not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotGranted {
    /// It has no turn.
    #[error("a chunk is wanted without a turn")]
    NoTurn,
    /// This node does not have the chunk, or the artifact has none of this number.
    #[error("chunk {0} is wanted, which is not here")]
    NoChunk(usize),
}

/// What a node sends to whom, over all artifacts. Times are of any one clock.
///
/// One chunk is sent at a time, more only while that leaves much of the link unused. Turns are granted just so early
/// that the answers come before the wire is free.
#[derive(Debug, Default)]
pub struct Upload {
    artifacts: BTreeMap<ArtifactId, Bitmap>,
    receivers: BTreeMap<Receiver, Served>,
    /// Who wants which chunk, of how many bytes, in the order in which they are sent.
    ready: VecDeque<(Receiver, usize, u64)>,
    wire: Wire,
    /// Bytes served to the receiver that last had a turn: who was served less is owed no more than the next.
    pace: u64,
    turns: u64,
    seed: u64,
}

impl Upload {
    /// Nothing is served yet. Nodes with other seeds choose otherwise.
    pub fn new(seed: u64) -> Self {
        Self { seed: mix(seed), ..Self::default() }
    }

    /// This node has these chunks of an artifact and serves them.
    pub fn serve(&mut self, artifact: ArtifactId, have: Bitmap) {
        self.artifacts.insert(artifact, have);
    }

    /// This node has one chunk more.
    pub fn gained(&mut self, artifact: ArtifactId, chunk: usize) {
        if !self.artifacts.get_mut(&artifact).is_some_and(|have| have.insert(chunk)) {
            return;
        }
        let served = self.receivers.iter_mut().filter(|(receiver, _)| receiver.artifact == artifact);
        for (_, served) in served.filter(|(_, served)| !served.has.contains(chunk)) {
            served.lacks += 1;
            served.closed = served.closed.filter(|(_, why)| *why == Closed::Busy);
        }
    }

    /// A peer takes an artifact that this node serves, and has so much of it; another length counts as not joining.
    pub fn joined(&mut self, now: Duration, receiver: Receiver, has: Bitmap) {
        self.left(now, receiver);
        let Some(have) = self.artifacts.get(&receiver.artifact).filter(|have| have.len() == has.len()) else { return };
        let lacks = have.beyond(&has);
        self.receivers.insert(receiver, Served::new(has, lacks, self.pace));
    }

    /// A receiver has one chunk more, from whomever.
    pub fn has(&mut self, receiver: Receiver, chunk: usize) {
        let Some(served) = self.receivers.get_mut(&receiver) else { return };
        served.coming.retain(|coming| *coming != chunk);
        let here = self.artifacts.get(&receiver.artifact).is_some_and(|have| have.contains(chunk));
        if served.has.insert(chunk) && here {
            served.lacks = served.lacks.saturating_sub(1);
        }
    }

    /// A chunk is on its way to a receiver from another; `more` is whether it can use turns beside that.
    pub fn coming(&mut self, now: Duration, receiver: Receiver, chunk: usize, more: bool) {
        let Some(served) = self.receivers.get_mut(&receiver) else { return };
        if !more {
            served.closed = Some((now, Closed::Busy));
        }
        served.comes(now, chunk);
    }
    /// A receiver that passed can use a turn again: what was coming to it is here, or nearly, or does not come.
    pub fn interested(&mut self, receiver: Receiver) {
        if let Some(served) = self.receivers.get_mut(&receiver) {
            served.closed = None;
            served.coming.clear();
        }
    }

    /// A receiver that has a turn wants this chunk, which takes `bytes` on the wire.
    ///
    /// # Errors
    /// It has no turn, or the chunk is not here; its connection is to be closed.
    pub fn wanted(&mut self, now: Duration, receiver: Receiver, chunk: usize, bytes: u64) -> Result<(), NotGranted> {
        let served = self.receivers.get_mut(&receiver).ok_or(NotGranted::NoTurn)?;
        let since = served.granted.pop_front().ok_or(NotGranted::NoTurn)?;
        if !self.artifacts.get(&receiver.artifact).is_some_and(|have| have.contains(chunk)) {
            return Err(NotGranted::NoChunk(chunk));
        }
        served.wants += 1;
        served.comes(now, chunk);
        self.ready.push_back((receiver, chunk, bytes));
        self.wire.answered(now.saturating_sub(since));
        Ok(())
    }

    /// A receiver that has a turn wants nothing now.
    pub fn passed(&mut self, now: Duration, receiver: Receiver, why: Closed) {
        let Some(served) = self.receivers.get_mut(&receiver) else { return };
        if let Some(since) = served.granted.pop_front() {
            self.wire.answered(now.saturating_sub(since));
        }
        served.closed = Some((now, why));
    }

    /// A receiver needs a chunk no more. If this returns true it is being sent: end that, then call [`Upload::sent`].
    pub fn cancelled(&mut self, receiver: Receiver, chunk: usize) -> bool {
        let before = self.ready.len();
        self.ready.retain(|(other, wanted, _)| (*other, *wanted) != (receiver, chunk));
        if let Some(served) = self.receivers.get_mut(&receiver) {
            served.wants = served.wants.saturating_sub(before - self.ready.len());
        }
        self.wire.sends(receiver, chunk)
    }

    /// A receiver is gone. What is being sent to it ends.
    pub fn left(&mut self, now: Duration, receiver: Receiver) {
        self.receivers.remove(&receiver);
        self.ready.retain(|(other, ..)| *other != receiver);
        self.wire.left(now, receiver);
    }

    /// So many bytes more of a chunk are on the wire.
    pub fn progress(&mut self, now: Duration, receiver: Receiver, chunk: usize, bytes: u64) {
        self.wire.progress(now, receiver, chunk, bytes);
        if let Some(served) = self.receivers.get_mut(&receiver) {
            served.bytes = served.bytes.saturating_add(bytes);
        }
    }

    /// A chunk is on the wire to its last byte, or its sending ended early.
    pub fn sent(&mut self, now: Duration, receiver: Receiver, chunk: usize) {
        let ended = self.wire.end(now, receiver, chunk);
        if let Some(served) = self.receivers.get_mut(&receiver).filter(|_| ended) {
            served.sending = served.sending.saturating_sub(1);
        }
    }

    /// What to do next; to be called after each of the others, and some times in a second, until it returns `None`.
    pub fn next(&mut self, now: Duration) -> Option<Task> {
        if let Some((receiver, chunk)) = self.start(now) {
            return Some(Task::Send(receiver, chunk));
        }
        let receiver = self.turn(now)?;
        self.turns += 1;
        let served = self.receivers.get_mut(&receiver)?;
        self.pace = self.pace.max(served.bytes);
        served.bytes = self.pace;
        served.granted.push_back(now);
        Some(Task::Grant(receiver))
    }

    /// Takes the next wanted chunk if it may be sent now. Two are sent to one receiver only one after the other.
    fn start(&mut self, now: Duration) -> Option<(Receiver, usize)> {
        if !self.wire.has_room(now) {
            return None;
        }
        let place = self.ready.iter().position(|(receiver, ..)| !self.wire.serves(*receiver));
        let (receiver, chunk, bytes) = self.ready.remove(place?)?;
        if let Some(served) = self.receivers.get_mut(&receiver) {
            served.wants = served.wants.saturating_sub(1);
            served.sending += 1;
        }
        self.wire.begin(now, receiver, chunk, bytes);
        Some((receiver, chunk))
    }

    /// Whose turn it is, if there is one to grant: of those that least is coming to, of two that are drawn from them,
    /// who was served less. All uploaders see the same ones idle: without lots they would all offer to the same one.
    fn turn(&self, now: Duration) -> Option<Receiver> {
        let fresh = |since: &&Duration| now.saturating_sub(**since) < ANSWER;
        let grants: usize = self.receivers.values().map(|served| served.granted.iter().filter(fresh).count()).sum();
        let wants = self.ready.iter().filter(|(receiver, ..)| !self.wire.holds_up(now, *receiver)).count();
        let ahead = (LEAD + TRIES * self.wire.chunks_an_answer(now)).min(DEEP);
        if (grants + wants) as f64 + self.wire.left_to_send(now) >= ahead {
            return None;
        }
        let takers = self.receivers.iter().filter(|(_, served)| {
            let silent = served.granted.front().is_some_and(|since| !fresh(&since));
            let closed = served.closed.is_some_and(|(since, _)| now.saturating_sub(since) < AGAIN);
            served.lacks > 0 && !silent && !closed && served.outstanding() as f64 <= ahead
        });
        let mut takers: Vec<_> = takers.collect();
        let least = takers.iter().map(|(_, served)| served.load(now)).min()?;
        takers.retain(|(_, served)| served.load(now) == least);
        let draw = mix(self.seed ^ self.turns);
        let drawn = [draw >> 32, draw].map(|draw| takers[draw as u32 as usize % takers.len()]);
        drawn.into_iter().min_by_key(|(_, served)| served.bytes.max(self.pace)).map(|(receiver, _)| *receiver)
    }
}
