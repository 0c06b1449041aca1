//! The least of a signal: predicted completion, and outstanding requests.

use super::{
    Balancer, Endpoint,
    penalty::{Penalties, PenaltyPolicy},
    turns::Turns,
};

/// Requests that a second of penalty counts for where load is counted in requests.
const REQUESTS_PER_SECOND: u64 = 100;

/// Outstanding requests, and those that the penalty stands for.
pub(super) fn load(endpoint: &Endpoint, penalty: u64) -> u64 {
    u64::from(endpoint.outstanding) + penalty / (1_000_000_000 / REQUESTS_PER_SECOND)
}

/// The replica that would answer soonest, failures counted in.
#[derive(Debug)]
pub(super) struct PredictedCompletion {
    turns: Turns,
    penalties: Penalties,
}

impl PredictedCompletion {
    pub(super) fn new(policy: PenaltyPolicy) -> Self {
        Self { turns: Turns::default(), penalties: Penalties::new(policy) }
    }
}

impl Balancer for PredictedCompletion {
    fn pick(&mut self, now: u64, endpoints: &[Endpoint], _key: Option<u64>) -> Option<usize> {
        self.turns.least(endpoints, |e| e.predicted.saturating_add(self.penalties.nanos(now, e.id)))
    }

    fn finished(&mut self, now: u64, id: u64, _latency: u64, ok: bool) {
        self.penalties.settle(now, id, ok);
    }

    fn failed(&mut self, now: u64, id: u64) {
        self.penalties.settle(now, id, false);
    }

    fn forget(&mut self, id: u64) {
        self.penalties.forget(id);
    }
}

/// The replica with the fewest outstanding requests.
#[derive(Debug)]
pub(super) struct LeastConnections {
    turns: Turns,
    penalties: Penalties,
}

impl LeastConnections {
    pub(super) fn new(policy: PenaltyPolicy) -> Self {
        Self { turns: Turns::default(), penalties: Penalties::new(policy) }
    }
}

impl Balancer for LeastConnections {
    fn pick(&mut self, now: u64, endpoints: &[Endpoint], _key: Option<u64>) -> Option<usize> {
        self.turns.least(endpoints, |e| load(e, self.penalties.nanos(now, e.id)))
    }

    fn finished(&mut self, now: u64, id: u64, _latency: u64, ok: bool) {
        self.penalties.settle(now, id, ok);
    }

    fn failed(&mut self, now: u64, id: u64) {
        self.penalties.settle(now, id, false);
    }

    fn forget(&mut self, id: u64) {
        self.penalties.forget(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(id: u64, outstanding: u32, predicted: u64) -> Endpoint {
        Endpoint { id, outstanding, weight: 1.0, predicted }
    }

    #[test]
    fn each_takes_the_least_of_its_own_signal_and_equals_in_turn() {
        let all = [endpoint(1, 3, 10), endpoint(2, 1, 30), endpoint(3, 1, 20)];
        let mut predicted = PredictedCompletion::new(PenaltyPolicy::default());
        assert_eq!([0; 3].map(|_| predicted.pick(0, &all, None)), [Some(0); 3]);
        let mut least = LeastConnections::new(PenaltyPolicy::default());
        assert_eq!([0; 3].map(|_| least.pick(0, &all, None)), [Some(1), Some(2), Some(1)]);
    }

    #[test]
    fn a_failure_costs_until_it_has_decayed_or_the_replica_is_forgotten() {
        let all = [endpoint(1, 0, 1_000_000), endpoint(2, 2, 30_000_000)];
        let both: [Box<dyn Balancer>; 2] = [
            Box::new(PredictedCompletion::new(PenaltyPolicy::default())),
            Box::new(LeastConnections::new(PenaltyPolicy::default())),
        ];
        for mut balancer in both {
            balancer.finished(0, 1, 1_000, false);
            assert_eq!(balancer.pick(0, &all, None), Some(1), "{balancer:?}");
            assert_eq!(balancer.pick(60_000_000_000, &all, None), Some(0), "{balancer:?}");
            balancer.forget(1);
            assert_eq!(balancer.pick(0, &all, None), Some(0), "{balancer:?}");
        }
    }
}
