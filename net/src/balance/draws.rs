//! Drawing lots: random, and the better of two drawn at random.

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    Balancer, Endpoint, least,
    penalty::{Penalties, PenaltyPolicy},
};

/// Any replica, each as likely. Blind: a replica that fails gets the same share as the others.
#[derive(Debug)]
pub(super) struct Random {
    random: StdRng,
}

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed) }
    }
}

impl Balancer for Random {
    fn pick(&mut self, _now: u64, endpoints: &[Endpoint], _key: Option<u64>) -> Option<usize> {
        (!endpoints.is_empty()).then(|| self.random.random_range(0..endpoints.len()))
    }
}

/// Of two different replicas drawn at random the one with fewer outstanding requests, of equals the one that is
/// predicted to answer sooner (Mitzenmacher, "The power of two choices in randomized load balancing", 2001).
#[derive(Debug)]
pub(super) struct PowerOfTwo {
    random: StdRng,
    penalties: Penalties,
}

impl PowerOfTwo {
    pub(super) fn new(seed: u64, policy: PenaltyPolicy) -> Self {
        Self { random: StdRng::seed_from_u64(seed), penalties: Penalties::new(policy) }
    }
}

impl Balancer for PowerOfTwo {
    fn pick(&mut self, now: u64, endpoints: &[Endpoint], _key: Option<u64>) -> Option<usize> {
        if endpoints.len() < 2 {
            return (!endpoints.is_empty()).then_some(0);
        }
        let one = self.random.random_range(0..endpoints.len());
        // Drawn from the others: the places after `one` move down by one.
        let other = self.random.random_range(0..endpoints.len() - 1);
        let other = if other < one { other } else { other + 1 };
        [one, other].into_iter().min_by_key(|place| {
            let endpoint = &endpoints[*place];
            let penalty = self.penalties.nanos(now, endpoint.id);
            (least::load(endpoint, penalty), endpoint.predicted.saturating_add(penalty))
        })
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

    fn shares(balancer: &mut dyn Balancer, endpoints: &[Endpoint]) -> Vec<usize> {
        let mut picked = vec![0; endpoints.len()];
        (0..6000).for_each(|_| picked[balancer.pick(0, endpoints, None).unwrap()] += 1);
        picked
    }

    #[test]
    fn random_is_even_and_equal_seeds_draw_alike() {
        let all = [endpoint(1, 9, 9), endpoint(2, 0, 0), endpoint(3, 5, 5)];
        let picked = shares(&mut Random::new(7), &all);
        assert!(picked.iter().all(|count| (1800..2200).contains(count)), "seed 7: {picked:?}");
        let draws = |seed| (0..20).scan(Random::new(seed), |r, _| Some(r.pick(0, &all, None))).collect::<Vec<_>>();
        assert_eq!(draws(3), draws(3));
        assert_ne!(draws(3), draws(4));
        assert_eq!(Random::new(7).pick(0, &[], None), None);
    }

    #[test]
    fn of_two_the_less_loaded_wins_so_the_worst_is_never_picked_and_the_best_two_times_of_three() {
        let all = [endpoint(1, 1, 10), endpoint(2, 1, 20), endpoint(3, 2, 0)];
        let picked = shares(&mut PowerOfTwo::new(7, PenaltyPolicy::default()), &all);
        assert!((3800..4200).contains(&picked[0]) && picked[2] == 0, "seed 7: {picked:?}");
        let mut alone = PowerOfTwo::new(7, PenaltyPolicy::default());
        assert_eq!((alone.pick(0, &all[..1], None), alone.pick(0, &[], None)), (Some(0), None));
    }
}
