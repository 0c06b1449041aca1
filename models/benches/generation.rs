//! Tokens per second of the fetched generators: decoding 1 and 16 sequences, and prompts; how long they take to load, beside
//! reading their bytes from the page cache. Then how long requests wait for
//! their first token under load, where they join those that run, and where batches are made once and run to their end.
//!
//! `scripts/fetch-models smollm2 stories15m --to models-data`, then `cargo bench --bench generation [NAME…]`.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    time::Instant,
};

use orion_models::{Generator, inspect, load};
use orion_proto::{ModelName, Priority, Result};
use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Tokens that each sequence decodes, and those of a long prompt.
const DECODED: usize = 128;
const PROMPT: usize = 128;
/// Sequences that run together.
const MANY: usize = 16;
/// Requests that arrive, at such a share of the tokens that 16 sequences give; the lengths of their answers.
const ARRIVALS: usize = 200;
const LOAD: f64 = 0.7;
const SHORT: usize = 16;
const LONG: usize = 256;
/// Each figure is the best of so many.
const REPEATS: usize = 5;

fn fetched(name: &str) -> Result<Box<dyn Generator>> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../models-data").into();
    let path = PathBuf::from(std::env::var("ORION_MODELS").unwrap_or(default)).join(name);
    let (mut times, mut loaded) = ([f64::MAX; 3], None);
    for _ in 0..REPEATS {
        let started = Instant::now();
        read(&path);
        let read = started.elapsed().as_secs_f64();
        let model = loaded.insert(load(&inspect(&ModelName::new(name)?, &path)?, &|_| {})?.generator()?);
        let ready = started.elapsed().as_secs_f64() - read;
        warm_up(&mut **model)?;
        let warm = started.elapsed().as_secs_f64() - read - ready;
        times.iter_mut().zip([read, ready, warm]).for_each(|(least, time)| *least = least.min(time * 1e3));
    }
    let [read, ready, warm] = times;
    let times = (ready + warm) / (read + warm);
    println!("{name}: loaded in {ready:.1} ms, read in {read:.1} ms, warmed up in {warm:.1} ms: {times:.2} times");
    loaded.ok_or_else(|| orion_proto::Error::invalid("nothing was loaded"))
}

/// Reads the bytes of all files of a folder through one buffer, which stays in the cache.
fn read(folder: &Path) {
    let mut buffer = vec![0; 1 << 20];
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if let Ok(mut file) = File::open(entry.path()) {
            while file.read(&mut buffer).is_ok_and(|count| count > 0) {}
        }
    }
}

/// A short generation, as often as a worker runs it before a model is ready.
fn warm_up(model: &mut dyn Generator) -> Result<()> {
    for _ in 0..3 {
        let generation = model.sample(32, 8);
        model.add(0, Priority::Normal, &generation)?;
        while model.load().running + model.load().waiting > 0 {
            model.step();
        }
    }
    Ok(())
}

/// Tokens a second of so many sequences that decode together, their short prompts apart.
fn decode(model: &mut dyn Generator, sequences: usize) -> Result<f64> {
    for sequence in 0..sequences {
        let generation = model.sample(8, DECODED + 1);
        model.add(sequence as u64, Priority::Normal, &generation)?;
    }
    while model.load().waiting > 0 || model.load().held_tokens < 8 * sequences as u64 {
        model.step();
    }
    let (started, mut tokens) = (Instant::now(), 0);
    while model.load().running > 0 {
        tokens += model.step().len();
    }
    Ok(tokens as f64 / started.elapsed().as_secs_f64())
}

/// Tokens a second of a prompt.
fn prefill(model: &mut dyn Generator) -> Result<f64> {
    let generation = model.sample(PROMPT, 1);
    let started = Instant::now();
    model.add(0, Priority::Normal, &generation)?;
    while model.load().running + model.load().waiting > 0 {
        model.step();
    }
    Ok(PROMPT as f64 / started.elapsed().as_secs_f64())
}

