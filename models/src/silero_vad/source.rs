//! A Silero VAD folder before it is loaded.

use std::path::{Path, PathBuf};

use orion_proto::{Datatype, ModelName, ModelPolicy, ModelSpec, Result, TensorSpec};
use serde::Deserialize;

use super::{HIDDEN, SEQUENCE_BYTES, WINDOW};
use crate::{Precision, checkpoint::Checkpoint, file::read_json, unservable};

/// The rate that the weights were trained for, samples a second.
const SAMPLING_RATE: u32 = 16_000;
/// Bytes of a window's values while it is computed.
const WINDOW_BYTES: usize = 32 << 10;

/// The weights, by name and shape.
pub(super) const TENSORS: [(&str, &[usize]); 15] = [
    ("stft_conv.weight", &[258, 1, 256]),
    ("conv1.weight", &[128, 129, 3]),
    ("conv1.bias", &[128]),
    ("conv2.weight", &[64, 128, 3]),
    ("conv2.bias", &[64]),
    ("conv3.weight", &[64, 64, 3]),
    ("conv3.bias", &[64]),
    ("conv4.weight", &[HIDDEN, 64, 3]),
    ("conv4.bias", &[HIDDEN]),
    ("lstm_cell.weight_ih", &[4 * HIDDEN, HIDDEN]),
    ("lstm_cell.weight_hh", &[4 * HIDDEN, HIDDEN]),
    ("lstm_cell.bias_ih", &[4 * HIDDEN]),
    ("lstm_cell.bias_hh", &[4 * HIDDEN]),
    ("final_conv.weight", &[1, HIDDEN, 1]),
    ("final_conv.bias", &[1]),
];

/// A folder whose files were found to fit.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(super) folder: PathBuf,
    pub(super) precision: Precision,
    /// Bytes of the weight files.
    pub(crate) weight_bytes: u64,
    parameters: u64,
}

impl Source {
    /// Reads the configuration and the header of a folder.
    ///
    /// # Errors
    /// FAILED_PRECONDITION naming what is missing or does not fit.
    pub(crate) fn inspect(folder: &Path, precision: Precision) -> Result<Self> {
        check_rate(folder)?;
        let checkpoint = Checkpoint::open(folder)?;
        let mut parameters = 0;
        for (name, shape) in TENSORS {
            parameters += checkpoint.expect(name, shape)?.elements();
        }
        Ok(Self { folder: folder.into(), precision, weight_bytes: checkpoint.file_bytes(), parameters })
    }

    /// Floating-point operations for one window: twice the weights, most of them at several places of it.
    pub(crate) fn flops(&self) -> f64 {
        let places = |name: &str| match name.split('.').next() {
            Some("stft_conv" | "conv1") => 4.0,
            Some("conv2") => 2.0,
            _ => 1.0,
        };
        let operations = |(name, shape): &(&str, &[usize])| 2.0 * places(name) * shape.iter().product::<usize>() as f64;
        TENSORS.iter().map(operations).sum()
    }

    /// What it takes and gives once it is loaded.
    pub(crate) fn spec(&self, name: &ModelName, version: String, max_rows: usize) -> ModelSpec {
        let size: u64 = if self.precision == Precision::F32 { 4 } else { 2 };
        let working = (max_rows.saturating_mul(WINDOW_BYTES) as u64).saturating_add(SEQUENCE_BYTES);
        ModelSpec {
            name: name.clone(),
            version,
            family: super::FAMILY.into(),
            inputs: vec![TensorSpec::new("audio", Datatype::Fp32, [-1, WINDOW as i64])],
            outputs: vec![TensorSpec::new("speech", Datatype::Fp32, [-1])],
            max_batch_rows: max_rows,
            memory_bytes: self.parameters.saturating_mul(size).saturating_add(working),
            inline: false,
            policy: ModelPolicy::default(),
            generator: None,
        }
    }
}

fn check_rate(folder: &Path) -> Result<()> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(default = "trained")]
        sampling_rate: u32,
    }
    fn trained() -> u32 {
        SAMPLING_RATE
    }
    let path = folder.join("config.json");
    if !path.exists() {
        return Ok(());
    }
    let refused = |reason: String| unservable(format!("{}: {reason}", path.display()));
    let config: Config = read_json(&path)?;
    match config.sampling_rate {
        SAMPLING_RATE => Ok(()),
        rate => Err(refused(format!("sampling_rate is {rate}, only {SAMPLING_RATE} is served"))),
    }
}
