//! What a node that lacks chunks wants from whom.

mod choose;
mod peers;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    PeerId,
    availability::Availability,
    bitmap::Bitmap,
    flight::Flight,
    meter::Meter,
    source::{Open, Source},
};
use crate::mix::mix;

/// Wrong chunks after which a peer is banned.
const LIES: u8 = 2;

/// What a receiver allows to be on the way to it, and how patient it is.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes from one peer; one chunk at least.
    pub window: u64,
    /// Bytes from all peers; one chunk at least.
    pub memory: u64,
    /// A peer that owes is not set aside before it was silent for so long.
    pub patience: Duration,
}

/// What a receiver says to a granted turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Send this chunk.
    Want {
        /// Which.
        chunk: usize,
        /// Whether the node can use turns of other peers too, by now; else they are to wait until it says so.
        more: bool,
    },
    /// Nothing now: enough is on its way. The node will say when it can use a turn.
    Busy,
    /// The peer has nothing that the node wants. That may change with the next chunk that the peer gets.
    Nothing,
}

/// What a wrong chunk means for the peer that sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may be asked again.
    Again,
    /// It is not asked again for this artifact, and its words count for nothing.
    Banned,
}

/// What the shell has to say to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// This node can use a turn again, though it passed the last.
    Interested(PeerId),
    /// The peer need not send this chunk any more.
    Cancel(PeerId, usize),
    /// The peer stalled, and is not asked for a while.
    SetAside(PeerId),
}

/// One artifact on its way to this node: which chunk it takes from whom. Times are of any one clock.
///
/// Each chunk is wanted from one peer at a time, the rarest first; a second is asked when the first is late.
#[derive(Debug)]
pub struct Download {
    wire_bytes: Vec<u32>,
    have: Bitmap,
    missing_bytes: u64,
    limits: Limits,
    /// Bytes of the largest chunk.
    largest: u64,
    random: u64,
    sources: BTreeMap<PeerId, Source>,
    banned: BTreeSet<PeerId>,
    availability: Availability,
    flights: BTreeMap<usize, Vec<Flight>>,
    /// Bytes that are on their way from all peers.
    on_the_way: u64,
    /// Bytes that have come from all peers.
    came: u64,
    link: Meter,
    /// The least seconds from a want to its first bytes, lately.
    reach: f64,
    /// When a peer that is no origin last sent enough.
    fed: Duration,
    starved: Option<Duration>,
}

impl Download {
    /// A node that has `have` of an artifact whose chunks take so many bytes on the wire; equal seeds choose alike.
    ///
    /// A bitmap of another length counts as empty.
    pub fn new(wire_bytes: Vec<u32>, have: Bitmap, limits: Limits, seed: u64) -> Self {
        let have = if have.len() == wire_bytes.len() { have } else { Bitmap::new(wire_bytes.len()) };
        let largest = u64::from(wire_bytes.iter().copied().max().unwrap_or(0));
        let missing_bytes = have.missing().map(|chunk| u64::from(wire_bytes[chunk])).sum();
        Self {
            availability: Availability::new(&have),
            missing_bytes,
            largest,
            limits: Limits { window: limits.window.max(largest), memory: limits.memory.max(largest), ..limits },
            random: mix(seed),
            sources: BTreeMap::new(),
            banned: BTreeSet::new(),
            flights: BTreeMap::new(),
            on_the_way: 0,
            came: 0,
            link: Meter::default(),
            reach: 0.0,
            fed: Duration::ZERO,
            starved: None,
            wire_bytes,
            have,
        }
    }

    /// A peer is here, with these chunks; one that was here begins anew. An origin is asked for what nobody else has.
    pub fn joined(&mut self, now: Duration, peer: PeerId, origin: bool, has: Bitmap) {
        self.left(peer);
        if self.banned.contains(&peer) || has.len() != self.have.len() {
            return;
        }
        if self.sources.is_empty() {
            self.fed = now;
        }
        self.sources.insert(peer, Source::new(now, origin, has));
        self.count(peer, Availability::raise);
    }

