//! `orion bench transfer`: how much smaller each codec makes files, and how fast. No server takes part.

use std::{
    io::Write,
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::Args;
use orion_net::{
    artifact::{Cut, Tensor, chunk_bytes, cut, tensors},
    codec::{Codec, Coder, Corrupt},
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
  orion bench transfer tuned.safetensors --base original.safetensors --codec weights

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
    /// An earlier version of the file, which is measured as a difference against it too
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,
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
    let base = arguments.base.as_deref().map(read).transpose()?;
    let mut measured = Vec::new();
    for path in &arguments.files {
        let name = path.display().to_string();
        let file = read(path)?;
        let most = arguments.chunk_bytes.map_or_else(|| chunk_bytes(file.len() as u64), |bytes| bytes as usize);
        let chunks = cut(&file, &tensors(&file), most);
        let mut ways: Vec<Way<'_>> = codecs.iter().map(|codec| Way::Codec(*codec)).collect();
        ways.extend(base.as_deref().map(|base| Way::Difference(pairs(&chunks, &file, base))));
        for way in &ways {
            let spinner = progress::spinner(format!("{name}: {}", way.name()));
            let one = measure(&name, &file, &chunks, way);
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

fn read(path: &std::path::Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| Failure::new(format!("{} cannot be read: {error}", path.display())))
}

/// How chunks are encoded.
enum Way<'f> {
    Codec(Codec),
    /// Each against the bytes that lie in its place in an earlier version, where there are as many.
    Difference(Vec<Option<&'f [u8]>>),
}

impl Way<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::Codec(codec) => codec.name(),
            Self::Difference(_) => "difference",
        }
    }

    fn encode(&self, coder: &mut Coder, index: usize, cut: &Cut, raw: &[u8], out: &mut Vec<u8>) -> std::io::Result<()> {
        match self {
            Self::Codec(codec) => coder.encode(*codec, cut.element, raw, out),
            Self::Difference(bases) => match bases[index] {
                Some(base) if base == raw => Ok(()),
                Some(base) => coder.encode_difference(cut.element, base, raw, out).map_err(std::io::Error::other),
                None => coder.encode(Codec::Weights, cut.element, raw, out),
            },
        }
    }

    fn decode(&self, coder: &mut Coder, index: usize, cut: &Cut, bytes: &[u8], raw: &mut [u8]) -> Result<(), Corrupt> {
        match self {
            Self::Codec(codec) => coder.decode(*codec, cut.element, bytes, raw),
            Self::Difference(bases) => match bases[index] {
                // The same chunk is not sent.
                Some(base) if bytes.is_empty() => {
                    raw.copy_from_slice(base);
                    Ok(())
                }
                Some(base) => coder.decode_difference(cut.element, base, bytes, raw),
                None => coder.decode(Codec::Weights, cut.element, bytes, raw),
            },
        }
    }
}

/// For each chunk of a tensor the bytes that lie in its place in the base's tensor of the same name, shape and type.
fn pairs<'b>(chunks: &[Cut], file: &[u8], base: &'b [u8]) -> Vec<Option<&'b [u8]>> {
    let (own, others) = (tensors(file), tensors(base));
    let of = |cut: &Cut| {
        let start = cut.range.start as u64;
        let tensor = own.get(own.partition_point(|tensor| tensor.start <= start).checked_sub(1)?)?;
        let is_same = |other: &&Tensor| {
            (&other.name, &other.datatype, &other.shape) == (&tensor.name, &tensor.datatype, &tensor.shape)
        };
        let other = others.iter().find(is_same)?;
        let end = (cut.range.end as u64).checked_sub(tensor.start)?;
        let from = other.start + (start - tensor.start);
        (end <= tensor.bytes).then(|| &base[from as usize..][..cut.range.len()])
    };
    chunks.iter().map(of).collect()
}

fn measure(name: &str, file: &[u8], chunks: &[Cut], way: &Way<'_>) -> Result<Measured, Failure> {
    let failed = |reason: &dyn std::fmt::Display| Failure::new(format!("{name}: {} failed: {reason}", way.name()));
    let mut coder = Coder::default();
    let (mut encoded, mut ends) = (Vec::with_capacity(file.len()), Vec::with_capacity(chunks.len()));
    let encode_seconds = fastest(|| {
        encoded.clear();
        ends.clear();
        for (index, chunk) in chunks.iter().enumerate() {
            way.encode(&mut coder, index, chunk, &file[chunk.range.clone()], &mut encoded)
                .map_err(|error| failed(&error))?;
            ends.push(encoded.len());
        }
        Ok(())
    })?;
    let mut decoded = vec![0; file.len()];
    let decode_seconds = fastest(|| {
        let mut start = 0;
        for (index, (chunk, end)) in chunks.iter().zip(&ends).enumerate() {
            let raw = &mut decoded[chunk.range.clone()];
            way.decode(&mut coder, index, chunk, &encoded[start..*end], raw).map_err(|error| failed(&error))?;
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
        codec: way.name(),
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
