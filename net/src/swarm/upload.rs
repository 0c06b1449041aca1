//! Who is sent a chunk next.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use thiserror::Error;

use super::{PeerId, bitmap::Bitmap, meter::Meter, receiver::Served};

/// Turns and wants that wait beside what is being sent: at first, and at most.
const SHALLOW: usize = 2;
const DEEP: usize = 64;
/// Chunks that are being sent at once, at most.
const LANES: usize = 16;
/// Another chunk is sent beside those that together take less than this part of what the link took.
const BUSY: f64 = 0.75;
/// A receiver holds others up no longer when its chunk takes so many times longer than one should.
const SLOW: f64 = 2.0;
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

/// A chunk that is being sent.
#[derive(Clone, Copy, Debug)]
struct Lane {
    receiver: Receiver,
    chunk: usize,
    since: Duration,
    bytes: u64,
}

/// What a node sends to whom, over all artifacts. Times are of any one clock.
#[derive(Debug, Default)]
pub struct Upload {
    artifacts: BTreeMap<ArtifactId, Bitmap>,
    receivers: BTreeMap<Receiver, Served>,
    ready: VecDeque<(Receiver, usize)>,
    lanes: Vec<Lane>,
    depth: Depth,
    link: Meter,
    /// Bytes of a chunk, by those that were sent.
    chunk_bytes: u64,
    /// Bytes served to the receiver that last had a turn: who was served less is owed no more than the next.
    pace: u64,
    turns: u64,
}

/// How many turns and wants may wait.
#[derive(Debug)]
struct Depth {
    now: usize,
    /// Since when nothing is being sent.
    idle: Option<Duration>,
    /// When it last grew.
    grew: Duration,
    /// The fewest wants that waited lately, and chunks since.
    spare: usize,
    chunks: usize,
}

impl Default for Depth {
    fn default() -> Self {
        Self { now: SHALLOW, idle: None, grew: Duration::ZERO, spare: usize::MAX, chunks: 0 }
    }
}

impl Depth {
    /// A turn that was granted at `since` is answered while nothing is being sent: more turns would have helped.
    fn answered(&mut self, now: Duration, since: Duration) {
        if self.idle.is_some_and(|idle| since <= idle && since >= self.grew) {
            self.now = (self.now * 2).min(DEEP);
            (self.grew, self.spare, self.chunks) = (now, usize::MAX, 0);
        }
    }

    /// A chunk begins to be sent while so many others wait.
    fn sends(&mut self, waiting: usize) {
        self.idle = None;
        self.chunks += 1;
        self.spare = self.spare.min(waiting);
        if self.chunks > 2 * self.now {
            // One that waits is enough.
            self.now = (self.now - self.spare.saturating_sub(1).min(self.now)).max(SHALLOW);
            (self.spare, self.chunks) = (usize::MAX, 0);
        }
    }
}

