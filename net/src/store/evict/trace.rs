//! Requests for models, and how many of their bytes a policy has in the store.

use std::collections::{HashMap, VecDeque};

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};

use super::{Evictor, Policy};

const MODELS: usize = 200;
pub(super) const REQUESTS: usize = 6_000;
/// A scan is so many models that are asked for once, about every so many requests.
const SCAN: usize = 20;
const SCAN_EVERY: f64 = 400.0;
/// In bursts, every other request is for one of the last so many again.
const RECENT: usize = 30;

#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    scans: bool,
    /// All models change places in popularity after half of the requests.
    shift: bool,
    /// All models are equally popular, and asked for in bursts.
    bursts: bool,
}

const STEADY: Kind = Kind { name: "steady", scans: false, shift: false, bursts: false };
pub(super) const KINDS: [Kind; 5] = [
    STEADY,
    Kind { name: "scans", scans: true, ..STEADY },
    Kind { name: "shift", shift: true, ..STEADY },
    Kind { name: "scans and shift", scans: true, shift: true, ..STEADY },
    Kind { name: "bursts", bursts: true, ..STEADY },
];

/// Models asked for, with their bytes, one after the other.
pub(super) struct Trace {
    requests: Vec<(usize, u64)>,
    /// Bytes of all models but those of scans.
    pub(super) bytes: u64,
}

/// 10 MB to 100 GB, log-uniform.
fn size(random: &mut impl Rng) -> u64 {
    (1e7 * 1e4_f64.powf(random.random())) as u64
}

impl Trace {
    /// Zipf with an exponent of 1 over 200 models.
    pub(super) fn new(kind: Kind, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let sizes: Vec<u64> = (0..MODELS).map(|_| size(&mut random)).collect();
        let mut ranks: Vec<usize> = (0..MODELS).collect();
        let up_to: Vec<f64> = (1..=MODELS)
            .scan(0.0, |sum, rank| {
                *sum += 1.0 / rank as f64;
                Some(*sum)
            })
            .collect();
        let mut requests: Vec<(usize, u64)> = Vec::new();
        let (mut scanned, mut shifted) = (MODELS, !kind.shift);
        while requests.len() < REQUESTS {
            if !shifted && requests.len() >= REQUESTS / 2 {
                ranks.shuffle(&mut random);
                shifted = true;
            }
            if kind.scans && random.random::<f64>() < 1.0 / SCAN_EVERY {
                requests.extend((scanned..scanned + SCAN).map(|model| (model, size(&mut random))));
                scanned += SCAN;
            }
            if kind.bursts && random.random() && !requests.is_empty() {
                let recent = &requests[requests.len().saturating_sub(RECENT)..];
                requests.push(recent[random.random_range(0..recent.len())]);
                continue;
            }
            let at = random.random::<f64>() * up_to[MODELS - 1];
            let rank = up_to.partition_point(|sum| *sum < at);
            let model = if kind.bursts { random.random_range(0..MODELS) } else { ranks[rank] };
            requests.push((model, sizes[model]));
        }
        Self { requests, bytes: sizes.iter().sum() }
    }

    /// Bytes that were in the store of those asked for. What is not there is always fetched.
    pub(super) fn byte_hit_ratio(&self, policy: Policy, quota: u64) -> f64 {
        let mut evictor = Evictor::new(policy);
        self.ratio(|now, model, bytes| {
            let key = model.to_string();
            let hit = evictor.artifacts.get(&key).is_some_and(|artifact| artifact.bytes.is_some());
            if hit {
                evictor.used(&key, now);
            } else if let Ok(victims) = evictor.victims(quota, bytes, &|_| false) {
                victims.iter().for_each(|victim| evictor.removed(victim));
                evictor.admitted(&key, bytes, now);
            }
            hit
        })
    }

    /// The same with S3-FIFO (Yang and others, 2023), its queues in bytes: small a tenth, ghost as much as the store.
    pub(super) fn s3_fifo(&self, quota: u64) -> f64 {
        let mut queues: [VecDeque<(usize, u64)>; 3] = Default::default();
        let mut uses: HashMap<usize, u8> = HashMap::new();
        let bytes_of = |queue: &VecDeque<(usize, u64)>| queue.iter().map(|(_, bytes)| bytes).sum::<u64>();
        self.ratio(|_, model, bytes| {
            if let Some(count) = uses.get_mut(&model) {
                *count = 3.min(*count + 1);
                return true;
            }
            let [small, main, ghost] = &mut queues;
            while bytes <= quota && bytes_of(small) + bytes_of(main) + bytes > quota {
                let is_small = bytes_of(small) > quota / 10 || main.is_empty();
                let first = if is_small { small.pop_front() } else { main.pop_front() }.unwrap();
                match (is_small, uses.remove(&first.0).unwrap()) {
                    (true, 0) => ghost.push_back(first),
                    (false, 0) => {}
                    (_, count) => {
                        uses.insert(first.0, if is_small { 0 } else { count - 1 });
                        main.push_back(first);
                    }
                }
                while bytes_of(ghost) > quota {
                    ghost.pop_front();
                }
            }
            if bytes <= quota {
                let known = ghost.iter().position(|(gone, _)| *gone == model).and_then(|place| ghost.remove(place));
                if known.is_some() { main } else { small }.push_back((model, bytes));
                uses.insert(model, 0);
            }
            false
        })
    }

    fn ratio(&self, mut asked: impl FnMut(u64, usize, u64) -> bool) -> f64 {
        let (mut hit, mut all) = (0.0, 0.0);
        for (now, (model, bytes)) in (0..).zip(&self.requests) {
            all += *bytes as f64;
            hit += if asked(now, *model, *bytes) { *bytes as f64 } else { 0.0 };
        }
        hit / all
    }
}
