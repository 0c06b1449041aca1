//! `orion models convert`: a file of weights made into a folder that Orion serves.

use std::{io::Write, path::PathBuf};

use clap::{Args, ValueEnum};
use orion_worker::convert::{Conversion, Converted, Precision, convert};
use serde_json::json;

use crate::{
    Failure, progress,
    table::{Format, facts, write, write_json},
    units::bytes,
};

/// Steps of the bar.
const STEPS: u64 = 1000;

/// Make a folder that is served of a PyTorch or llama2.c file
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  orion models convert tiny.en.pt models/whisper-tiny-en --config whisper.json --dtype f16
  orion models convert stories15M.bin models/stories15m --tokenizer tokenizer.bin

SRC is what torch.save wrote (.pt, .pth; new or old form), llama2.c's .bin, or safetensors; its content decides. Nothing
in it is run: a pickle that names anything but tensors and plain containers is refused.")]
pub(crate) struct ConvertArguments {
    /// The file to convert
    #[arg(value_name = "SRC")]
    source: PathBuf,
    /// The folder to write, made where it is not there
    #[arg(value_name = "DST")]
    folder: PathBuf,
    /// What floats become [default: as they are]
    #[arg(long, value_enum)]
    dtype: Option<Dtype>,
    /// Key of the pickle's dict that holds the weights, where there are several
    #[arg(long)]
    key: Option<String>,
    /// File to copy into the folder as config.json
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A tokenizer.json to copy into the folder, or llama2.c's tokenizer.bin to convert
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Replace files that are there
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Dtype {
    F32,
    F16,
    Bf16,
}

impl From<Dtype> for Precision {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::Bf16 => Self::Bf16,
        }
    }
}

pub(crate) fn run(arguments: &ConvertArguments, format: Format, out: &mut dyn Write) -> Result<(), Failure> {
    let conversion = Conversion {
        source: arguments.source.clone(),
        folder: arguments.folder.clone(),
        precision: arguments.dtype.map(Precision::from),
        key: arguments.key.clone(),
        config: arguments.config.clone(),
        tokenizer: arguments.tokenizer.clone(),
        force: arguments.force,
    };
    let bar = progress::bar(STEPS, format!("converting {}", conversion.source.display()));
    let converted = convert(&conversion, &|share| bar.set_position((share * STEPS as f32) as u64));
    bar.finish_and_clear();
    let converted = converted?;
    match format {
        Format::Json => write_json(out, &as_json(&converted)),
        Format::Table => write(out, &as_text(&converted)),
    }
}

fn as_json(converted: &Converted) -> serde_json::Value {
    json!({
        "format": converted.format.name(),
        "key": converted.key,
        "left_out": converted.left_out,
        "tensors": converted.tensors,
        "bytes": converted.bytes,
        "files": converted.files,
    })
}

fn as_text(converted: &Converted) -> String {
    let all = || "all that are in the file".to_owned();
    let taken = converted.key.as_ref().map_or_else(all, |key| match &converted.left_out[..] {
        [] => format!("below key '{key}'"),
        others => format!("below key '{key}', not those below: {}", others.join(", ")),
    });
    let files: Vec<String> = converted.files.iter().map(|file| file.display().to_string()).collect();
    facts([
        ("source", converted.format.name().to_owned()),
        ("tensors", format!("{}, {taken}", converted.tensors)),
        ("weights", bytes(converted.bytes)),
        ("written", files.join(", ")),
    ])
}
