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

/// No more is wanted while so many times what keeps the link busy is on its way, and peers that were told so are told when it
/// is less than so much.
const DEPTH: f64 = 3.0;
pub(super) const OPEN: f64 = 2.5;
/// The link is kept busy for two answers and as long as so many chunks take.
const AHEAD: f64 = 2.0;
/// What a chunk that is on its way counts for before anything is known of the link.
const UNKNOWN: f64 = 4.0;
/// The origin is asked for common chunks too when all others together send less than this part of what it can.
const POOR: f64 = 0.25;
/// A chunk is wanted a second time from a peer that would bring it in less than this part of the time left.
const SOONER: f64 = 0.25;

impl Download {
    /// The chunk to want from a peer that has a turn, or why none.
    pub(super) fn choose(&mut self, now: Duration, peer: PeerId, hint: Option<usize>) -> Result<usize, Open> {
        let enough = self.promised(now) > DEPTH;
        let source = self.sources.get(&peer).ok_or(Open::Nothing)?;
        if source.aside.is_some() || enough {
            return Err(Open::Busy);
        }
        let origin = source.origin;
        let spared = origin && !self.starving(now, peer);
        let last = if spared { 1 } else { self.availability.levels() };
        self.random = mix(self.random);
        let source = self.sources.get_mut(&peer).ok_or(Open::Nothing)?;
        let chunk = (source.floor..last).find_map(|level| {
            let found = self.availability.at(level, &source.has, self.random);
            if found.is_none() && level == source.floor {
                source.floor += 1;
            }
            hint.filter(|hint| found.is_some() && source.has.contains(*hint) && self.availability.has_at(level, *hint))
                .or(found)
        });
        let hedge = || if spared { None } else { self.hedge(now, peer) };
        let chunk = chunk.or_else(hedge).ok_or(Open::Nothing)?;
        if self.fits(peer, chunk) { Ok(chunk) } else { Err(Open::Busy) }
    }

    /// Whether other peers than one that was just asked may offer turns. Those that may not wait for a word.
    pub(super) fn close_others(&mut self, now: Duration, asked: PeerId) -> bool {
        let enough = self.promised(now) > DEPTH;
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
            Open::Busy => source.aside.is_none() && self.promised(now) <= OPEN && self.fits_largest(peer),
            Open::Nothing => self.choose(now, peer, None).is_ok(),
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

    /// Bytes a second that this node's link took at best, lately; `None` before that is measured.
    pub(super) fn capacity(&self) -> Option<f64> {
        let fastest = self.sources.values().filter_map(Source::rate).fold(0.0, f64::max);
        self.link.peak().map(|peak| peak.max(fastest))
    }

    /// What is on its way, as a part of what keeps this node's link busy until more can come.
    pub(super) fn promised(&self, now: Duration) -> f64 {
        let live = self.sources.values().filter(|source| source.aside.is_none() && !source.silent(now));
        let Some(capacity) = self.capacity() else {
            return live.map(|source| source.owed.len()).sum::<usize>() as f64 * UNKNOWN;
        };
        let horizon = 2.0 * self.reach + AHEAD * self.typical_chunk() as f64 / capacity;
        let comes = live.map(|source| (source.unsent() as f64).min(source.rate().unwrap_or(capacity) * horizon));
        comes.sum::<f64>() / (capacity * horizon).max(1.0)
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
        let patience = self.limits.patience.as_secs_f64().min(8.0 * chunk);
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

    pub(super) fn fits_largest(&self, peer: PeerId) -> bool {
        let owed = self.sources.get(&peer).map_or(0, |source| source.owed_bytes);
        owed + self.largest <= self.limits.window && self.on_the_way + self.largest <= self.limits.memory
    }

    fn fits(&self, peer: PeerId, chunk: usize) -> bool {
        let bytes = u64::from(self.wire_bytes[chunk]);
        let owed = self.sources.get(&peer).map_or(0, |source| source.owed_bytes);
        owed + bytes <= self.limits.window && self.on_the_way + bytes <= self.limits.memory
    }
}
