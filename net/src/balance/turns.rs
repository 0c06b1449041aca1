//! Taking turns: round robin, and smooth weighted round robin.

use std::collections::HashMap;

use super::{Balancer, Endpoint};

/// Credits that differ by less are equal: it is far more than what sums of shares are off by.
const ROUNDING: f64 = 1e-9;

/// Whose turn it is among equals.
#[derive(Debug, Default)]
pub(super) struct Turns {
    last: Option<u64>,
}

impl Turns {
    /// The cheapest endpoint; among equals the one that follows the last pick in the order of numbers, so that replicas
    /// that come and go do not disturb the others' turns.
    pub(super) fn least(&mut self, endpoints: &[Endpoint], cost: impl Fn(&Endpoint) -> u64) -> Option<usize> {
        let had_turn = |endpoint: &Endpoint| self.last.is_some_and(|last| endpoint.id <= last);
        let best = endpoints.iter().enumerate().min_by_key(|(_, e)| (cost(e), had_turn(e), e.id));
        let place = best?.0;
        self.last = Some(endpoints[place].id);
        Some(place)
    }
}

/// One after the other. Blind: a replica that fails gets the same share as the others.
#[derive(Debug, Default)]
pub(super) struct RoundRobin {
    turns: Turns,
}

impl Balancer for RoundRobin {
    fn pick(&mut self, _now: u64, endpoints: &[Endpoint], _key: Option<u64>) -> Option<usize> {
        self.turns.least(endpoints, |_| 0)
    }
}

/// Shares in proportion to the weights, spread evenly (nginx's smooth weighted round robin): at each pick an endpoint
/// earns its share of the whole, the richest is picked and pays the whole. Blind to failures.
#[derive(Debug, Default)]
pub(super) struct SmoothWeighted {
    credit: HashMap<u64, f64>,
}

impl Balancer for SmoothWeighted {
    fn pick(&mut self, _now: u64, endpoints: &[Endpoint], _key: Option<u64>) -> Option<usize> {
        // Shares of one, not weights: credit keeps its meaning when all weights change.
        let largest = endpoints.iter().map(weight).fold(0.0, f64::max);
        let share = |endpoint: &Endpoint| if largest > 0.0 { weight(endpoint) / largest } else { 1.0 };
        let total: f64 = endpoints.iter().map(share).sum();
        let mut richest: Option<(usize, f64)> = None;
        for (place, endpoint) in endpoints.iter().enumerate() {
            let earned = share(endpoint) / total;
            let credit = self.credit.entry(endpoint.id).or_default();
            *credit += earned;
            if earned > 0.0 && richest.is_none_or(|(_, most)| *credit > most + ROUNDING) {
                richest = Some((place, *credit));
            }
        }
        let (place, credit) = richest?;
        self.credit.insert(endpoints[place].id, credit - 1.0);
        Some(place)
    }

    fn forget(&mut self, id: u64) {
        self.credit.remove(&id);
    }
}

fn weight(endpoint: &Endpoint) -> f64 {
    if endpoint.weight.is_finite() { endpoint.weight.max(0.0) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(weights: &[f64]) -> Vec<Endpoint> {
        let endpoint =
            |(id, weight): (usize, &f64)| Endpoint { id: id as u64, outstanding: 0, weight: *weight, predicted: 0 };
        weights.iter().enumerate().map(endpoint).collect()
    }

    fn picks(balancer: &mut dyn Balancer, endpoints: &[Endpoint], count: usize) -> Vec<u64> {
        (0..count).map(|_| endpoints[balancer.pick(0, endpoints, None).unwrap()].id).collect()
    }

    #[test]
    fn round_robin_goes_on_where_it_was_when_replicas_come_and_go() {
        let (mut balancer, all) = (RoundRobin::default(), endpoints(&[1.0; 4]));
        assert_eq!(picks(&mut balancer, &all, 6), [0, 1, 2, 3, 0, 1]);
        assert_eq!(picks(&mut balancer, &[all[3], all[0], all[1]], 4), [3, 0, 1, 3]);
        assert_eq!(balancer.pick(0, &[], None), None);
    }

    #[test]
    fn smooth_weighted_spreads_its_picks_as_nginx_does() {
        let all = endpoints(&[5.0, 1.0, 1.0]);
        assert_eq!(picks(&mut SmoothWeighted::default(), &all, 7), [0, 0, 1, 0, 2, 0, 0]);
        // The same shares whatever the unit, and none to one whose weight is no number.
        let tiny = endpoints(&[5e-300, 1e-300, 1e-300, f64::NAN, f64::INFINITY, -1.0]);
        assert_eq!(picks(&mut SmoothWeighted::default(), &tiny, 7), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(picks(&mut SmoothWeighted::default(), &endpoints(&[0.0; 3]), 4), [0, 1, 2, 0]);
        assert_eq!(SmoothWeighted::default().pick(0, &[], None), None);
    }
}
