//! Every strategy in a small queueing system in virtual time, where one replica of four fails at once.

use std::{cmp::Reverse, collections::BinaryHeap};

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{Balancer, Endpoint, PenaltyPolicy, Strategy};

const SECOND: u64 = 1_000_000_000;
/// Time that a replica takes for a request, one at a time.
const SERVICE: u64 = SECOND / 100;
/// Time in which the broken one answers with a failure.
const FAILURE: u64 = 1_000;
/// Requests a second: four fifths of what the three sound replicas can do.
const ARRIVALS: f64 = 240.0;
/// The replica that breaks, and when.
const BROKEN: usize = 1;
const BREAKS: u64 = 10 * SECOND;
const WARM: u64 = 15 * SECOND;
const SEED: u64 = 7;

const BLIND: [Strategy; 3] = [Strategy::RoundRobin, Strategy::SmoothWeighted, Strategy::Random];
const OFF: PenaltyPolicy = PenaltyPolicy { first: 0, most: 0, decay: 1 };

#[derive(Clone, Copy, Default)]
struct Replica {
    outstanding: u32,
    busy_until: u64,
}

/// Shares of the picks that each replica gets from `from` to `until`; the broken one is sound again from `healed` on.
fn shares(balancer: &mut dyn Balancer, from: u64, until: u64, healed: u64) -> [f64; 4] {
    let mut random = StdRng::seed_from_u64(SEED);
    let (mut replicas, mut picks) = ([Replica::default(); 4], [0u32; 4]);
    let mut ends: BinaryHeap<Reverse<(u64, usize, u64, bool)>> = BinaryHeap::new();
    let mut now = 0;
    while now < until {
        now += (-random.random_range(f64::EPSILON..1.0).ln() / ARRIVALS * SECOND as f64) as u64;
        while let Some(&Reverse((end, place, sent, ok))) = ends.peek().filter(|Reverse((end, ..))| *end <= now) {
            ends.pop();
            replicas[place].outstanding -= 1;
            balancer.finished(end, place as u64, end - sent, ok);
        }
        // Predictions come from curves that were measured while all were sound.
        let endpoints: Vec<_> = (replicas.iter().enumerate())
            .map(|(place, replica)| Endpoint {
                id: place as u64,
                outstanding: replica.outstanding,
                weight: 100.0,
                predicted: replica.busy_until.saturating_sub(now) + SERVICE,
            })
            .collect();
        let key = random.random_range(0..2000u64);
        let place = balancer.pick(now, &endpoints, (key < 1000).then_some(key)).unwrap();
        balancer.started(now, place as u64);
        let ok = place != BROKEN || !(BREAKS..healed).contains(&now);
        let replica = &mut replicas[place];
        replica.outstanding += 1;
        let end = if ok { replica.busy_until.max(now) + SERVICE } else { now + FAILURE };
        replica.busy_until = if ok { end } else { replica.busy_until };
        ends.push(Reverse((end, place, now, ok)));
        picks[place] += u32::from(now >= from);
    }
    picks.map(|count| f64::from(count) / f64::from(picks.iter().sum::<u32>()))
}

fn sees(strategy: &Strategy) -> bool {
    !BLIND.contains(strategy)
}

#[test]
fn a_replica_that_fails_at_once_gets_less_than_its_share() {
    for strategy in Strategy::ALL {
        let shares = shares(&mut *strategy.balancer(SEED), WARM, 120 * SECOND, u64::MAX);
        let most = if sees(&strategy) { 0.05 } else { 0.27 };
        assert!(shares[BROKEN] < most, "{strategy}, seed {SEED}: {shares:?}");
        let sound = (1.0 - shares[BROKEN]) / 3.0;
        let even = (0..4).filter(|place| *place != BROKEN).all(|place| (shares[place] / sound - 1.0).abs() < 0.15);
        assert!(even, "{strategy}, seed {SEED}: {shares:?}");
    }
}

#[test]
fn without_penalties_it_wins() {
    for strategy in Strategy::ALL.into_iter().filter(sees) {
        let shares = shares(&mut *strategy.balancer_with(SEED, OFF), WARM, 120 * SECOND, u64::MAX);
        assert!(shares.iter().all(|share| *share <= shares[BROKEN]), "{strategy}, seed {SEED}: {shares:?}");
        assert!(shares[BROKEN] > 0.3, "{strategy}, seed {SEED}: {shares:?}");
    }
}

#[test]
fn a_replica_that_is_sound_again_gets_its_share_back() {
    for strategy in Strategy::ALL {
        let shares = shares(&mut *strategy.balancer(SEED), 180 * SECOND, 300 * SECOND, 120 * SECOND);
        assert!((0.2..0.3).contains(&shares[BROKEN]), "{strategy}, seed {SEED}: {shares:?}");
    }
}
