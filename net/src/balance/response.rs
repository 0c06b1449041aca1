//! Response times as they were seen: peak EWMA.

use std::collections::HashMap;

use super::{
    Balancer, Endpoint,
    penalty::{Penalties, PenaltyPolicy},
    turns::Turns,
};

/// Nanoseconds in which an old response time falls to 1/e.
const DECAY: f64 = 10e9;

/// The replica whose peak EWMA of response times, times the requests that it would then have, is least (Finagle's
/// `PeakEwma`): a slow answer counts at once and in full, and is forgotten over seconds. Until one has answered, its
/// prediction stands in. A failure's time makes it look no faster than the same time spent idle would, and costs a
/// penalty.
#[derive(Debug)]
pub(super) struct ResponseTime {
    turns: Turns,
    penalties: Penalties,
    seen: HashMap<u64, Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Peak EWMA and when it was taken; `None` before the first answer.
    peak: Option<(f64, u64)>,
    waiting: u32,
    /// When the last answer came, or when the first of those that wait was sent.
    silent_since: u64,
}

impl Seen {
    fn answered(&mut self, now: u64, latency: u64, ok: bool) {
        self.waiting = self.waiting.saturating_sub(1);
        self.silent_since = now;
        let newest = latency as f64;
        self.peak = match self.peak {
            Some((peak, at)) => {
                let kept = (-(now.saturating_sub(at) as f64) / DECAY).exp();
                let average = peak * kept + newest * (1.0 - kept);
                Some((if newest > peak { newest } else { average }, now))
            }
            None if ok => Some((newest, now)),
            None => None,
        };
    }

    /// Nanoseconds that an answer takes; one that has been silent for longer than that takes at least so long.
    fn nanos(&self, now: u64, predicted: u64) -> u64 {
        let decayed = self.peak.map(|(peak, at)| (peak * (-(now.saturating_sub(at) as f64) / DECAY).exp()) as u64);
        let silence = if self.waiting > 0 { now.saturating_sub(self.silent_since) } else { 0 };
        decayed.unwrap_or(predicted).max(silence)
    }
}

impl ResponseTime {
    pub(super) fn new(policy: PenaltyPolicy) -> Self {
        Self { turns: Turns::default(), penalties: Penalties::new(policy), seen: HashMap::new() }
    }
}

impl Balancer for ResponseTime {
    fn pick(&mut self, now: u64, endpoints: &[Endpoint], _key: Option<u64>) -> Option<usize> {
        self.turns.least(endpoints, |e| {
            let nanos = self.seen.get(&e.id).map_or(e.predicted, |seen| seen.nanos(now, e.predicted)).max(1);
            nanos.saturating_mul(u64::from(e.outstanding) + 1).saturating_add(self.penalties.nanos(now, e.id))
        })
    }

    fn started(&mut self, now: u64, id: u64) {
        let seen = self.seen.entry(id).or_default();
        if seen.waiting == 0 {
            seen.silent_since = now;
        }
        seen.waiting = seen.waiting.saturating_add(1);
    }

    fn finished(&mut self, now: u64, id: u64, latency: u64, ok: bool) {
        self.penalties.settle(now, id, ok);
        self.seen.entry(id).or_default().answered(now, latency, ok);
    }

    fn failed(&mut self, now: u64, id: u64) {
        self.penalties.settle(now, id, false);
    }

    fn forget(&mut self, id: u64) {
        self.penalties.forget(id);
        self.seen.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const OFF: PenaltyPolicy = PenaltyPolicy { first: 0, most: 0, decay: 1 };

    fn pair(outstanding: [u32; 2]) -> [Endpoint; 2] {
        [1, 2].map(|id| Endpoint { id, outstanding: outstanding[id as usize - 1], weight: 1.0, predicted: 20 * MS })
    }

    fn answered(latencies: &[(u64, u64, u64, bool)]) -> ResponseTime {
        let mut balancer = ResponseTime::new(OFF);
        latencies.iter().for_each(|&(now, id, latency, ok)| balancer.finished(now, id, latency, ok));
        balancer
    }

    #[test]
    fn the_choice_follows_peaks_decay_queues_and_silence() {
        let second = 1000 * MS;
        let mut steady = answered(&[(0, 1, 10 * MS, true), (0, 2, 15 * MS, true)]);
        assert_eq!(steady.pick(0, &pair([0, 0]), None), Some(0), "the faster one");
        assert_eq!(steady.pick(0, &pair([1, 0]), None), Some(1), "two of 10 ms are more than one of 15 ms");
        let mut peaked = answered(&[(0, 1, 10 * MS, true), (0, 2, 15 * MS, true), (1, 1, 90 * MS, true)]);
        assert_eq!(peaked.pick(1, &pair([0, 0]), None), Some(1), "one slow answer counts at once");
        peaked.finished(2, 1, 10 * MS, true);
        assert_eq!(peaked.pick(2, &pair([0, 0]), None), Some(1), "and one fast answer does not undo it");
        peaked.finished(60 * second, 2, 15 * MS, true);
        assert_eq!(peaked.pick(60 * second, &pair([0, 0]), None), Some(0), "but time does");
        let mut new = answered(&[(0, 1, 30 * MS, true)]);
        assert_eq!(new.pick(0, &pair([0, 0]), None), Some(1), "the prediction until the first answer");
        new.started(0, 2);
        assert_eq!(new.pick(31 * MS, &pair([0, 0]), None), Some(0), "silence is slowness");
        new.finished(31 * MS, 2, 31 * MS, true);
        new.forget(2);
        assert_eq!(new.pick(31 * MS, &pair([0, 0]), None), Some(1), "forgotten is new");
    }

    #[test]
    fn a_fast_failure_does_not_look_fast_and_a_slow_one_looks_slow() {
        let mut fast = answered(&[(0, 1, 10 * MS, true), (0, 2, 15 * MS, true), (1, 2, 1, false), (2, 2, 1, false)]);
        assert_eq!(fast.pick(2, &pair([0, 0]), None), Some(0));
        let mut slow = answered(&[(0, 1, 10 * MS, true), (0, 2, 15 * MS, true), (1, 1, 900 * MS, false)]);
        assert_eq!(slow.pick(1, &pair([0, 0]), None), Some(1));
        let mut unmeasured = answered(&[(0, 1, 10 * MS, true), (0, 2, 1, false)]);
        assert_eq!(unmeasured.pick(0, &pair([0, 0]), None), Some(0), "its prediction of 20 ms still stands in");
    }
}
