//! Is the other end still there? Pings, round trips, and the two limits that follow from them.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Time between two pings on control.
pub const KEEPALIVE: Duration = Duration::from_millis(200);
/// Length of a lease on a link whose round trip is short.
pub const LEASE: Duration = Duration::from_millis(750);
/// How long a scheduler that comes to lead waits for workers to be back with what they run for jobs. A worker that has heard of no
/// scheduler for 80% of it gives that up: what is run elsewhere then is not run twice at once.
pub const WORK_LEASE: Duration = Duration::from_secs(10);

/// The shortest time in which a ping must be answered.
const TIMEOUT: Duration = Duration::from_millis(200);
/// The longest: a peer that answers late must not buy itself a lease of minutes.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Time without a look after which this end is taken to have stood still.
const STOOD_STILL: Duration = Duration::from_millis(150);
/// Round trips that the quantiles are taken over: about 20 s of pings.
const SAMPLES: usize = 100;

/// One end's view of the other.
///
/// Any frame shows that the other end lives, and renews its lease; pings make sure that there is one.
#[derive(Debug)]
pub struct KeepAlive {
    last_frame: Instant,
    last_ping: Option<Instant>,
    waiting: VecDeque<(u64, Instant)>,
    next_sequence: u64,
    round_trips: VecDeque<Duration>,
    shortest_lease: Duration,
    last_look: Option<Instant>,
    /// Whether time was forgiven since the last frame.
    forgiven: bool,
}

impl KeepAlive {
    /// Starts with a frame seen `now`; `lease` is its length on a link whose round trip is short.
    pub fn new(now: Instant, lease: Duration) -> Self {
        Self {
            last_frame: now,
            last_ping: None,
            waiting: VecDeque::new(),
            next_sequence: 1,
            round_trips: VecDeque::with_capacity(SAMPLES),
            shortest_lease: lease,
            last_look: None,
            forgiven: false,
        }
    }

    /// Called every few milliseconds, before the other end is judged: for as long as this end stood still, what came was not
    /// read, and says nothing of the other. Once until a frame comes, or an overloaded machine would never see a loss.
    pub fn look(&mut self, now: Instant) {
        let gap = self.last_look.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        self.last_look = Some(now);
        if gap > STOOD_STILL && !self.forgiven {
            self.forgiven = true;
            self.last_frame = (self.last_frame + gap).min(now);
        }
    }

    /// The sequence of the ping that is due, if one is.
    pub fn ping(&mut self, now: Instant) -> Option<u64> {
        if self.last_ping.is_some_and(|last| now.saturating_duration_since(last) < KEEPALIVE) {
            return None;
        }
        self.last_ping = Some(now);
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        // A peer that never answers must not grow the list.
        if self.waiting.len() == SAMPLES {
            self.waiting.pop_front();
        }
        self.waiting.push_back((sequence, now));
        Some(sequence)
    }

    /// Any frame came.
    pub fn frame(&mut self, now: Instant) {
        if self.is_suspect(now) {
            // How long a peer stood still says nothing of the link: counted as round trips, one freeze would lengthen the
            // time-out by which the next is seen.
            self.waiting.clear();
        }
        self.last_frame = self.last_frame.max(now);
        self.forgiven = false;
    }

    /// A pong came; a number that was never sent, or was answered before, is ignored.
    pub fn pong(&mut self, sequence: u64, now: Instant) {
        self.frame(now);
        let Some(at) = self.waiting.iter().position(|(sent, _)| *sent == sequence) else { return };
        let sent = self.waiting[at].1;
        self.waiting.drain(..=at);
        if self.round_trips.len() == SAMPLES {
            self.round_trips.pop_front();
        }
        self.round_trips.push_back(now.saturating_duration_since(sent));
    }

    /// A quantile of the recent round trips, 0 to 1; `None` before the first.
    pub fn round_trip(&self, quantile: f64) -> Option<Duration> {
        let mut sorted: Vec<Duration> = self.round_trips.iter().copied().collect();
        sorted.sort_unstable();
        let rank = ((sorted.len() as f64 * quantile).ceil() as usize).max(1);
        sorted.get(rank - 1).copied()
    }