/// A request: when it arrives, in seconds, and how many tokens it wants.
type Arrival = (f64, usize);

/// Exponential gaps, at a share of what the model does; one answer in eight is as long as this.
fn arrivals(tokens_per_second: f64, long: usize) -> Vec<Arrival> {
    let mut random = StdRng::seed_from_u64(1);
    let mean = (7.0 * SHORT as f64 + long as f64) / 8.0;
    let mut at = 0.0;
    let arrive = |_| {
        at -= (1.0 - random.random::<f64>()).ln() * mean / (LOAD * tokens_per_second);
        (at, if random.random_range(0..8) == 0 { long } else { SHORT })
    };
    (0..ARRIVALS).map(arrive).collect()
}

/// Seconds from each arrival to its first token. Those that arrive join what runs, or wait until all of it has ended.
fn first_tokens(model: &mut dyn Generator, arrivals: &[Arrival], join: bool) -> Result<Vec<f64>> {
    let (started, mut next) = (Instant::now(), 0);
    let mut waited = vec![0.0; arrivals.len()];
    loop {
        let busy = model.load().running + model.load().waiting > 0;
        let most = if join { arrivals.len() } else { next + MANY };
        while (join || !busy) && next < most.min(arrivals.len()) && arrivals[next].0 <= started.elapsed().as_secs_f64()
        {
            let generation = model.sample(8, arrivals[next].1);
            model.add(next as u64, Priority::Normal, &generation)?;
            next += 1;
        }
        if next == arrivals.len() && model.load().running + model.load().waiting == 0 {
            return Ok(waited);
        }
        for (request, delta) in model.step() {
            if delta?.position == 0 {
                waited[request as usize] = started.elapsed().as_secs_f64() - arrivals[request as usize].0;
            }
        }
    }
}

fn measure_first_tokens(name: &str, model: &mut dyn Generator, tokens_per_second: f64) -> Result<()> {
    // Beside the short prompt, no more than the model holds.
    let context = model.spec().generator.map_or(LONG, |of| of.context_tokens as usize);
    let arrivals = arrivals(tokens_per_second, LONG.min(context - 8));
    for (how, join) in [("they join what runs", true), ("batches run to their end", false)] {
        let mut waited = first_tokens(model, &arrivals, join)?;
        waited.sort_by(f64::total_cmp);
        let at = |share: f64| waited[(share * (waited.len() - 1) as f64) as usize] * 1e3;
        println!("{name}: first token where {how}: p50 {:.0} ms, p99 {:.0} ms", at(0.5), at(0.99));
    }
    Ok(())
}

fn measure(name: &str) -> Result<()> {
    let mut model = fetched(name)?;
    let mut best = |what: &str, run: &mut dyn FnMut(&mut dyn Generator) -> Result<f64>| -> Result<f64> {
        let rates = (0..REPEATS).map(|_| run(&mut *model)).collect::<Result<Vec<f64>>>()?;
        let best = rates.into_iter().fold(0.0, f64::max);
        println!("{name}: {what}: {best:.1} tokens/s");
        Ok(best)
    };
    let one = best("1 sequence", &mut |model| decode(model, 1))?;
    let many = best("16 sequences", &mut |model| decode(model, MANY))?;
    println!("{name}: 16 sequences give {:.2} times one", many / one);
    best("prompts", &mut prefill)?;
    measure_first_tokens(name, &mut *model, many)
}

/// As of the binary: tokenizers are built of some hundred thousand small texts.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let Ok(pool) = rayon::ThreadPoolBuilder::new().num_threads(threads).build() else {
        return println!("skipped: no thread pool could be started");
    };
    let named: Vec<String> = std::env::args().skip(1).filter(|name| !name.starts_with('-')).collect();
    let names = if named.is_empty() { vec!["smollm2".into(), "stories15m".into()] } else { named };
    for name in names {
        if let Err(error) = pool.install(|| measure(&name)) {
            println!("skipped: {error}; fetch it with: scripts/fetch-models {name} --to models-data");
        }
    }
}
