//! When to stop sending to a replica that fails, and when to try it again.

use crate::mix::mix;

/// Failures in a row that open a breaker.
const FAILURES: u8 = 5;
/// Newest outcomes that the share of failures is taken over.
const RECENT: u32 = 20;
const RECENT_MASK: u32 = (1 << RECENT) - 1;
/// Nanoseconds that a breaker is open at first, and at most.
const SHORTEST: u64 = 1_000_000_000;
const LONGEST: u64 = 30_000_000_000;
/// Part of the back-off by which it varies either way, so that breakers that opened together do not probe in step.
const JITTER: f64 = 0.1;

/// What a breaker lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Everything.
    Closed,
    /// Nothing, until its back-off is over.
    Open,
    /// One probe, whose outcome closes or opens it.
    HalfOpen,
}

/// A circuit breaker, for one model on one device.
///
/// It opens after 5 failures in a row, or when more than half of the last 20 outcomes were failures. It stays open for
/// 1 s, doubling up to 30 s each time that a probe fails (± 10%), and closes when a probe succeeds. While a probe is
/// out, any outcome counts as the probe's. Times are nanoseconds of any one clock.
#[derive(Clone, Debug)]
pub struct Breaker {
    phase: Phase,
    random: u64,
    /// Outcomes since it closed, the newest in the lowest bit; a failure is 1.
    outcomes: u32,
    seen: u8,
    in_a_row: u8,
    failures: u8,
    /// Times that it opened since it was last closed.
    opened: u8,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Closed,
    OpenUntil(u64),
    ProbeSince(u64),
}

impl Breaker {
    /// A closed breaker; equal seeds give equal jitter.
    pub fn new(seed: u64) -> Self {
        Self { phase: Phase::Closed, random: seed, outcomes: 0, seen: 0, in_a_row: 0, failures: FAILURES, opened: 0 }
    }

    /// Opens after so many failures in a row instead of 5; 0 counts as 1.
    pub fn opening_after(self, failures: u8) -> Self {
        Self { failures: failures.max(1), ..self }
    }

    /// What it lets through.
    pub fn state(&self, now: u64) -> BreakerState {
        match self.phase {
            Phase::Closed => BreakerState::Closed,
            Phase::OpenUntil(until) if now < until => BreakerState::Open,
            Phase::OpenUntil(_) | Phase::ProbeSince(_) => BreakerState::HalfOpen,
        }
    }

    /// Whether a request may be sent now.
    pub fn allows(&self, now: u64) -> bool {
        match self.phase {
            Phase::Closed => true,
            Phase::OpenUntil(until) => now >= until,
            // A probe that never ends must not keep the replica out for ever.
            Phase::ProbeSince(since) => now.saturating_sub(since) >= LONGEST,
        }
    }

    /// A request that was allowed is sent. Only a half-open breaker takes note: it is the probe.
    pub fn probe_started(&mut self, now: u64) {
        if self.state(now) == BreakerState::HalfOpen {
            self.phase = Phase::ProbeSince(now);
        }
    }

    /// A request succeeded.
    pub fn success(&mut self, _now: u64) {
        match self.phase {
            Phase::Closed => self.note(false),
            Phase::ProbeSince(_) => *self = Self { random: self.random, failures: self.failures, ..Self::new(0) },
            // Sent before it opened: it says nothing about now.
            Phase::OpenUntil(_) => {}
        }
    }

    /// A request failed.
    pub fn failure(&mut self, now: u64) {
        match self.phase {
            Phase::Closed => {
                self.note(true);
                let share = self.seen as u32 == RECENT && self.outcomes.count_ones() * 2 > RECENT;
                if self.in_a_row >= self.failures || share {
                    self.open(now);
                }
            }
            Phase::ProbeSince(_) => self.open(now),
            // Sent before it opened: many that fail together open it once.
            Phase::OpenUntil(_) => {}
        }
    }

    /// A request ended without saying anything of the replica. If it was the probe, the next request is.
    pub fn probe_lost(&mut self) {
        if matches!(self.phase, Phase::ProbeSince(_)) {
            self.phase = Phase::OpenUntil(0);
        }
    }

    fn note(&mut self, failed: bool) {
        self.outcomes = (self.outcomes << 1 | u32::from(failed)) & RECENT_MASK;
        self.seen = (self.seen + 1).min(RECENT as u8);
        self.in_a_row = if failed { self.in_a_row.saturating_add(1) } else { 0 };
    }

    /// Nanoseconds from one request that is let through to the next, should they go on failing; 0 while it is closed.
    pub fn pause(&self) -> u64 {
        if matches!(self.phase, Phase::Closed) { 0 } else { self.backoff() }
    }

    /// Nanoseconds for which it lets nothing through; of a probe that is under way that is not known, and 0.
    pub fn shut_for(&self, now: u64) -> u64 {
        match self.phase {
            Phase::OpenUntil(until) => until.saturating_sub(now),
            Phase::Closed | Phase::ProbeSince(_) => 0,
        }
    }

    fn backoff(&self) -> u64 {
        SHORTEST.saturating_mul(1 << self.opened.min(5)).min(LONGEST)
    }