    /// A peer has one chunk more.
    pub fn has(&mut self, peer: PeerId, chunk: usize) {
        let Some(source) = self.sources.get_mut(&peer) else { return };
        let was_coming = source.not_coming(chunk);
        if !source.has.insert(chunk) {
            return;
        }
        if source.counts() && !was_coming {
            self.availability.raise(chunk);
        }
        source.floor = source.floor.min(self.availability.level(chunk));
    }

    /// A chunk is on its way to a peer, which will have it soon.
    pub fn coming(&mut self, now: Duration, peer: PeerId, chunk: usize) {
        let Some(source) = self.sources.get_mut(&peer) else { return };
        let known = source.has.contains(chunk) || source.coming.iter().any(|(coming, _)| *coming == chunk);
        if !known && chunk < self.have.len() && source.counts() {
            source.coming.push((chunk, now));
            self.availability.raise(chunk);
        }
    }

    /// A peer is gone; what it owes is wanted elsewhere.
    pub fn left(&mut self, peer: PeerId) {
        self.release(peer);
        self.count(peer, Availability::lower);
        self.sources.remove(&peer);
    }

    /// A peer has a turn for this node. A chunk that is wanted is on its way to this node: it tells all peers so.
    ///
    /// The peer suggests a chunk that nobody else has or gets, as far as it knows.
    pub fn granted(&mut self, now: Duration, peer: PeerId, hint: Option<usize>) -> Answer {
        let choice = self.choose(now, peer, hint);
        let rate = self.capacity().unwrap_or(1.0);
        let Some(source) = self.sources.get_mut(&peer) else { return Answer::Nothing };
        let chunk = match choice {
            Ok(chunk) => chunk,
            Err(why) => {
                source.open = why;
                return if why == Open::Busy { Answer::Busy } else { Answer::Nothing };
            }
        };
        if !source.origin {
            self.fed = now;
        }
        let bytes = u64::from(self.wire_bytes[chunk]);
        let expected = source.latency().max(source.predicted(bytes, rate));
        source.owe(now, chunk, bytes);
        source.open = Open::Yes;
        self.on_the_way += bytes;
        self.availability.take(chunk);
        self.flights.entry(chunk).or_default().push(Flight::new(now, peer, expected));
        self.starved = None;
        Answer::Want { chunk, more: self.close_others(now, peer) }
    }

    /// A peer works on what it owes, though nothing of it comes yet: it is not set aside, but others are asked meanwhile.
    pub fn alive(&mut self, now: Duration, peer: PeerId) {
        if let Some(source) = self.sources.get_mut(&peer) {
            source.alive = now;
        }
    }

    /// More bytes of a chunk came from a peer. If this returns true the node can soon use another turn: tick now.
    pub fn received(&mut self, now: Duration, peer: PeerId, chunk: usize, bytes: u64) -> bool {
        self.came = self.came.saturating_add(bytes);
        let span = self.wire_bytes.get(chunk).map_or(0, |bytes| u64::from(*bytes));
        self.link.add(now, bytes, span);
        let Some(source) = self.sources.get_mut(&peer) else { return false };
        source.heard = now;
        // It speaks again: the next tick brings it back.
        source.aside = source.aside.map(|_| now);
        let flight = self.flights.get_mut(&chunk).and_then(|all| all.iter_mut().find(|flight| flight.peer == peer));
        let Some(flight) = flight else { return false };
        flight.came(now, bytes, self.came);
        source.here += bytes;
        let waits = |(peer, source): (&PeerId, &Source)| {
            source.open == Open::Busy && source.aside.is_none() && self.fits_largest(*peer)
        };
        self.sources.iter().any(waits) && self.promised(now) <= choose::OPEN
    }

