//! Which chunk to want from a peer that has a turn.

use std::time::Duration;

use super::Download;
use crate::{
    mix::mix,
    swarm::{
        PeerId,
        flight::Flight,
        source::{Open, Source},
    },
};

/// No more is wanted while other peers send this part of what the link ever took, but for a trial, up to that part.
const ENOUGH: f64 = 0.7;
const TRIAL: f64 = 1.3;
/// The next chunk is looked for when this part of one is still to come, or more where answers take long.
const LEAD: f64 = 0.05;
/// The origin is asked for common chunks too when all others together send less than this part of what it can.
const POOR: f64 = 0.25;
/// A chunk is wanted a second time from a peer that would bring it in less than this part of the time left.
const SOONER: f64 = 0.5;

impl Download {
    /// The chunk to want from a peer that has a turn, or why none.
    pub(super) fn choose(&mut self, now: Duration, peer: PeerId) -> Result<usize, Open> {
        let enough = self.enough(now, peer);
        let source = self.sources.get(&peer).ok_or(Open::Nothing)?;
        if source.aside.is_some() || enough {
            return Err(Open::Busy);
        }
        let origin = source.origin;
        let last = if origin && !self.starving(now, peer) { 1 } else { self.availability.levels() };
        self.random = mix(self.random);
        let source = self.sources.get_mut(&peer).ok_or(Open::Nothing)?;
        let chunk = (source.floor..last).find_map(|level| {
            let found = self.availability.at(level, &source.has, self.random);
            if found.is_none() && level == source.floor {
                source.floor += 1;
            }
            found
        });
        let chunk = chunk.or_else(|| self.hedge(now, peer)).ok_or(Open::Nothing)?;
        if self.fits(peer, chunk) { Ok(chunk) } else { Err(Open::Busy) }
    }

    /// Whether other peers than one that was just asked may offer turns. Those that may not wait for a word.
    pub(super) fn close_others(&mut self, now: Duration, asked: PeerId) -> bool {
        let enough = self.promised(now, None) > ENOUGH;
        if enough {
            let others = self.sources.iter_mut().filter(|(peer, _)| **peer != asked);
            others.for_each(|(_, source)| source.open = Open::Busy);
        }
        !enough
    }

    /// Whether a peer that does not offer turns should do so again; it is to be told.
    pub(super) fn opens(&mut self, now: Duration, peer: PeerId) -> bool {
        let Some(source) = self.sources.get(&peer) else { return false };
        let opens = match source.open {
            Open::Yes => false,
            Open::Busy => source.aside.is_none() && !self.enough(now, peer) && self.fits_largest(peer),
            Open::Nothing => self.choose(now, peer).is_ok(),
        };
        if let Some(source) = self.sources.get_mut(&peer).filter(|_| opens) {
            source.open = Open::Yes;
        }
        opens
    }

    /// A chunk that would be here much sooner from this peer than from the one that it is wanted from. While others are
    /// wanted, though this peer has none of them, only one that is late.
    fn hedge(&self, now: Duration, peer: PeerId) -> Option<usize> {
        let all_come = self.availability.wanted().is_empty();
        let source = self.sources.get(&peer)?;
        let rate = self.typical_rate()?;
        let late = self.flights.iter().filter_map(|(chunk, flights)| {
            let [flight] = flights.as_slice() else { return None };
            if flight.peer == peer || !source.has.contains(*chunk) {
                return None;
            }
            let bytes = u64::from(self.wire_bytes[*chunk]);
            if !all_come && !flight.late(now) {
                return None;
            }
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

    /// Whether a turn of a peer would be a trial of whether this node's link takes more than seems enough.
    pub(super) fn probes(&self, now: Duration, peer: PeerId) -> bool {
        let promised = self.promised(now, Some(peer));
        promised > ENOUGH && self.tries(promised, peer)
    }

    /// Whether other peers send as much as this node's link takes, or will at once.
    fn enough(&self, now: Duration, peer: PeerId) -> bool {
        let promised = self.promised(now, Some(peer));
        promised > ENOUGH && !self.tries(promised, peer)
    }

    /// Whether to try with one chunk more: near the end of what comes, and never beside an origin, which that would slow.
    fn tries(&self, promised: f64, peer: PeerId) -> bool {
        if promised > TRIAL || !self.probe.is_due(self.have.count()) {
            return false;
        }
        let chunk = self.typical_chunk();
        let origin =
            self.sources.iter().any(|(other, source)| source.origin && (*other == peer || !source.owed.is_empty()));
        let busy = self.sources.iter().filter(|(other, source)| **other != peer && !source.owed.is_empty());
        let (unsent, count) = busy.fold((0, 0), |(sum, count), (_, source)| (sum + source.unsent(), count + 1));
        !origin && (self.probe.is_bold() || unsent <= chunk.saturating_mul(count) / 2)
    }

    /// Bytes left of what comes when this node looks for the next.
    pub(super) fn lead(&self) -> u64 {
        let answer = self.reach * self.capacity().unwrap_or(0.0);
        answer.max(LEAD * self.typical_chunk() as f64) as u64
    }

    /// Bytes a second that this node's link took at best, lately; `None` before that is measured.
    pub(super) fn capacity(&self) -> Option<f64> {
        let fastest = self.sources.values().filter_map(Source::rate).fold(0.0, f64::max);
        self.link.peak().map(|peak| peak.max(fastest))
    }

    /// What other peers send now or will at once, as a part of what this node's link ever took.
    fn promised(&self, now: Duration, peer: Option<PeerId>) -> f64 {
        let chunk = self.typical_chunk();
        let lead = self.lead();
        let busy = self.sources.iter().filter(|(other, source)| {
            Some(**other) != peer && source.unsent() > lead && !source.quiet(now, chunk) && source.aside.is_none()
        });
        let peak = self.capacity();
        busy.map(|(_, source)| source.rate().zip(peak).map_or(1.0, |(rate, peak)| rate / peak)).sum()
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

    pub(super) fn typical_chunk(&self) -> u64 {
        let missing = self.have.len().saturating_sub(self.have.count()).max(1) as u64;
        self.missing_bytes / missing
    }

    fn fits_largest(&self, peer: PeerId) -> bool {
        let owed = self.sources.get(&peer).map_or(0, |source| source.owed_bytes);
        owed + self.largest <= self.limits.window && self.on_the_way + self.largest <= self.limits.memory
    }

    fn fits(&self, peer: PeerId, chunk: usize) -> bool {
        let bytes = u64::from(self.wire_bytes[chunk]);
        let owed = self.sources.get(&peer).map_or(0, |source| source.owed_bytes);
        owed + bytes <= self.limits.window && self.on_the_way + bytes <= self.limits.memory
    }
}
