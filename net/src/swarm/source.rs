//! What a receiver knows of one of the peers that it downloads from.

use std::time::Duration;

use super::bitmap::Bitmap;

/// Weight of a new measurement of a rate, and where other peers sent meanwhile and may have slowed this one.
const NEWEST: f64 = 0.25;
const DISTURBED: f64 = 1.0 / 32.0;
/// A peer is silent when it has owed for so many times longer than it usually takes, and no less than this.
const SILENT: u32 = 2;
const SILENT_FLOOR: Duration = Duration::from_millis(50);
/// The same before it is known how long it takes.
const UNMEASURED: Duration = Duration::from_millis(200);

/// Whether a peer offers turns, as far as this node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Open {
    /// It does when it can.
    Yes,
    /// Not until it is told: this node had enough on its way.
    Busy,
    /// Not until it is told or has another chunk: it had nothing that this node wanted.
    Nothing,
}

/// A peer that has chunks, or will.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) origin: bool,
    pub(super) has: Bitmap,
    /// Chunks that are on their way to it.
    pub(super) coming: Vec<(usize, Duration)>,
    /// Chunks that it owes this node, in the order in which they were wanted.
    pub(super) owed: Vec<usize>,
    pub(super) owed_bytes: u64,
    /// Bytes that came of chunks that it still owes.
    pub(super) here: u64,
    /// When bytes last came of it, or it began to owe.
    pub(super) heard: Duration,
    /// When it last gave a sign of life without any.
    pub(super) alive: Duration,
    /// Until then it is not asked: it had stalled.
    pub(super) aside: Option<Duration>,
    /// Stalls since the last chunk that arrived.
    pub(super) stalls: u32,
    /// Whether it offers turns.
    pub(super) open: Open,
    pub(super) lies: u8,
    /// No wanted chunk that it has is of a lower level of availability.
    pub(super) floor: usize,
    /// Bytes a second while a chunk of it comes; 0 if not measured.
    rate: f64,
    /// Seconds from a want until its chunk is here; 0 if not measured.
    latency: f64,
}

impl Source {
    pub(super) fn new(now: Duration, origin: bool, has: Bitmap) -> Self {
        Self {
            origin,
            has,
            coming: Vec::new(),
            owed: Vec::new(),
            owed_bytes: 0,
            here: 0,
            heard: now,
            alive: now,
            aside: None,
            stalls: 0,
            open: Open::Yes,
            lies: 0,
            floor: 0,
            rate: 0.0,
            latency: 0.0,
        }
    }

    /// Whether its chunks count for what is rare: those of an origin do not.
    pub(super) fn counts(&self) -> bool {
        !self.origin && self.aside.is_none()
    }

    /// A chunk is not on its way to it any more; false if it was not.
    pub(super) fn not_coming(&mut self, chunk: usize) -> bool {
        let before = self.coming.len();
        self.coming.retain(|(coming, _)| *coming != chunk);
        self.coming.len() < before
    }

    /// Bytes a second that it sends at; `None` if not measured.
    pub(super) fn rate(&self) -> Option<f64> {
        (self.rate > 0.0).then_some(self.rate)
    }

    /// Seconds from a want until its chunk is here; 0 if not measured.
    pub(super) fn latency(&self) -> f64 {
        self.latency
    }

    /// A chunk came at `rate`, `latency` seconds after it was wanted, alone or beside chunks of others.
    pub(super) fn measured(&mut self, rate: f64, latency: f64, alone: bool) {
        if self.latency == 0.0 {
            (self.rate, self.latency) = (rate, latency);
            return;
        }
        // The peer can do what it did; whether it can do no better shows only while it is alone.
        let weight = if alone || rate > self.rate { NEWEST } else { DISTURBED };
        self.rate += weight * (rate - self.rate);
        self.latency += NEWEST * (latency - self.latency);
    }

    /// It owes something, and has been quiet for longer than it should.
    pub(super) fn silent(&self, now: Duration) -> bool {
        let usual = Duration::try_from_secs_f64(self.latency).unwrap_or(Duration::MAX);
        let floor = if self.latency > 0.0 { SILENT_FLOOR } else { UNMEASURED };
        let patience = usual.saturating_mul(SILENT).max(floor);
        !self.owed.is_empty() && now.saturating_sub(self.heard) > patience
    }

    /// Seconds until it has sent what it owes and `bytes` more, by a rate to assume if none was measured.
    pub(super) fn predicted(&self, bytes: u64, assumed: f64) -> f64 {
        self.owed_bytes.saturating_add(bytes) as f64 / self.rate().unwrap_or(assumed).max(1.0)
    }

    /// Bytes that it owes and that have not come.
    pub(super) fn unsent(&self) -> u64 {
        self.owed_bytes.saturating_sub(self.here)
    }

    /// It begins to owe a chunk.
    pub(super) fn owe(&mut self, now: Duration, chunk: usize, bytes: u64) {
        if self.owed.is_empty() {
            self.heard = now;
        }
        self.owed.push(chunk);
        self.owed_bytes = self.owed_bytes.saturating_add(bytes);
    }

    /// It owes a chunk no more; false if it did not.
    pub(super) fn settle(&mut self, chunk: usize, bytes: u64, here: u64) -> bool {
        let Some(place) = self.owed.iter().position(|owed| *owed == chunk) else { return false };
        self.owed.remove(place);
        self.owed_bytes = self.owed_bytes.saturating_sub(bytes);
        self.here = self.here.saturating_sub(here);
        true
    }
}
