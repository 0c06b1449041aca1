//! One replica for one key: bounded-load rendezvous hashing.

use super::{
    Balancer, Endpoint, least,
    penalty::{Penalties, PenaltyPolicy},
    turns::Turns,
};
use crate::mix::mix;

/// The replica of the highest random weight for the key (Thaler and Ravishankar, "Using name-based mappings to increase
/// hit rates", 1998), passing over those that have ceil(1.25 · (total + 1) / n) outstanding requests already (Mirrokni,
/// Thorup and Zadimoghaddam, "Consistent hashing with bounded loads", 2018).
///
/// A replica that goes away moves its own keys only. The hash is fixed, so that keys keep their replicas, and what is
/// cached there, over a restart. Without a key the least loaded is picked. A penalty counts as load.
#[derive(Debug)]
pub(super) struct ConsistentHash {
    turns: Turns,
    penalties: Penalties,
}

impl ConsistentHash {
    pub(super) fn new(policy: PenaltyPolicy) -> Self {
        Self { turns: Turns::default(), penalties: Penalties::new(policy) }
    }
}

impl Balancer for ConsistentHash {
    fn pick(&mut self, now: u64, endpoints: &[Endpoint], key: Option<u64>) -> Option<usize> {
        let load = |endpoint: &Endpoint| least::load(endpoint, self.penalties.nanos(now, endpoint.id));
        let bound = bound(endpoints);
        let home = key.and_then(|key| {
            let open = endpoints.iter().enumerate().filter(|(_, endpoint)| load(endpoint) < bound);
            open.max_by_key(|(_, endpoint)| (mix(key ^ mix(endpoint.id)), endpoint.id)).map(|(place, _)| place)
        });
        // All may be above the bound if those below it have penalties.
        home.or_else(|| self.turns.least(endpoints, load))
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

/// The most outstanding requests that an endpoint may have with the new one: ceil(5 (total + 1) / 4n).
fn bound(endpoints: &[Endpoint]) -> u64 {
    let total: u64 = endpoints.iter().map(|endpoint| u64::from(endpoint.outstanding)).sum();
    (5 * (total + 1)).div_ceil(4 * endpoints.len().max(1) as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn endpoint(id: u64, outstanding: u32) -> Endpoint {
        Endpoint { id, outstanding, weight: 1.0, predicted: 0 }
    }

    fn pick(endpoints: &[Endpoint], key: u64) -> Endpoint {
        endpoints[ConsistentHash::new(PenaltyPolicy::default()).pick(0, endpoints, Some(key)).unwrap()]
    }

    proptest! {
        #[test]
        fn only_keys_of_the_removed_replica_move(
            ids in prop::collection::hash_set(any::<u64>(), 2..12),
            keys in prop::collection::vec(any::<u64>(), 1..200),
            gone: prop::sample::Index,
        ) {
            let all: Vec<_> = ids.into_iter().map(|id| endpoint(id, 1)).collect();
            let mut fewer = all.clone();
            let removed = fewer.remove(gone.index(all.len()));
            for key in keys {
                let before = pick(&all, key);
                prop_assert!(before.id == removed.id || pick(&fewer, key).id == before.id, "key {} moved", key);
            }
        }

        #[test]
        fn no_replica_takes_more_than_its_bound(replicas in 1u64..12, keys in prop::collection::vec(0u64..3, 1..300)) {
            let mut all: Vec<_> = (0..replicas).map(|id| endpoint(id, 0)).collect();
            for key in keys {
                let bound = bound(&all);
                let picked = pick(&all, key);
                all[picked.id as usize].outstanding += 1;
                let with_it = u64::from(picked.outstanding) + 1;
                prop_assert!(with_it <= bound, "{with_it} above {bound}");
            }
        }
    }

    #[test]
    fn keys_spread_evenly_and_stay_where_they_were_in_every_version() {
        let all: Vec<_> = (0..4).map(|id| endpoint(id, 0)).collect();
        let mut picked = [0; 4];
        (0..4000).for_each(|key| picked[pick(&all, key).id as usize] += 1);
        assert!(picked.iter().all(|count| (900..1100).contains(count)), "{picked:?}");
        let homes: Vec<_> = (0..12).map(|key| pick(&all, key).id).collect();
        assert_eq!(homes, [3, 3, 0, 0, 2, 3, 2, 3, 2, 2, 2, 0]);
    }

    #[test]
    fn a_full_or_failing_home_is_passed_over_and_no_key_means_the_least_loaded() {
        let mut all = [1, 2, 3].map(|id| endpoint(id, 0));
        let home = pick(&all, 42).id as usize - 1;
        all[home].outstanding = 0; // the bound is ceil(5 * 1 / 12) = 1
        assert_eq!(pick(&all, 42).id as usize - 1, home);
        all[home].outstanding = 1; // ceil(5 * 2 / 12) = 1
        assert_ne!(pick(&all, 42).id as usize - 1, home);
        let mut balancer = ConsistentHash::new(PenaltyPolicy::default());
        assert!((0..9).all(|_| balancer.pick(0, &all, None) != Some(home)));
        all[home].outstanding = 0;
        balancer.finished(0, all[home].id, 1_000, false);
        assert_ne!(balancer.pick(0, &all, Some(42)), Some(home));
        assert_eq!(balancer.pick(60_000_000_000, &all, Some(42)), Some(home));
        assert_eq!(balancer.pick(0, &all[home..=home], Some(42)), Some(0), "the only one, penalty or not");
        assert_eq!(balancer.pick(0, &[], Some(42)), None);
    }
}
