mod network;

use std::time::Duration;

use self::network::{Network, Outcome, Setup};
use super::Limits;

/// 50 Mbit/s in bytes a second.
const LINK: f64 = 50e6 / 8.0;
const CHUNK: u32 = 175_000;

fn limits() -> Limits {
    Limits { window: 64 << 20, memory: 256 << 20, patience: Duration::from_secs(1) }
}

fn swarm(chunks: usize, receivers: usize) -> Network {
    let nodes = std::iter::once(Setup::origin(LINK)).chain(std::iter::repeat_n(Setup::receiver(LINK), receivers));
    Network { chunks, chunk_bytes: CHUNK, delay: 0.001, limits: limits(), nodes: nodes.collect(), ends: 60.0 }
}

fn last(outcome: &Outcome) -> f64 {
    outcome.whole.iter().map(|whole| whole.unwrap_or(f64::INFINITY)).fold(0.0, f64::max)
}

#[test]
fn explore() {
    for chunks in [128, 256] {
        let single = last(&swarm(chunks, 1).run(0));
        let link = chunks as f64 * f64::from(CHUNK) / LINK;
        let mut ratios = Vec::new();
        let mut copies = Vec::new();
        for seed in 0..10 {
            let out = swarm(chunks, 16).run(seed);
            ratios.push(last(&out) / single);
            copies.push(out.sent[0]);
            if seed == 0 {
                println!("{out:?}");
            }
        }
        ratios.sort_by(f64::total_cmp);
        copies.sort_by(f64::total_cmp);
        println!("{chunks}: link {link:.3} single {single:.3} ratios {ratios:.3?} copies {copies:.3?}");
    }
}
