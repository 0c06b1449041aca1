//! Which chunk to want from a peer that has a turn.

use std::time::Duration;

use super::Download;
use crate::{
    mix::mix,
    swarm::{PeerId, flight::Flight, source::Source},
};

/// More than so many times the bytes a second that ever came at once need not be on their way from other peers.
const ENOUGH: f64 = 1.5;
/// The origin is asked for common chunks too when all others together send less than this part of what it can.
const POOR: f64 = 0.25;
/// A chunk is wanted a second time from a peer that would bring it in less than this part of the time left.
const SOONER: f64 = 0.5;

impl Download {
    /// The chunk to want from a peer that has a turn.
    pub(super) fn choose(&mut self, now: Duration, peer: PeerId) -> Option<usize> {
        let source = self.sources.get(&peer)?;
        if source.aside.is_some() || self.enough(now, peer) {
            return None;
        }
        let origin = source.origin;
        let last = if origin && !self.starving(now, peer) { 1 } else { self.availability.levels() };
        self.random = mix(self.random);
        let source = self.sources.get_mut(&peer)?;
        let chunk = (source.floor..last).find_map(|level| {
            let found = self.availability.at(level, &source.has, self.random);
            if found.is_none() && level == source.floor {
                source.floor += 1;
            }
            found
        });
        let chunk = chunk.or_else(|| self.hedge(now, peer));
        chunk.filter(|chunk| self.fits(peer, *chunk))
    }

    /// A chunk that is late on its way and would be here much sooner from this peer, when all that it has is on its way.
    fn hedge(&self, now: Duration, peer: PeerId) -> Option<usize> {
        if !self.availability.wanted().is_empty() {
            return None;
        }
        let source = self.sources.get(&peer)?;
        let rate = self.typical_rate()?;
        let late = self.flights.iter().filter_map(|(chunk, flights)| {
            let [flight] = flights.as_slice() else { return None };
            if flight.peer == peer || !source.has.contains(*chunk) {
                return None;
            }
            let bytes = u64::from(self.wire_bytes[*chunk]);
            let left = self.seconds_left(now, *chunk, flight);
            (source.predicted(bytes, rate) < SOONER * left).then_some((left, *chunk))
        });
        late.max_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, chunk)| chunk)
    }

    /// Seconds until a chunk is here from the peer that it is wanted from.
    fn seconds_left(&self, now: Duration, chunk: usize, flight: &Flight) -> f64 {
        let Some(source) = self.sources.get(&flight.peer) else { return f64::INFINITY };
        let before = source.owed.iter().take_while(|owed| **owed != chunk);
        let before: u64 = before.map(|chunk| u64::from(self.wire_bytes[*chunk])).sum();
        let rest = u64::from(self.wire_bytes[chunk]).saturating_sub(flight.here);
        let rate = source.rate().or(self.typical_rate()).unwrap_or(1.0);
        let left = (before + rest) as f64 / rate;
        // What took longer than it should will take as long again.
        let waited = now.saturating_sub(flight.since).as_secs_f64();
        if flight.late(now) || source.silent(now) { left.max(waited) } else { left }
    }

    /// Whether other peers send as much as this node's link takes, or will at once.
    fn enough(&self, now: Duration, peer: PeerId) -> bool {
        let busy = self.sources.iter().filter(|(other, source)| {
            **other != peer && !source.owed.is_empty() && !source.silent(now) && source.aside.is_none()
        });
        match self.link.peak() {
            Some(peak) => busy.map(|(_, source)| source.rate().unwrap_or(peak)).sum::<f64>() >= ENOUGH * peak,
            None => busy.count() >= 2,
        }
    }

    /// Whether an origin has to help with chunks that other peers have too, since they send little.
    fn starving(&mut self, now: Duration, origin: PeerId) -> bool {
        let peers = self.sources.values().filter(|source| !source.origin && !source.owed.is_empty());
        let fed: f64 =
            peers.filter(|source| !source.silent(now)).map(|source| source.rate().unwrap_or(f64::INFINITY)).sum();
        let can = self.sources.get(&origin).and_then(Source::rate).unwrap_or(0.0);
        if fed > POOR * can {
            self.fed = now;
        }
        let chunk = self.typical_chunk() as f64 / self.typical_rate().unwrap_or(1.0);
        let patience = self.limits.patience.as_secs_f64().min(2.0 * chunk);
        now.saturating_sub(self.fed).as_secs_f64() > patience
    }

    /// Bytes a second of a peer of which nothing is known.
    fn typical_rate(&self) -> Option<f64> {
        let (sum, count) = self.sources.values().filter_map(Source::rate).fold((0.0, 0), |(s, n), r| (s + r, n + 1));
        if count == 0 { None } else { Some(sum / f64::from(count)) }
    }

    fn typical_chunk(&self) -> u64 {
        let missing = self.have.len().saturating_sub(self.have.count()).max(1) as u64;
        self.missing_bytes / missing
    }

    fn fits(&self, peer: PeerId, chunk: usize) -> bool {
        let bytes = u64::from(self.wire_bytes[chunk]);
        let owed = self.sources.get(&peer).map_or(0, |source| source.owed_bytes);
        owed + bytes <= self.limits.window && self.on_the_way + bytes <= self.limits.memory
    }
}