    /// A chunk is here, right and kept: this node tells all peers that it has it. Returns who need not send it any more.
    pub fn arrived(&mut self, now: Duration, peer: PeerId, chunk: usize) -> Vec<(PeerId, usize)> {
        if !self.have.insert(chunk) {
            return Vec::new();
        }
        let bytes = u64::from(self.wire_bytes[chunk]);
        self.missing_bytes = self.missing_bytes.saturating_sub(bytes);
        self.availability.take(chunk);
        let flights = self.flights.remove(&chunk).unwrap_or_default();
        for flight in &flights {
            self.settle(flight.peer, chunk, flight.here);
        }
        if let Some(source) = self.sources.get_mut(&peer) {
            (source.heard, source.stalls) = (now, 0);
            if !source.origin {
                self.fed = now;
            }
            if let Some(flight) = flights.iter().find(|flight| flight.peer == peer) {
                if let Some(reach) = flight.reach() {
                    self.reach = if self.reach == 0.0 { reach } else { reach.min(1.02 * self.reach) };
                }
                // A small one comes at once, which says nothing of the link.
                if bytes > self.largest / 2 {
                    let (rate, alone) = flight.rate(now, bytes, self.came);
                    source.measured(rate, now.saturating_sub(flight.since).as_secs_f64(), alone);
                }
            }
        }
        flights.iter().map(|flight| (flight.peer, chunk)).filter(|(other, _)| *other != peer).collect()
    }

    /// A chunk from a peer was wrong. It is wanted elsewhere, and from this peer only if no other has it.
    pub fn refused(&mut self, peer: PeerId, chunk: usize) -> Verdict {
        self.unwant(peer, chunk);
        let Some(source) = self.sources.get_mut(&peer) else { return Verdict::Banned };
        source.lies = source.lies.saturating_add(1);
        if source.lies >= LIES {
            self.banned.insert(peer);
            self.left(peer);
            return Verdict::Banned;
        }
        let elsewhere = self.holders(chunk).any(|holder| holder != peer);
        if elsewhere && let Some(source) = self.sources.get_mut(&peer) {
            source.has.remove(chunk);
            if source.counts() {
                self.lower(chunk);
            }
        }
        Verdict::Again
    }

    /// A chunk that came from a peer is of no use as it came; it is wanted again, from this peer too.
    pub fn unwanted(&mut self, peer: PeerId, chunk: usize) {
        self.unwant(peer, chunk);
    }

    /// A peer has lost a chunk that it said it had.
    pub fn gone(&mut self, peer: PeerId, chunk: usize) {
        self.unwant(peer, chunk);
        if let Some(source) = self.sources.get_mut(&peer)
            && source.has.remove(chunk)
            && source.counts()
        {
            self.lower(chunk);
        }
    }

    /// What time brings; to be called some times in a second, and after a peer left or was refused.
    pub fn tick(&mut self, now: Duration) -> Vec<Command> {
        let mut commands = Vec::new();
        let peers: Vec<PeerId> = self.sources.keys().copied().collect();
        for peer in &peers {
            self.expire(now, *peer);
            self.set_aside(now, *peer, &mut commands);
        }
        for peer in peers {
            if self.opens(now, peer) {
                commands.push(Command::Interested(peer));
            }
        }
        if self.flights.is_empty() && self.starved.is_none() {
            self.starved = Some(now);
        }
        commands
    }

    /// Whether all chunks are here.
    pub fn is_whole(&self) -> bool {
        self.have.is_full()
    }

    /// The chunks that are here.
    pub fn have(&self) -> &Bitmap {
        &self.have
    }

    /// Bytes on the wire that have yet to arrive.
    pub fn missing_bytes(&self) -> u64 {
        self.missing_bytes
    }

    /// Seconds until all is here if it goes on as it did lately; `None` before anything is measured.
    pub fn remaining_seconds(&self) -> Option<f64> {
        self.link.mean().map(|rate| self.missing_bytes as f64 / rate)
    }

    /// Since when nothing has been on its way though something is missing; `None` while something is.
    pub fn starved_since(&self) -> Option<Duration> {
        self.starved.filter(|_| !self.is_whole())
    }

    /// The peers that have a chunk, but for those set aside or banned.
    pub fn holders(&self, chunk: usize) -> impl Iterator<Item = PeerId> {
        let live = self.sources.iter().filter(|(_, source)| source.aside.is_none());
        live.filter(move |(_, source)| source.has.contains(chunk)).map(|(peer, _)| *peer)
    }

    /// A missing chunk that no peer has; it takes as long as there are chunks missing.
    pub fn nobody_has(&self) -> Option<usize> {
        self.have.missing().find(|chunk| self.holders(*chunk).next().is_none())
    }
}
