//! `orion bench transfer`: how much smaller each codec makes files, and how fast. No server takes part.

use std::{
    io::Write,
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::Args;
use orion_net::{
    artifact::{Chunk, chunk_bytes, cut},
    codec::{Codec, Coder},
};
use serde::Serialize;

use crate::{
    Failure, progress,
    table::{Format, figure, table, write_json, write_table},
};

/// A codec is run again and again for so long; the fastest run counts.
const MEASURED: Duration = Duration::from_millis(800);

/// Measure how much smaller each codec makes a file's chunks, and how fast, on one thread
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  orion bench transfer models/minilm/model.safetensors
  orion bench transfer a.safetensors b.gguf --codec weights,zstd -o json

A file is cut into chunks as it is for a transfer: each tensor of a safetensors file by itself, other files evenly. What was \
decoded is compared with the file. MB are millions of bytes of the file, before they are encoded.")]
pub(super) struct TransferArguments {
    /// Files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Codecs [default: all]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    codec: Vec<Codec>,
    /// Bytes of a chunk [default: as a transfer has it, 262144 of less than 200 MB, else 1048576]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(16..=1 << 30))]
    chunk_bytes: Option<u32>,
}

/// What a codec makes of a file.
#[derive(Debug, Serialize)]
struct Measured {
    file: String,
    codec: &'static str,
    chunks: usize,
    raw_bytes: usize,
    encoded_bytes: usize,
    ratio: f64,
    encode_mb_s: f64,
    decode_mb_s: f64,
}

pub(super) fn run(arguments: &TransferArguments, format: Format, out: &mut dyn Write) -> Result<(), Failure> {
    let codecs = if arguments.codec.is_empty() { &Codec::ALL[..] } else { &arguments.codec };
    let mut measured = Vec::new();
    for path in &arguments.files {
        let name = path.display().to_string();
        let file = std::fs::read(path).map_err(|error| Failure::new(format!("{name} cannot be read: {error}")))?;
        let most = arguments.chunk_bytes.map_or_else(|| chunk_bytes(file.len() as u64), |bytes| bytes as usize);
        let chunks = cut(&file, most);
        for &codec in codecs {
            let spinner = progress::spinner(format!("{name}: {codec}"));
            let one = measure(&name, &file, &chunks, codec);
            spinner.finish_and_clear();
            measured.push(one?);
        }
    }
    match format {
        Format::Json => write_json(out, &measured),
        Format::Table => {
            let mut rows = table(&["FILE", "CODEC", "CHUNKS", "RATIO", "ENCODE MB/S", "DECODE MB/S"]);
            for one in &measured {
                rows.add_row([
                    one.file.as_str().into(),
                    one.codec.into(),
                    figure(one.chunks),
                    figure(format!("{:.3}", one.ratio)),
                    figure(format!("{:.0}", one.encode_mb_s)),
                    figure(format!("{:.0}", one.decode_mb_s)),
                ]);
            }
            write_table(out, rows)
        }
    }
}

fn measure(name: &str, file: &[u8], chunks: &[Chunk], codec: Codec) -> Result<Measured, Failure> {
    let failed = |reason: &dyn std::fmt::Display| Failure::new(format!("{name}: {codec} failed: {reason}"));
    let mut coder = Coder::default();
    let (mut encoded, mut ends) = (Vec::with_capacity(file.len()), Vec::with_capacity(chunks.len()));
    let encode_seconds = fastest(|| {
        encoded.clear();
        ends.clear();
        for chunk in chunks {
            coder
                .encode(codec, chunk.element, &file[chunk.range.clone()], &mut encoded)
                .map_err(|error| failed(&error))?;
            ends.push(encoded.len());
        }
        Ok(())
    })?;
    let mut decoded = vec![0; file.len()];
    let decode_seconds = fastest(|| {
        let mut start = 0;
        for (chunk, end) in chunks.iter().zip(&ends) {
            let raw = &mut decoded[chunk.range.clone()];
            coder.decode(codec, chunk.element, &encoded[start..*end], raw).map_err(|error| failed(&error))?;
            start = *end;
        }
        Ok(())
    })?;
    if decoded != file {
        return Err(failed(&"what was decoded is not the file"));
    }
    let rate = |seconds: f64| file.len() as f64 / seconds.max(f64::MIN_POSITIVE) / 1e6;
    Ok(Measured {
        file: name.to_owned(),
        codec: codec.name(),
        chunks: chunks.len(),
        raw_bytes: file.len(),
        encoded_bytes: encoded.len(),
        ratio: file.len() as f64 / (encoded.len() as f64).max(1.0),
        encode_mb_s: rate(encode_seconds),
        decode_mb_s: rate(decode_seconds),
    })
}

/// Seconds of the fastest of some runs.
fn fastest(mut run: impl FnMut() -> Result<(), Failure>) -> Result<f64, Failure> {
    let (started, mut least) = (Instant::now(), f64::MAX);
    loop {
        let begun = Instant::now();
        run()?;
        least = least.min(begun.elapsed().as_secs_f64());
        if started.elapsed() >= MEASURED {
            return Ok(least);
        }
    }
}
