mod network;
mod sets;
mod setup;

use std::time::Duration;

use proptest::prelude::*;

use self::setup::{Fault, Network, Outcome, Setup};
use super::Limits;

/// 50 Mbit/s in bytes a second, and a chunk that takes it 28 ms.
const LINK: f64 = 50e6 / 8.0;
const CHUNK: u32 = 176_000;
const MIB: u32 = 1 << 20;

fn limits() -> Limits {
    Limits { window: 64 << 20, memory: 256 << 20, patience: Duration::from_millis(500) }
}

fn network(chunks: usize, nodes: Vec<Setup>) -> Network {
    let (mixed, work, buffer) = (false, 0.0, 0.0);
    Network { chunks, chunk_bytes: CHUNK, mixed, delay: 0.001, work, buffer, limits: limits(), nodes, ends: 120.0 }
}

/// An origin and receivers, all with the same link.
fn swarm(chunks: usize, receivers: usize) -> Network {
    let nodes = std::iter::once(Setup::origin(LINK)).chain(std::iter::repeat_n(Setup::receiver(LINK), receivers));
    network(chunks, nodes.collect())
}

/// Seconds until the last node without a fault was whole.
fn last(network: &Network, outcome: &Outcome) -> f64 {
    let sound = network.nodes.iter().zip(&outcome.whole).filter(|(setup, _)| setup.fault == Fault::None && !setup.seed);
    sound.map(|(_, whole)| whole.unwrap_or(f64::INFINITY)).fold(0.0, f64::max)
}

/// The last of 16 receivers, in times of a single one, and copies that the origin sent: the worst of the seeds.
fn worst_of_16(chunks: usize, seeds: u64) -> (f64, f64) {
    let alone = swarm(chunks, 1);
    let alone = last(&alone, &alone.run(0));
    let swarm = swarm(chunks, 16);
    let runs: Vec<_> = (0..seeds).map(|seed| (seed, swarm.run(seed))).collect();
    let ratios: Vec<f64> = runs.iter().map(|(_, outcome)| last(&swarm, outcome) / alone).collect();
    let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
    let worst = ratios.iter().copied().fold(0.0, f64::max);
    let copies = runs.iter().map(|(_, outcome)| outcome.sent[0]).fold(0.0, f64::max);
    let hedges: usize = runs.iter().map(|(_, outcome)| outcome.hedges).sum();
    println!("{chunks} chunks: mean {mean:.3} worst {worst:.3} of single, {copies:.3} copies, {hedges} hedges");
    (worst, copies)
}

#[test]
fn sixteen_receivers_take_little_longer_than_one() {
    for chunks in [128, 256] {
        let (worst, copies) = worst_of_16(chunks, 20);
        assert!(worst <= 1.20 && copies <= 1.2, "{chunks} chunks: {worst} {copies}");
    }
}

#[test]
fn one_receiver_gets_the_whole_of_a_long_fast_link() {
    for rate in [1e9 / 8.0, 1e10 / 8.0] {
        let nodes = vec![Setup::origin(rate), Setup::receiver(rate)];
        let chunks = (6.0 * rate / f64::from(MIB)) as usize;
        let network = Network { chunk_bytes: MIB, delay: 0.01, ..network(chunks, nodes) };
        let took = last(&network, &network.run(1));
        let part = chunks as f64 * f64::from(MIB) / rate / took;
        println!("{rate:.0} B/s: {part:.3} of the link");
        assert!(part >= 0.96, "{part} of {rate}");
    }
}

#[test]
fn a_fast_link_is_filled_by_many_slow_peers() {
    let mut nodes = vec![Setup { seed: true, ..Setup::receiver(LINK) }; 8];
    nodes.push(Setup::receiver(8.0 * LINK));
    let network = network(512, nodes);
    let took = last(&network, &network.run(1));
    let ideal = 512.0 * f64::from(CHUNK) / (8.0 * LINK);
    println!("eight slow peers: {:.3} of ideal", took / ideal);
    assert!(took <= 1.3 * ideal, "{took} for {ideal}");
}

#[test]
fn slow_receivers_do_not_hold_up_fast_ones() {
    let rates = [LINK / 10.0, LINK / 2.0, LINK, 2.0 * LINK];
    let nodes = std::iter::once(Setup::origin(2.0 * LINK)).chain(rates.map(Setup::receiver)).collect();
    let network = network(256, nodes);
    for seed in 0..5 {
        let outcome = network.run(seed);
        for (node, rate) in rates.iter().enumerate() {
            let ideal = 256.0 * f64::from(CHUNK) / rate;
            let took = outcome.whole[node + 1].unwrap_or(f64::INFINITY);
            println!("seed {seed}: link {rate:.0} took {:.2} of ideal", took / ideal);
            assert!(took <= 2.2 * ideal, "seed {seed}: {took} for {ideal} at {rate}");
        }
    }
}