impl Upload {
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
            served.passed = None;
        }
    }

    /// A peer takes an artifact that this node serves, and has so much of it.
    pub fn joined(&mut self, receiver: Receiver, has: Bitmap) {
        self.left(receiver);
        let Some(have) = self.artifacts.get(&receiver.artifact).filter(|have| have.len() == has.len()) else { return };
        let lacks = have.beyond(&has);
        self.receivers.insert(receiver, Served::new(has, lacks, self.pace));
    }

    /// A receiver has one chunk more, from whomever.
    pub fn has(&mut self, receiver: Receiver, chunk: usize) {
        let Some(served) = self.receivers.get_mut(&receiver) else { return };
        served.coming.retain(|coming| *coming != chunk);
        served.passed = None;
        let here = self.artifacts.get(&receiver.artifact).is_some_and(|have| have.contains(chunk));
        if served.has.insert(chunk) && here {
            served.lacks = served.lacks.saturating_sub(1);
        }
    }

    /// A chunk is on its way to a receiver, from whomever.
    pub fn coming(&mut self, receiver: Receiver, chunk: usize) {
        let Some(served) = self.receivers.get_mut(&receiver) else { return };
        if chunk < served.has.len() && !served.has.contains(chunk) && !served.coming.contains(&chunk) {
            served.coming.push(chunk);
        }
    }

    /// A receiver that passed can use a turn again.
    pub fn interested(&mut self, receiver: Receiver) {
        if let Some(served) = self.receivers.get_mut(&receiver) {
            served.passed = None;
        }
    }

    /// A receiver that has a turn wants this chunk.
    ///
    /// # Errors
    /// It has no turn, or the chunk is not here; its connection is to be closed.
    pub fn wanted(&mut self, now: Duration, receiver: Receiver, chunk: usize) -> Result<(), NotGranted> {
        let served = self.receivers.get_mut(&receiver).ok_or(NotGranted::NoTurn)?;
        let since = served.granted.pop_front().ok_or(NotGranted::NoTurn)?;
        if !self.artifacts.get(&receiver.artifact).is_some_and(|have| have.contains(chunk)) {
            return Err(NotGranted::NoChunk(chunk));
        }
        served.wants += 1;
        self.ready.push_back((receiver, chunk));
        self.depth.answered(now, since);
        Ok(())
    }

    /// A receiver that has a turn wants nothing now.
    pub fn passed(&mut self, now: Duration, receiver: Receiver) {
        if let Some(served) = self.receivers.get_mut(&receiver) {
            served.granted.pop_front();
            served.passed = Some(now);
        }
    }

    /// A receiver needs a chunk no more. If this returns true it is being sent: end that, then call [`Upload::sent`].
    pub fn cancelled(&mut self, receiver: Receiver, chunk: usize) -> bool {
        let before = self.ready.len();
        self.ready.retain(|ready| *ready != (receiver, chunk));
        if let Some(served) = self.receivers.get_mut(&receiver) {
            served.wants = served.wants.saturating_sub(before - self.ready.len());
        }
        self.lanes.iter().any(|lane| lane.receiver == receiver && lane.chunk == chunk)
    }

    /// A receiver is gone. What is being sent to it ends.
    pub fn left(&mut self, receiver: Receiver) {
        self.receivers.remove(&receiver);
        self.ready.retain(|(ready, _)| *ready != receiver);
        self.lanes.retain(|lane| lane.receiver != receiver);
    }

    /// So many bytes more of a chunk are on the wire.
    pub fn progress(&mut self, now: Duration, receiver: Receiver, chunk: usize, bytes: u64) {
        let span = self.chunk_bytes.max(1);
        self.link.add(now, bytes, span);
        let lane = self.lanes.iter_mut().find(|lane| lane.receiver == receiver && lane.chunk == chunk);
        if let Some(lane) = lane {
            lane.bytes = lane.bytes.saturating_add(bytes);
        }
        if let Some(served) = self.receivers.get_mut(&receiver) {
            served.bytes = served.bytes.saturating_add(bytes);
        }
    }

    /// A chunk is on the wire to its last byte, or its sending ended early.
    pub fn sent(&mut self, now: Duration, receiver: Receiver, chunk: usize) {
        let lane = self.lanes.iter().position(|lane| lane.receiver == receiver && lane.chunk == chunk);
        if let Some(place) = lane {
            let lane = self.lanes.swap_remove(place);
            self.chunk_bytes = if self.chunk_bytes == 0 { lane.bytes } else { (3 * self.chunk_bytes + lane.bytes) / 4 };
        }
        if self.lanes.is_empty() && self.depth.idle.is_none() {
            self.depth.idle = Some(now);
        }
    }

    /// What to do next; to be called after each of the others, until it returns `None`.
    pub fn next(&mut self, now: Duration) -> Option<Task> {
        if let Some((receiver, chunk)) = self.start(now) {
            return Some(Task::Send(receiver, chunk));
        }
        let receiver = self.turn(now)?;
        self.turns += 1;
        let served = self.receivers.get_mut(&receiver)?;
        self.pace = self.pace.max(served.bytes);
        served.bytes = served.bytes.max(self.pace);
        served.granted.push_back(now);
        served.turn = self.turns;
        Some(Task::Grant(receiver))
    }

    /// Takes the next wanted chunk if it may be sent now. Two are sent to one receiver only one after the other.
    fn start(&mut self, now: Duration) -> Option<(Receiver, usize)> {
        if !self.has_room(now) {
            return None;
        }
        let place =
            self.ready.iter().position(|(receiver, _)| !self.lanes.iter().any(|lane| lane.receiver == *receiver));
        let (receiver, chunk) = self.ready.remove(place?)?;
        if let Some(served) = self.receivers.get_mut(&receiver) {
            served.wants = served.wants.saturating_sub(1);
        }
        self.lanes.push(Lane { receiver, chunk, since: now, bytes: 0 });
        self.depth.sends(self.ready.len());
        Some((receiver, chunk))
    }

    /// Whether the link takes another chunk: those that are being sent leave much of it unused.
    fn has_room(&self, now: Duration) -> bool {
        if self.lanes.is_empty() {
            return true;
        }
        let used: Option<f64> = self.lanes.iter().map(|lane| self.used(now, lane)).sum();
        self.lanes.len() < LANES && used.is_some_and(|used| used < BUSY)
    }

    /// The part of the link that a lane takes; `None` while it is too young to tell.
    fn used(&self, now: Duration, lane: &Lane) -> Option<f64> {
        let took = now.saturating_sub(lane.since);
        let Some(peak) = self.link.peak() else { return (took > ANSWER).then_some(0.0) };
        let took = took.as_secs_f64();
        (took > 0.5 * self.chunk_bytes as f64 / peak).then(|| lane.bytes as f64 / took / peak)
    }

    /// Whether a receiver is being sent a chunk that takes much longer than it should.
    fn holds_up(&self, now: Duration, receiver: Receiver) -> bool {
        let slow = |lane: &Lane| {
            let expected = self.link.peak().map_or(ANSWER.as_secs_f64(), |peak| self.chunk_bytes as f64 / peak);
            now.saturating_sub(lane.since).as_secs_f64() > SLOW * expected
        };
        self.lanes.iter().any(|lane| lane.receiver == receiver && slow(lane))
    }

    /// Whose turn it is, if there is one to grant: of those that least is coming to, who was served least lately.
    fn turn(&self, now: Duration) -> Option<Receiver> {
        let fresh = |since: &&Duration| now.saturating_sub(**since) < ANSWER;
        let grants: usize = self.receivers.values().map(|served| served.granted.iter().filter(fresh).count()).sum();
        let wants = self.ready.iter().filter(|(receiver, _)| !self.holds_up(now, *receiver)).count();
        if grants + wants >= self.depth.now {
            return None;
        }
        let takers = self.receivers.iter().filter(|(_, served)| {
            let silent = served.granted.front().is_some_and(|since| !fresh(&since));
            let passed = served.passed.is_some_and(|since| now.saturating_sub(since) < AGAIN);
            served.lacks > 0 && !silent && !passed && served.outstanding() < self.depth.now
        });
        let least = takers.min_by_key(|(_, served)| {
            let bytes = served.bytes.max(self.pace).saturating_add(served.outstanding() as u64 * self.chunk_bytes);
            (served.coming.len() + served.granted.len(), bytes, served.turn)
        });
        least.map(|(receiver, _)| *receiver)
    }
}
