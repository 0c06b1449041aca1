//! How many bytes may be on the way to a receiver, and what that shows of the link.
//!
//! After BBR (Cardwell et al., 2016): the window is twice what the link carries in its shortest round trip, so that it is
//! always full and little waits in front of it. The rate is the greatest, the round trip the least of what was seen lately.

use std::{collections::VecDeque, time::Duration};

/// The window at first, and at least: what a chunk's first bytes need to show how fast the link is. What is behind it waits:
/// 5 ms at 50 Mbit/s.
const LEAST: u64 = 32 * 1024;
/// Bytes of one message, at least and at most.
const LEAST_PIECE: u64 = 8 * 1024;
const MOST_PIECE: u64 = 64 * 1024;
/// The window at most: a second at a gigabit.
const MOST: u64 = 128 << 20;
/// Round trips over which the greatest rate is kept.
const ROUNDS: usize = 10;
/// How long the least round trip is believed.
const BELIEVED: Duration = Duration::from_secs(10);

/// The bytes on their way to one receiver.
#[derive(Debug)]
pub(super) struct Window {
    size: u64,
    sent: u64,
    arrived: u64,
    /// For each frame that is on its way: the bytes sent with it, when, and how many had arrived then and when that was.
    frames: VecDeque<Frame>,
    last_arrival: Duration,
    rates: VecDeque<(u64, f64)>,
    round: u64,
    round_end: u64,
    trip: Option<(Duration, Duration)>,
    /// While the least round trip is measured anew little is on the way; only what is sent after so many bytes counts.
    probe: Option<u64>,
    smoothed: Option<(f64, f64)>,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    end: u64,
    at: Duration,
    arrived: u64,
    arrived_at: Duration,
    /// Whether more would have been sent if more were allowed: else the rate is the sender's, not the link's.
    full: bool,
}

/// What was seen of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seen {
    /// Bytes a second, at most, lately; 0: not known.
    pub bytes_per_second: f64,
    /// Seconds of the shortest round trip lately; 0: not known.
    pub round_trip_seconds: f64,
    /// Seconds by which round trips differ, smoothed.
    pub jitter_seconds: f64,
    /// The share of segments that were sent again, 0 to 1; none: not known.
    pub loss: Option<f64>,
}

impl Window {
    pub(super) fn new(now: Duration) -> Self {
        Self {
            size: LEAST,
            sent: 0,
            arrived: 0,
            frames: VecDeque::new(),
            last_arrival: now,
            rates: VecDeque::new(),
            round: 0,
            round_end: 0,
            trip: None,
            probe: None,
            smoothed: None,
        }
    }

    /// How many bytes may be sent now.
    pub(super) fn room(&self) -> u64 {
        self.size.saturating_sub(self.sent - self.arrived)
    }

    /// Bytes of the next message: several are on the way, so that what arrives tells how fast the link is.
    pub(super) fn piece(&self) -> usize {
        (self.size / 4).clamp(LEAST_PIECE, MOST_PIECE) as usize
    }

    /// Whether no more is on its way than the link carries in a round trip; nothing at all before that is known.
    pub(super) fn is_nearly_empty(&self) -> bool {
        let seen = self.seen();
        (self.sent - self.arrived) as f64 <= seen.bytes_per_second * seen.round_trip_seconds
    }

