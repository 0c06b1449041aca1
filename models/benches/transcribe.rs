//! Seconds of audio per second of the transcriber, on two threads: one short clip, five after each other, five at once, a minute.
//!
//! Run on the fetched model: `scripts/fetch-models whisper-tiny-en --to models-data` and `scripts/fetch-models librivox --to
//! samples-data`, then `cargo bench --bench transcribe`;
//! `benches/peers/bench_whisper.py` measures others on the same audio.

use std::{path::PathBuf, time::Instant};

use orion_models::{Model, ModelRequest, inspect, load};
use orion_proto::{Datatype, ModelName, Payload, Tensor, encode_bytes_elements};

/// Runs of each measurement; their median is told.
const RUNS: usize = 7;
const THREADS: usize = 2;
/// Bytes before the samples of the clips, which are WAV files of 16 bits at 16 kHz.
const HEADER: usize = 44;

/// A model, and files for it.
type Fetched = (Box<dyn Model>, Vec<Vec<u8>>);

fn fetched() -> Result<Fetched, Box<dyn std::error::Error>> {
    let folder = |variable: &str, name: &str| {
        let default = format!("{}/../{name}", env!("CARGO_MANIFEST_DIR"));
        PathBuf::from(std::env::var(variable).unwrap_or(default))
    };
    let (models, samples) = (folder("ORION_MODELS", "models-data"), folder("ORION_SAMPLES", "samples-data"));
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(samples.join("librivox"))? {
        paths.extend(Some(entry?.path()).filter(|path| path.extension().is_some_and(|kind| kind == "wav")));
    }
    paths.sort();
    let clips = paths.iter().map(std::fs::read).collect::<Result<Vec<_>, _>>()?;
    let manifest = inspect(&ModelName::new("whisper-tiny-en")?, &models.join("whisper-tiny-en"))?;
    Ok((load(&manifest, &|_| {})?.model()?, clips))
}

fn request(files: &[Vec<u8>]) -> ModelRequest {
    let data = Payload::from(encode_bytes_elements(files));
    let audio = Tensor { name: "audio".into(), datatype: Datatype::Bytes, shape: vec![files.len() as i64], data };
    ModelRequest { inputs: vec![audio], ..ModelRequest::default() }
}

/// The clips one after the other in one file, again and again, a minute long.
fn minute(clips: &[Vec<u8>]) -> Vec<u8> {
    let mut samples: Vec<u8> = clips.iter().cycle().take(12).flat_map(|clip| &clip[HEADER..]).copied().collect();
    samples.truncate(60 * 32_000);
    let mut file = clips[0][..HEADER].to_vec();
    file[4..8].copy_from_slice(&(36 + samples.len() as u32).to_le_bytes());
    file[40..44].copy_from_slice(&(samples.len() as u32).to_le_bytes());
    file.extend(samples);
    file
}

fn main() {
    let (mut model, clips) = match fetched() {
        Ok(fetched) => fetched,
        Err(error) => return println!("skipped: {error}; fetch it with: scripts/fetch-models all --to models-data"),
    };
    let Ok(pool) = rayon::ThreadPoolBuilder::new().num_threads(THREADS).build() else {
        return println!("skipped: no thread pool could be started");
    };
    let minute = [minute(&clips)];
    let cases: [(&str, Vec<ModelRequest>); 4] = [
        ("one clip", vec![request(&clips[..1])]),
        ("five clips, one after the other", clips.chunks(1).map(request).collect()),
        ("five clips at once", vec![request(&clips)]),
        ("a minute in one file", vec![request(&minute)]),
    ];
    for (name, requests) in cases {
        let bytes: usize = requests.iter().map(|r| r.inputs[0].data.len() - r.inputs[0].rows() * (4 + HEADER)).sum();
        let audio = bytes as f64 / 32_000.0;
        let mut seconds: Vec<f64> = (0..RUNS)
            .map(|_| {
                let start = Instant::now();
                for request in &requests {
                    let answers = pool.install(|| model.run(vec![request.clone()]));
                    if let Some(error) = answers.into_iter().find_map(Result::err) {
                        println!("{name} failed: {error}");
                    }
                }
                start.elapsed().as_secs_f64()
            })
            .collect();
        seconds.sort_by(f64::total_cmp);
        let median = seconds[RUNS / 2];
        println!(
            "{name:34} {audio:5.1} s of audio in {median:6.3} s: {:5.1} times as fast as it is spoken",
            audio / median
        );
    }
}