#[test]
fn a_peer_that_stalls_lies_or_leaves_stops_nobody() {
    for fault in [Fault::Stalls(1.0), Fault::Lies, Fault::Leaves(1.0)] {
        for seed in 0..5 {
            let mut network = swarm(128, 6);
            network.nodes[3].fault = fault;
            let outcome = network.run(seed);
            let took = last(&network, &outcome);
            println!("{fault:?} seed {seed}: {took:.2} s, {} hedges, bans {}", outcome.hedges, outcome.bans.len());
            assert!(took <= 1.6 * 128.0 * f64::from(CHUNK) / LINK + 1.0, "{fault:?} seed {seed}: {took}");
            assert!(outcome.bans.iter().all(|(_, banned)| *banned == 3), "{:?}", outcome.bans);
        }
    }
}

#[test]
fn a_lone_liar_starves_its_receivers_which_know_it() {
    let mut network = Network { ends: 10.0, ..swarm(16, 1) };
    network.nodes[0].fault = Fault::Lies;
    let outcome = network.run(1);
    assert_eq!((outcome.whole[1], &outcome.bans[..]), (None, &[(1, 0)][..]));
    assert!(outcome.starved[1].is_some_and(|since| since < Duration::from_secs(1)), "{:?}", outcome.starved);
}

#[test]
fn one_that_joins_late_is_served_by_all() {
    let mut network = swarm(128, 6);
    network.nodes[6].joins = 3.0;
    let outcome = network.run(1);
    let took = last(&network, &outcome) - 3.0;
    assert!(took <= 1.2 * 128.0 * f64::from(CHUNK) / LINK, "{took}");
    assert!(outcome.sent[0] <= 1.2, "{:?}", outcome.sent);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// The network itself asserts that limits hold and that no chunk is kept twice.
    #[test]
    fn every_run_ends_whole(
        seed in 0u64..1000,
        chunks in 1usize..80,
        memory in 1u64..20,
        delay in 0.0001f64..0.02,
        receivers in prop::collection::vec((0.1f64..4.0, 0.1f64..4.0, 0.0f64..2.0, 0u8..8), 1..7),
    ) {
        let setup = |(up, down, joins, fault)| Setup {
            up: up * LINK,
            down: down * LINK,
            joins,
            fault: match fault {
                0 => Fault::Stalls(1.5),
                1 => Fault::Lies,
                2 => Fault::Leaves(1.5),
                _ => Fault::None,
            },
            ..Setup::receiver(LINK)
        };
        let nodes = std::iter::once(Setup::origin(LINK)).chain(receivers.into_iter().map(setup)).collect();
        let limits = Limits { window: memory * u64::from(CHUNK), memory: memory * u64::from(CHUNK), ..limits() };
        let network = Network { delay, limits, ..network(chunks, nodes) };
        let outcome = network.run(seed);
        prop_assert!(last(&network, &outcome).is_finite(), "{network:?} {outcome:?}");
    }
}

/// A swarm as it is on a real link: chunks differ, take time to keep, and messages wait behind them.
fn real(chunks: usize, receivers: usize, delay: f64) -> Network {
    Network { mixed: true, work: 0.003, buffer: 32768.0, delay, ..swarm(chunks, receivers) }
}

/// Whatever messages take: the worst of the seeds.
#[test]
fn a_swarm_on_real_links_takes_little_longer_than_one_receiver() {
    for (receivers, bound) in [(2, 1.10), (4, 1.12), (16, 1.22)] {
        for delay in [0.001, 0.010, 0.040] {
            for seed in 0..3 {
                let alone = real(240, 1, delay);
                let alone = last(&alone, &alone.run(seed));
                let swarm = real(240, receivers, delay);
                let outcome = swarm.run(seed);
                let (ratio, copies) = (last(&swarm, &outcome) / alone, outcome.sent[0]);
                println!("{receivers} receivers, {delay} s, seed {seed}: {ratio:.3} of single, {copies:.3} copies");
                assert!(ratio <= bound + 2.0 * delay && copies <= 1.2, "{receivers} {delay} {seed}: {ratio} {copies}");
            }
        }
    }
}