    fn open(&mut self, now: u64) {
        let backoff = self.backoff();
        self.opened = self.opened.saturating_add(1);
        self.random = mix(self.random);
        let even = (self.random >> 11) as f64 / (1u64 << 53) as f64;
        let jittered = backoff as f64 * (1.0 + JITTER * (2.0 * even - 1.0));
        self.phase = Phase::OpenUntil(now.saturating_add(jittered as u64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Plays outcomes, `+` and `-`, a millisecond apart from `now` on.
    fn play(breaker: &mut Breaker, now: u64, outcomes: &str) -> u64 {
        outcomes.chars().fold(now, |now, outcome| {
            if outcome == '+' {
                breaker.success(now)
            } else {
                breaker.failure(now)
            }
            now + 1_000_000
        })
    }

    #[test]
    fn a_closed_breaker_opens_on_a_run_or_on_a_share_of_failures() {
        let half = "-+".repeat(10);
        let mostly = "---+".repeat(5);
        #[rustfmt::skip]
        let table = [
            (5, "".to_owned(),                  BreakerState::Closed, "nothing happened"),
            (5, "----".to_owned(),              BreakerState::Closed, "four in a row"),
            (5, "-----".to_owned(),             BreakerState::Open,   "five in a row"),
            (5, "+----+----".to_owned(),        BreakerState::Closed, "a success ends the run"),
            (2, "--".to_owned(),                BreakerState::Open,   "two in a row if two open it"),
            (0, "-".to_owned(),                 BreakerState::Open,   "none counts as one"),
            (5, mostly[..19].to_owned(),        BreakerState::Closed, "19 outcomes are too few for a share"),
            (5, format!("{mostly}-"),           BreakerState::Open,   "more than half of 20"),
            (5, half.clone(),                   BreakerState::Closed, "half of 20 is not over half"),
            (5, format!("{half}--"),            BreakerState::Open,   "11 of the last 20"),
            (5, "-+".repeat(15),                BreakerState::Closed, "old failures leave the window"),
        ];
        for (failures, outcomes, expected, what) in table {
            let mut breaker = Breaker::new(1).opening_after(failures);
            let now = play(&mut breaker, 0, &outcomes);
            assert_eq!(breaker.state(now), expected, "{what}: {outcomes}");
            assert_eq!(breaker.allows(now), expected == BreakerState::Closed, "{what}: {outcomes}");
        }
    }

    #[test]
    fn each_failed_probe_doubles_the_backoff_and_a_success_starts_it_small_again() {
        for seed in 0..50 {
            let mut breaker = Breaker::new(seed);
            let mut now = play(&mut breaker, 0, "-----") - 1_000_000;
            for expected in [1, 2, 4, 8, 16, 30, 30, 30].map(|seconds| seconds * SECOND) {
                assert!(!breaker.allows(now + expected * 9 / 10 - 1), "seed {seed}: {breaker:?}");
                assert!(breaker.allows(now + expected * 11 / 10), "seed {seed}: {breaker:?}");
                now += expected * 11 / 10;
                breaker.probe_started(now);
                breaker.failure(now);
                assert_eq!(breaker.state(now), BreakerState::Open);
            }
            breaker.probe_started(now + 40 * SECOND);
            breaker.success(now + 40 * SECOND);
            assert_eq!(breaker.state(now + 40 * SECOND), BreakerState::Closed);
            let now = play(&mut breaker, now + 40 * SECOND, "-----") - 1_000_000;
            assert!(breaker.allows(now + SECOND * 11 / 10), "seed {seed}: {breaker:?}");
        }
    }

    #[test]
    fn half_open_lets_one_probe_through_and_late_outcomes_change_nothing() {
        let mut breaker = Breaker::new(1);
        let now = play(&mut breaker, 0, "-----");
        breaker.probe_started(now);
        play(&mut breaker, now, "+--");
        assert_eq!(breaker.state(now), BreakerState::Open);
        let later = now + 2 * SECOND;
        assert_eq!(breaker.state(later), BreakerState::HalfOpen);
        play(&mut breaker, later, "-+");
        assert!(breaker.allows(later), "no probe was sent: {breaker:?}");
        breaker.probe_started(later);
        assert_eq!((breaker.state(later), breaker.allows(later)), (BreakerState::HalfOpen, false));
        assert!(breaker.allows(later + LONGEST), "a lost probe is replaced");
        breaker.success(later);
        assert_eq!(breaker.state(later), BreakerState::Closed);
        let now = play(&mut breaker, later, "----");
        assert!(breaker.allows(now), "it starts with a clean slate");
    }

    #[test]
    fn breakers_are_small_and_do_not_probe_in_step() {
        assert!(size_of::<Breaker>() <= 64);
        let reopens = |seed| {
            let mut breaker = Breaker::new(seed);
            play(&mut breaker, 0, "-----");
            (0..2 * SECOND).step_by(1_000_000).find(|now| breaker.allows(*now))
        };
        assert_eq!(reopens(3), reopens(3));
        assert_ne!(reopens(3), reopens(4));
    }

    #[test]
    fn a_probe_that_says_nothing_lets_the_next_request_be_the_probe() {
        let mut breaker = Breaker::new(1).opening_after(1);
        breaker.failure(0);
        breaker.probe_lost();
        assert_eq!(breaker.state(1), BreakerState::Open, "nothing was probed");
        let later = 2 * SECOND;
        breaker.probe_started(later);
        assert!(!breaker.allows(later + 1));
        breaker.probe_lost();
        assert!(breaker.allows(later + 1));
        breaker.probe_started(later + 2);
        breaker.success(later + 3);
        assert_eq!(breaker.state(later + 3), BreakerState::Closed);
        breaker.probe_lost();
        assert_eq!(breaker.state(later + 4), BreakerState::Closed);
    }
}
