//! Peers that come, stall and go, and what they owe.

use std::time::Duration;

use super::{Command, Download};
use crate::swarm::{PeerId, availability::Availability, source::Open};

/// A peer that owes is set aside when it is silent for so many times longer than it usually takes.
const STALLED: f64 = 8.0;
/// A chunk that a peer waits for longer is not taken for coming.
const COMING: Duration = Duration::from_secs(10);
/// A peer that stalls again and again is left alone for up to 2 to the power of this times the patience.
const LONGEST: u32 = 5;

impl Download {
    /// Counts what a peer has and will have, in or out.
    pub(super) fn count(&mut self, peer: PeerId, change: impl Fn(&mut Availability, usize)) {
        let Some(source) = self.sources.get(&peer).filter(|source| source.counts()) else { return };
        let coming = source.coming.iter().map(|(chunk, _)| *chunk);
        source.has.iter().chain(coming).for_each(|chunk| change(&mut self.availability, chunk));
        self.sources.values_mut().for_each(|source| source.floor = 0);
    }

    /// A chunk is in one place less.
    pub(super) fn lower(&mut self, chunk: usize) {
        self.availability.lower(chunk);
        self.lower_floors(chunk);
    }

    fn lower_floors(&mut self, chunk: usize) {
        let level = self.availability.level(chunk);
        self.sources.values_mut().for_each(|source| source.floor = source.floor.min(level));
    }

    /// Whether a peer has, or will soon have, something that is missing here.
    pub fn offers(&self, peer: PeerId) -> bool {
        let source = self.sources.get(&peer).filter(|source| source.aside.is_none());
        source.is_some_and(|source| {
            let coming = source.coming.iter().any(|(chunk, _)| !self.have.contains(*chunk));
            coming || self.have.missing().any(|chunk| source.has.contains(chunk))
        })
    }

    /// Whether a peer has all that is missing here.
    pub fn offers_all(&self, peer: PeerId) -> bool {
        let source = self.sources.get(&peer).filter(|source| source.aside.is_none());
        source.is_some_and(|source| self.have.missing().all(|chunk| source.has.contains(chunk)))
    }

    /// A peer owes a chunk no more.
    pub(super) fn settle(&mut self, peer: PeerId, chunk: usize, here: u64) {
        let bytes = self.wire_bytes.get(chunk).map_or(0, |bytes| u64::from(*bytes));
        if self.sources.get_mut(&peer).is_some_and(|source| source.settle(chunk, bytes, here)) {
            self.on_the_way = self.on_the_way.saturating_sub(bytes);
        }
    }

    /// A chunk will not come from a peer; unless it comes from another too it is wanted again.
    pub(super) fn unwant(&mut self, peer: PeerId, chunk: usize) {
        let here = self.flights.get(&chunk).and_then(|flights| flights.iter().find(|flight| flight.peer == peer));
        let here = here.map_or(0, |flight| flight.here);
        self.settle(peer, chunk, here);
        let Some(flights) = self.flights.get_mut(&chunk) else { return };
        flights.retain(|flight| flight.peer != peer);
        if flights.is_empty() {
            self.flights.remove(&chunk);
            self.availability.put(chunk);
            self.lower_floors(chunk);
        }
    }

    /// Nothing will come from a peer.
    pub(super) fn release(&mut self, peer: PeerId) -> Vec<usize> {
        let owed = self.sources.get(&peer).map(|source| source.owed.clone()).unwrap_or_default();
        owed.iter().for_each(|chunk| self.unwant(peer, *chunk));
        owed
    }

    /// Chunks that have been coming to a peer for too long are not counted as if it had them.
    pub(super) fn expire(&mut self, now: Duration, peer: PeerId) {
        let Some(source) = self.sources.get_mut(&peer) else { return };
        let old = |(_, since): &(usize, Duration)| now.saturating_sub(*since) > COMING;
        let gone: Vec<_> = source.coming.extract_if(.., |coming| old(coming)).collect();
        if source.counts() {
            gone.into_iter().for_each(|(chunk, _)| self.lower(chunk));
        }
    }

    /// Sets a peer aside that stalls, longer each time, and brings it back after that.
    pub(super) fn set_aside(&mut self, now: Duration, peer: PeerId, commands: &mut Vec<Command>) {
        let Some(source) = self.sources.get_mut(&peer) else { return };
        if source.aside.is_some_and(|until| until <= now) {
            source.aside = None;
            self.count(peer, Availability::raise);
            return;
        }
        let usual = Duration::try_from_secs_f64(STALLED * source.latency()).unwrap_or(Duration::MAX);
        let quiet = now.saturating_sub(source.heard.max(source.alive));
        if source.owed.is_empty() || quiet <= usual.max(self.limits.patience) {
            return;
        }
        source.stalls = source.stalls.saturating_add(1);
        let pause = self.limits.patience.saturating_mul(1 << source.stalls.min(LONGEST));
        source.open = Open::Busy;
        commands.push(Command::SetAside(peer));
        commands.extend(self.release(peer).into_iter().map(|chunk| Command::Cancel(peer, chunk)));
        self.count(peer, Availability::lower);
        if let Some(source) = self.sources.get_mut(&peer) {
            source.coming.clear();
            source.aside = Some(now.saturating_add(pause));
        }
    }
}
