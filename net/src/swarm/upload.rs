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

/// Turns are granted ahead of the wire for so many chunks, and what is sent while so many answers come.
const LEAD: f64 = 1.0;
const TRIES: f64 = 1.5;
/// Turns that wait for their answers, at most.
const MOST_TURNS: usize = 64;
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
    /// Tell the receiver that it has a turn, and which chunk nobody else is known to have or get, if there is one.
    Grant(Receiver, Option<usize>),
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
    /// Chunks that nobody else has or gets, as far as this node knows.
    fresh: BTreeMap<ArtifactId, Bitmap>,
    receivers: BTreeMap<Receiver, Served>,
    /// Who wants which chunk, of how many bytes, in the order in which they are sent.
    ready: VecDeque<(Receiver, usize, u64)>,
    wire: Wire,
    /// Bytes served to the receiver that last had a turn: who was served less is owed no more than the next.
    pace: u64,
    turns: u64,
    /// Bytes of a chunk, on average of late; 0 before any was wanted.
    mean: f64,
    seed: u64,
}

impl Upload {
    /// Nothing is served yet. Nodes with other seeds choose otherwise.
    pub fn new(seed: u64) -> Self {
        Self { seed: mix(seed), ..Self::default() }
    }

    /// This node has these chunks of an artifact and serves them.
    pub fn serve(&mut self, artifact: ArtifactId, have: Bitmap) {
        self.fresh.insert(artifact, have.clone());
        self.artifacts.insert(artifact, have);
    }

    /// A chunk is elsewhere too, or will be.
    fn spread(&mut self, artifact: ArtifactId, chunk: usize) {
        if let Some(fresh) = self.fresh.get_mut(&artifact) {
            fresh.remove(chunk);
        }
    }

    /// A turn was answered: if what was suggested with it is not what is wanted it is suggested again.
    fn answered(&mut self, now: Duration, receiver: Receiver, chunk: Option<usize>) -> Result<(), NotGranted> {
        let served = self.receivers.get_mut(&receiver).ok_or(NotGranted::NoTurn)?;
        let (since, hint) = served.granted.pop_front().ok_or(NotGranted::NoTurn)?;
        self.wire.answered(now.saturating_sub(since));
        if let Some(hint) = hint.filter(|_| hint != chunk)
            && !self.receivers.iter().any(|(other, served)| other.artifact == receiver.artifact && served.gets(hint))
            && let Some(fresh) = self.fresh.get_mut(&receiver.artifact)
        {
            fresh.insert(hint);
        }
        Ok(())
    }

    /// This node has one chunk more.
    pub fn gained(&mut self, artifact: ArtifactId, chunk: usize) {
        if !self.artifacts.get_mut(&artifact).is_some_and(|have| have.insert(chunk)) {
            return;
        }
        let mut others = self.receivers.iter().filter(|(receiver, _)| receiver.artifact == artifact);
        if !others.any(|(_, served)| served.gets(chunk))
            && let Some(fresh) = self.fresh.get_mut(&artifact)
        {
            fresh.insert(chunk);
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
        if let Some(fresh) = self.fresh.get_mut(&receiver.artifact) {
            has.iter().for_each(|chunk| {
                fresh.remove(chunk);
            });
        }
        self.receivers.insert(receiver, Served::new(has, lacks, self.pace));
    }

    /// A receiver has one chunk more, from whomever.
    pub fn has(&mut self, receiver: Receiver, chunk: usize) {
        self.spread(receiver.artifact, chunk);
        let Some(served) = self.receivers.get_mut(&receiver) else { return };
        served.coming.retain(|(coming, _)| *coming != chunk);
        let here = self.artifacts.get(&receiver.artifact).is_some_and(|have| have.contains(chunk));
        if served.has.insert(chunk) && here {
            served.lacks = served.lacks.saturating_sub(1);
        }
    }

    /// A chunk is on its way to a receiver from another; `more` is whether it can use turns beside that.
    pub fn coming(&mut self, now: Duration, receiver: Receiver, chunk: usize, more: bool) {
        self.spread(receiver.artifact, chunk);
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
        self.answered(now, receiver, Some(chunk))?;
        if !self.artifacts.get(&receiver.artifact).is_some_and(|have| have.contains(chunk)) {
            return Err(NotGranted::NoChunk(chunk));
        }
        self.spread(receiver.artifact, chunk);
        let served = self.receivers.get_mut(&receiver).ok_or(NotGranted::NoTurn)?;
        served.wants += 1;
        served.closed = None;
        served.comes(now, chunk);
        self.ready.push_back((receiver, chunk, bytes));
        self.mean = if self.mean == 0.0 { bytes as f64 } else { self.mean + (bytes as f64 - self.mean) / 16.0 };
        Ok(())
    }

    /// A receiver that has a turn wants nothing now.
    pub fn passed(&mut self, now: Duration, receiver: Receiver, why: Closed) {
        if self.answered(now, receiver, None).is_ok()
            && let Some(served) = self.receivers.get_mut(&receiver)
        {
            served.closed = Some((now, why));
        }
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
        let fresh = self.fresh.get_mut(&receiver.artifact);
        let hint = fresh.and_then(|fresh| {
            let chunk = fresh.common(fresh, mix(self.seed ^ self.turns))?;
            fresh.remove(chunk).then_some(chunk)
        });
        served.granted.push_back((now, hint));
        Some(Task::Grant(receiver, hint))
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

    /// Whose turn it is, if there is one to grant: of those that least is under way to from here, of two that are drawn from
    /// them, who was served less.
    fn turn(&self, now: Duration) -> Option<Receiver> {
        let fresh = |since: Duration| now.saturating_sub(since) < ANSWER;
        let grants =
            self.receivers.values().flat_map(|served| &served.granted).filter(|(since, _)| fresh(*since)).count();
        let wants = self.ready.iter().filter(|(receiver, ..)| !self.wire.serves(*receiver));
        let wants: u64 = wants.map(|(.., bytes)| *bytes).sum();
        let left = if self.wire.has_room(now) { 0 } else { self.wire.left_to_send(now) };
        let ahead = TRIES * self.wire.bytes_an_answer(now) + LEAD * self.mean;
        let queued = grants as f64 * self.mean + wants.saturating_add(left) as f64;
        if grants >= MOST_TURNS || queued >= ahead && (self.mean > 0.0 || grants > 1) {
            return None;
        }
        let takers = self.receivers.iter().filter(|(receiver, served)| {
            let silent = served.granted.front().is_some_and(|(since, _)| !fresh(*since));
            let closed = served.closed.is_some_and(|(since, _)| now.saturating_sub(since) < AGAIN);
            let room = served.outstanding() as f64 * self.mean <= ahead;
            let novel = self.artifacts.get(&receiver.artifact).is_some_and(|have| served.novel(now, have) > 0);
            room && novel && !silent && !closed
        });
        let mut takers: Vec<_> = takers.collect();
        let least = takers.iter().map(|(_, served)| served.under_way()).min()?;
        takers.retain(|(_, served)| served.under_way() == least);
        let draw = mix(self.seed ^ self.turns);
        let drawn = [draw >> 32, draw].map(|draw| takers.get(draw as u32 as usize % takers.len()));
        let fewest = drawn.into_iter().flatten().min_by_key(|(_, served)| served.bytes.max(self.pace));
        fewest.map(|(receiver, _)| **receiver)
    }
}