    /// Whether nothing is on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.sent == self.arrived
    }

    /// So many bytes are sent. `full` where more wait behind them.
    pub(super) fn send(&mut self, now: Duration, bytes: u64, full: bool) {
        if self.frames.is_empty() {
            self.last_arrival = now;
        }
        self.sent = self.sent.saturating_add(bytes);
        let (arrived, arrived_at) = (self.arrived, self.last_arrival);
        self.frames.push_back(Frame { end: self.sent, at: now, arrived, arrived_at, full });
    }

    /// So many bytes have arrived; more than were sent count as all.
    pub(super) fn credit(&mut self, now: Duration, bytes: u64) {
        self.arrived = self.arrived.saturating_add(bytes).min(self.sent);
        let mut last = None;
        while let Some(frame) = self.frames.front().filter(|frame| frame.end <= self.arrived) {
            last = Some(*frame);
            self.frames.pop_front();
        }
        self.last_arrival = now;
        let Some(frame) = last else { return };
        self.saw_trip(now, &frame);
        self.saw_rate(now, &frame);
        let seen = self.seen();
        if self.probe.is_some() {
            self.size = LEAST;
        } else if seen.bytes_per_second > 0.0 {
            let wanted = 2.0 * seen.bytes_per_second * seen.round_trip_seconds;
            self.size = (wanted as u64).clamp(LEAST, MOST);
        }
    }

    fn saw_trip(&mut self, now: Duration, frame: &Frame) {
        let trip = now.saturating_sub(frame.at);
        match (self.probe, self.trip) {
            // It waited behind what was sent before.
            (Some(sent), _) if frame.end - frame.arrived > LEAST || frame.end <= sent => {}
            (Some(_), _) | (None, None) => (self.trip, self.probe) = (Some((trip, now)), None),
            (None, Some((least, _))) if trip <= least => self.trip = Some((trip, now)),
            (None, Some((_, at))) if now.saturating_sub(at) > BELIEVED => self.probe = Some(self.sent),
            (None, Some(_)) => {}
        }
        // RFC 6298.
        let seconds = trip.as_secs_f64();
        self.smoothed = Some(match self.smoothed {
            None => (seconds, 0.0),
            Some((mean, deviation)) => {
                (mean + (seconds - mean) / 8.0, deviation + ((seconds - mean).abs() - deviation) / 4.0)
            }
        });
    }

    fn saw_rate(&mut self, now: Duration, frame: &Frame) {
        let seconds = now.saturating_sub(frame.arrived_at).as_secs_f64();
        let rate = (self.arrived - frame.arrived) as f64 / seconds.max(1e-6);
        if self.arrived >= self.round_end {
            (self.round, self.round_end) = (self.round + 1, self.sent);
        }
        // What was not held back by the window shows only a lower bound.
        if frame.full || self.rates.iter().all(|(_, known)| rate > *known) {
            self.rates.push_back((self.round, rate));
        }
        while self.rates.len() > 1 && self.rates.front().is_some_and(|(round, _)| self.round - round > ROUNDS as u64) {
            self.rates.pop_front();
        }
        while self.rates.len() > 64 {
            self.rates.pop_front();
        }
    }

    /// What was seen of the link.
    pub(super) fn seen(&self) -> Seen {
        Seen {
            bytes_per_second: self.rates.iter().map(|(_, rate)| *rate).fold(0.0, f64::max),
            round_trip_seconds: self.trip.map_or(0.0, |(least, _)| least.as_secs_f64()),
            jitter_seconds: self.smoothed.map_or(0.0, |(_, deviation)| deviation),
            loss: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A link of such a rate and round trip, over which so many bytes go; the seconds that it takes.
    fn seconds(rate: f64, trip: f64, total: u64) -> (f64, Window) {
        let at = |seconds: f64| Duration::from_secs_f64(seconds);
        let mut window = Window::new(Duration::ZERO);
        let (mut now, mut free, mut left) = (0.0f64, 0.0f64, total);
        let mut arrivals: VecDeque<(f64, u64)> = VecDeque::new();
        while left > 0 || !arrivals.is_empty() {
            while left > 0 && window.room() > 0 {
                let bytes = left.min(window.piece() as u64);
                left -= bytes;
                window.send(at(now), bytes, left > 0);
                free = free.max(now) + bytes as f64 / rate;
                arrivals.push_back((free + trip, bytes));
            }
            let Some((arrival, bytes)) = arrivals.pop_front() else { break };
            now = arrival;
            window.credit(at(now), bytes);
        }
        (now, window)
    }

    #[test]
    fn a_link_is_full_and_little_waits_in_front_of_it() {
        for (rate, trip) in
            [(6.25e6, 0.001), (125e6, 0.0002), (125e6, 0.05), (1.25e9, 0.0001), (1.25e9, 0.02), (1e6, 0.3)]
        {
            let total = (rate * (60.0 * trip + 1.0)) as u64;
            let (took, window) = seconds(rate, trip, total);
            let least = total as f64 / rate + trip;
            // It doubles each round trip at first.
            assert!(took < least * 1.05 + 14.0 * trip, "{rate} {trip}: {took} of {least}");
            let seen = window.seen();
            assert!((seen.bytes_per_second / rate - 1.0).abs() < 0.1, "{rate} {trip}: {seen:?}");
            assert!(window.size as f64 <= (2.5 * rate * (trip + 65_536.0 / rate)).max(LEAST as f64), "{window:?}");
        }
    }

    #[test]
    fn a_receiver_that_lies_is_believed_no_more_than_was_sent() {
        let mut window = Window::new(Duration::ZERO);
        window.send(Duration::ZERO, 1000, true);
        window.credit(Duration::from_millis(1), u64::MAX);
        assert_eq!((window.sent - window.arrived, window.room() >= LEAST), (0, true));
        window.credit(Duration::from_millis(1), 5);
        assert_eq!(window.sent - window.arrived, 0);
    }
}
