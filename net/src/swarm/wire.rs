//! What is being sent, and when the wire will be free for more.

use std::time::Duration;

use super::{meter::Meter, upload::Receiver};

/// Chunks that are being sent at once, at most.
const LANES: usize = 8;
/// Another chunk is sent beside those that together take less than this part of what the link took.
const BUSY: f64 = 0.9;
/// A receiver holds others up no longer when its chunk takes so many times longer than one should.
const SLOW: f64 = 2.0;
/// How long a chunk may take before anything is known of the link.
const UNKNOWN: Duration = Duration::from_secs(1);
/// Weight of a new measurement of how long an answer takes.
const NEWEST: f64 = 0.125;
/// Part by which a chunk may be slower than the fastest lately before that is forgotten.
const FORGET: f64 = 1.05;

/// A chunk that is being sent.
#[derive(Clone, Copy, Debug)]
struct Lane {
    receiver: Receiver,
    chunk: usize,
    size: u64,
    since: Duration,
    bytes: u64,
}

/// The chunks that are being sent.
#[derive(Debug, Default)]
pub(super) struct Wire {
    lanes: Vec<Lane>,
    link: Meter,
    /// When sending a chunk last began or ended, and bytes since.
    changed: Duration,
    bytes: u64,
    /// Seconds from a turn to its answer, and bytes a second of the fastest chunk lately; 0 if not measured.
    answer: f64,
    rate: f64,
    /// Bytes of the largest chunk so far.
    largest: u64,
}

impl Wire {
    /// A turn was answered.
    pub(super) fn answered(&mut self, took: Duration) {
        let took = took.as_secs_f64();
        self.answer = if self.answer == 0.0 { took } else { self.answer + NEWEST * (took - self.answer) };
    }

    /// A chunk begins to be sent.
    pub(super) fn begin(&mut self, now: Duration, receiver: Receiver, chunk: usize, size: u64) {
        self.lanes.push(Lane { receiver, chunk, size: size.max(1), since: now, bytes: 0 });
        (self.changed, self.bytes) = (now, 0);
    }

    /// More of a chunk is on the wire.
    pub(super) fn progress(&mut self, now: Duration, receiver: Receiver, chunk: usize, bytes: u64) {
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.receiver == receiver && lane.chunk == chunk) else {
            return;
        };
        lane.bytes = lane.bytes.saturating_add(bytes);
        self.link.add(now, bytes, lane.size);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// A chunk is sent, or is not sent any more; false if it was not being sent.
    pub(super) fn end(&mut self, now: Duration, receiver: Receiver, chunk: usize) -> bool {
        let place = self.lanes.iter().position(|lane| lane.receiver == receiver && lane.chunk == chunk);
        let Some(lane) = place.map(|place| self.lanes.swap_remove(place)) else { return false };
        (self.changed, self.bytes) = (now, 0);
        self.largest = self.largest.max(lane.size);
        // A small one goes into a buffer at once, which says nothing of the link.
        if lane.bytes >= lane.size && lane.size > self.largest / 2 {
            let rate = lane.size as f64 / now.saturating_sub(lane.since).as_secs_f64().max(1e-3);
            self.rate = rate.max(self.rate / FORGET);
        }
        true
    }

    /// Nothing is sent to a receiver any more.
    pub(super) fn left(&mut self, now: Duration, receiver: Receiver) {
        self.lanes.retain(|lane| lane.receiver != receiver);
        (self.changed, self.bytes) = (now, 0);
    }

    /// Whether this chunk is being sent.
    pub(super) fn sends(&self, receiver: Receiver, chunk: usize) -> bool {
        self.lanes.iter().any(|lane| lane.receiver == receiver && lane.chunk == chunk)
    }

    /// Whether a receiver is being sent something.
    pub(super) fn serves(&self, receiver: Receiver) -> bool {
        self.lanes.iter().any(|lane| lane.receiver == receiver)
    }

    /// Whether the link takes another chunk: those that are being sent leave much of it unused.
    pub(super) fn has_room(&self, now: Duration) -> bool {
        let took = now.saturating_sub(self.changed);
        let Some(peak) = self.link.peak().filter(|_| !self.lanes.is_empty()) else {
            return self.lanes.is_empty() || took > UNKNOWN;
        };
        // What slow receivers leave is used at once.
        let rate = |lane: &Lane| lane.bytes as f64 / now.saturating_sub(lane.since).as_secs_f64().max(1e-9);
        let slow = self.lanes.iter().all(|lane| self.slow(now, lane));
        let idle = slow && self.lanes.iter().map(rate).sum::<f64>() < BUSY * peak;
        self.lanes.len() < LANES && (idle || (self.bytes as f64) < BUSY * peak * took.as_secs_f64())
    }

    fn slow(&self, now: Duration, lane: &Lane) -> bool {
        let expected = self.link.peak().map_or(UNKNOWN.as_secs_f64(), |peak| lane.size as f64 / peak);
        now.saturating_sub(lane.since).as_secs_f64() > SLOW * expected
    }

    /// Bytes left to send of what is being sent, but for what takes much longer than it should.
    pub(super) fn left_to_send(&self, now: Duration) -> u64 {
        let lanes = self.lanes.iter().filter(|lane| !self.slow(now, lane));
        lanes.map(|lane| lane.size.saturating_sub(lane.bytes)).sum()
    }

    /// Bytes that the wire sends while a turn is answered.
    pub(super) fn bytes_an_answer(&self, now: Duration) -> f64 {
        let begun = |lane: &Lane| lane.bytes as f64 / now.saturating_sub(lane.since).as_secs_f64().max(1e-3);
        let measured = self.link.peak().map_or(self.rate, |peak| peak.max(self.rate));
        self.answer * if measured > 0.0 { measured } else { self.lanes.iter().map(begun).sum() }
    }
}
