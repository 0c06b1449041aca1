//! Tokens per second of the fetched generators: decoding 1 and 16 sequences, and prompts.
//!
//! `scripts/fetch-models smollm2 stories15m --to models-data`, then `cargo bench --bench generation [NAME…]`.

use std::{path::PathBuf, time::Instant};

use orion_models::{Generator, inspect, load};
use orion_proto::{ModelName, Priority, Result};

/// Tokens that each sequence decodes, and those of a long prompt.
const DECODED: usize = 128;
const PROMPT: usize = 128;
/// Each figure is the best of so many.
const REPEATS: usize = 5;

fn fetched(name: &str) -> Result<Box<dyn Generator>> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../models-data").into();
    let path = PathBuf::from(std::env::var("ORION_MODELS").unwrap_or(default)).join(name);
    let started = Instant::now();
    let model = load(&inspect(&ModelName::new(name)?, &path)?, &|_| {})?.generator()?;
    println!("{name}: loaded in {:.1} ms", started.elapsed().as_secs_f64() * 1e3);
    Ok(model)
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

fn measure(name: &str) -> Result<()> {
    let mut model = fetched(name)?;
    let mut best = |what: &str, run: &mut dyn FnMut(&mut dyn Generator) -> Result<f64>| -> Result<f64> {
        let rates = (0..REPEATS).map(|_| run(&mut *model)).collect::<Result<Vec<f64>>>()?;
        let best = rates.into_iter().fold(0.0, f64::max);
        println!("{name}: {what}: {best:.1} tokens/s");
        Ok(best)
    };
    let one = best("1 sequence", &mut |model| decode(model, 1))?;
    let many = best("16 sequences", &mut |model| decode(model, 16))?;
    println!("{name}: 16 sequences give {:.2} times one", many / one);
    best("prompts", &mut prefill)?;
    Ok(())
}

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