    /// How long nothing came.
    pub fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last_frame)
    }

    /// The time in which a ping must be answered: max(200 ms, 4 × p99 of the round trip), 5 s at most.
    pub fn timeout(&self) -> Duration {
        (self.round_trip(0.99).unwrap_or_default() * 4).clamp(TIMEOUT, LONGEST_TIMEOUT)
    }

    /// The lease's length, scaled as the time-out is.
    pub fn lease(&self) -> Duration {
        self.shortest_lease.mul_f64(self.timeout().as_secs_f64() / TIMEOUT.as_secs_f64())
    }

    /// Nothing came for longer than a ping and its answer may take: no new work should go there.
    pub fn is_suspect(&self, now: Instant) -> bool {
        self.silence(now) > KEEPALIVE + self.timeout()
    }

    /// The lease has ended.
    pub fn is_dead(&self, now: Instant) -> bool {
        self.silence(now) > self.lease()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_freeze_does_not_lengthen_the_time_out() {
        let start = Instant::now();
        let mut frozen = KeepAlive::new(start, LEASE);
        let mut now = start;
        for _ in 0..10 {
            let ping = frozen.ping(now).unwrap();
            frozen.pong(ping, now + MS);
            now += KEEPALIVE;
        }
        let sent: Vec<u64> = (0..5).map(|beat| frozen.ping(now + KEEPALIVE * beat).unwrap()).collect();
        let back = now + Duration::from_secs(1);
        assert!(frozen.is_suspect(back));
        sent.into_iter().for_each(|ping| frozen.pong(ping, back));
        assert_eq!(frozen.timeout(), TIMEOUT);
        assert!(!frozen.is_suspect(back));
    }

    #[test]
    fn pings_are_due_every_interval_and_measure_the_round_trip() {
        let start = Instant::now();
        let mut link = KeepAlive::new(start, LEASE);
        assert_eq!(link.ping(start), Some(1));
        assert_eq!(link.ping(start + 199 * MS), None);
        assert_eq!(link.ping(start + 200 * MS), Some(2));
        link.pong(1, start + 10 * MS);
        link.pong(2, start + 230 * MS);
        link.pong(2, start + 900 * MS);
        assert_eq!(link.round_trip(0.5), Some(10 * MS));
        assert_eq!(link.round_trip(0.99), Some(30 * MS));
    }

    #[test]
    fn silence_makes_suspect_then_dead_and_any_frame_renews() {
        let start = Instant::now();
        let mut link = KeepAlive::new(start, LEASE);
        assert!(!link.is_suspect(start + 400 * MS));
        assert!(link.is_suspect(start + 401 * MS) && !link.is_dead(start + 750 * MS));
        assert!(link.is_dead(start + 751 * MS));
        link.frame(start + 600 * MS);
        assert!(!link.is_suspect(start + 1000 * MS));
    }

    #[test]
    fn time_in_which_this_end_stood_still_is_no_silence_of_the_other() {
        let start = Instant::now();
        let mut link = KeepAlive::new(start, LEASE);
        (0..10).for_each(|beat| link.look(start + 20 * MS * beat));
        // It wakes up after 1.2 s: what came meanwhile is yet to be read.
        let woken = start + 1380 * MS;
        link.look(woken);
        assert!(!link.is_suspect(woken) && link.silence(woken) == 180 * MS);
        // It was dead all the same.
        let later = woken + 1200 * MS;
        link.look(later);
        assert!(link.is_dead(later), "it is forgiven once");
        link.frame(later);
        let again = later + 1000 * MS;
        link.look(again);
        assert!(!link.is_suspect(again));
    }

    #[test]
    fn a_slow_link_gets_time_in_proportion() {
        let (start, late) = (Instant::now(), 500 * MS);
        let mut link = KeepAlive::new(start, LEASE);
        let mut under_way = VecDeque::new();
        let mut last = start;
        for beat in 0..20 {
            let now = start + KEEPALIVE * beat;
            while let Some((ping, sent)) = under_way.pop_front_if(|(_, sent)| *sent + late <= now) {
                last = sent + late;
                link.pong(ping, last);
            }
            under_way.push_back((link.ping(now).unwrap(), now));
        }
        assert_eq!(link.timeout(), 2000 * MS);
        assert_eq!(link.lease(), 7500 * MS);
        assert!(!link.is_dead(last + 7500 * MS) && link.is_dead(last + 7501 * MS));
    }
}
