//! `orion.toml`, the optional file beside a model; `docs/orion-toml.md` lists its keys.

use std::path::Path;

use candle_core::DType;
use orion_proto::{Error, ModelPolicy, Result};
use serde::Deserialize;

mod generation;
mod policy;

pub(crate) use generation::Generation;
use policy::Placement;

/// The file's name.
pub(crate) const FILE: &str = "orion.toml";

/// The floating-point type in which a model computes, or in which its weights are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // the names are the field's own
pub enum Precision {
    #[default]
    F32,
    F16,
    Bf16,
}

impl Precision {
    /// Candle's name for it.
    pub(crate) fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
        }
    }

    /// Bytes of one value.
    pub(crate) fn bytes(self) -> usize {
        self.dtype().size_in_bytes()
    }

    /// Its name, as a device lists the types in which it computes.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }
}

/// What a folder holds, where its owner says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    SentenceEmbedding,
    TextClassification,
    Reranker,
    Magika,
    Onnx,
    SileroVad,
    Simulated,
}

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OrionToml {
    pub(crate) kind: Option<Kind>,
    pub(crate) precision: Option<Precision>,
    slo_ms: Option<f64>,
    max_queue_s: Option<f64>,
    balancer: Option<String>,
    #[serde(default)]
    hedge: bool,
    #[serde(default)]
    placement: Placement,
    #[serde(default)]
    pub(crate) batching: Batching,
    #[serde(default)]
    pub(crate) generation: Generation,
    pub(crate) simulated: Option<Simulated>,
}

/// How rows are put together.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Batching {
    pub(crate) max_rows: usize,
}

impl Default for Batching {
    fn default() -> Self {
        Self { max_rows: 32 }
    }
}

/// A latency model: a batch of `n` rows takes `(base + per_row · n) · exp(noise · z)` seconds.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Simulated {
    pub(crate) base_seconds: f64,
    pub(crate) per_row_seconds: f64,
    pub(crate) noise: f64,
    pub(crate) seed: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) load_seconds: f64,
    /// Device memory that a batch is said to take beside the weights.
    pub(crate) peak_bytes: u64,
    /// A batch that holds this value fails as a whole.
    pub(crate) poison: Option<f32>,
    /// Share of batches that the device fails.
    pub(crate) fail_share: f64,
    /// Batches of more rows run out of memory.
    pub(crate) out_of_memory_rows: Option<usize>,
}

/// A simulated batch or load longer than this is a mistake in the unit.
const DAY: f64 = 86_400.0;
const MAX_NOISE: f64 = 10.0;

impl OrionToml {
    /// Reads the file of a folder; `None` where there is none.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(FILE);
        if path.exists() {
            crate::file::check_regular(&path)?;
        }
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                Self::parse(&text).map(Some).map_err(|e| Error::new(e.code, format!("{}: {e}", path.display())))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(crate::unreadable(&path, &error)),
        }
    }

    fn parse(text: &str) -> Result<Self> {
        let file: Self = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            Error::invalid(format!(
                "line {}: {}",
                before.matches('\n').count() + 1,
                error.message().replace('\n', ", ")
            ))
        })?;
        file.check()?;
        Ok(file)
    }

    fn check(&self) -> Result<()> {
        if !(1..=65_536).contains(&self.batching.max_rows) {
            let rows = self.batching.max_rows;
            return Err(Error::invalid(format!("batching.max_rows is {rows}, it must be 1 to 65536")));
        }
        let simulated = self.kind == Some(Kind::Simulated);
        if simulated && self.precision.is_some() {
            return Err(Error::invalid("precision has no meaning for kind \"simulated\", leave it out"));
        }
        self.generation.check()?;
        self.policy()?;
        match &self.simulated {
            Some(_) if !simulated => Err(Error::invalid("[simulated] needs kind = \"simulated\"")),
            Some(latency) => latency.check(),
            None => Ok(()),
        }
    }
}

impl Simulated {
    fn check(&self) -> Result<()> {
        let bounded = [
            ("base_seconds", self.base_seconds, DAY),
            ("per_row_seconds", self.per_row_seconds, DAY),
            ("load_seconds", self.load_seconds, DAY),
            ("noise", self.noise, MAX_NOISE),
            ("fail_share", self.fail_share, 1.0),
        ];
        for (key, value, most) in bounded {
            if !(0.0..=most).contains(&value) {
                return Err(Error::invalid(format!("simulated.{key} is {value}, it must be 0 to {most}")));
            }
        }
        match self.poison {
            Some(value) if value.is_nan() => Err(Error::invalid("simulated.poison is nan, it must be a number")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_named() {
        for (text, words) in [
            ("kind = \"simulated\"\nspeed = 3", ["line 2", "speed"]),
            ("[batching]\nmax_row = 3", ["line 2", "max_row"]),
            ("[batching]\nmax_rows = 0", ["max_rows", "1 to 65536"]),
            ("[batching]\nmax_rows = -1", ["line 2", "-1"]),
            ("precision = \"f8\"", ["f8", "bf16"]),
            ("kind = \"vision\"", ["vision", "sentence-embedding"]),
            ("kind = \"simulated\"\n[simulated]\nbase_seconds = -1.0", ["base_seconds", "-1"]),
            ("kind = \"simulated\"\n[simulated]\nper_row_seconds = nan", ["per_row_seconds", "NaN"]),
            ("kind = \"simulated\"\n[simulated]\nload_seconds = inf", ["load_seconds", "inf"]),
            ("kind = \"simulated\"\n[simulated]\nnoise = -0.1", ["noise", "-0.1"]),
            ("kind = \"simulated\"\n[simulated]\nmemory_bytes = -1", ["line 3", "-1"]),
            ("kind = \"simulated\"\nprecision = \"f16\"", ["precision", "simulated"]),
            ("[simulated]\nseed = 1", ["[simulated]", "kind"]),
            ("kind = \"simulated\"\n[simulated]\nfail_share = 1.5", ["fail_share", "1.5"]),
            ("kind = \"simulated\"\n[simulated]\npoison = nan", ["poison", "number"]),
            ("kind = ", ["line 1", ""]),
        ] {
            let message = OrionToml::parse(text).unwrap_err().message;
            assert!(words.iter().all(|word| message.contains(word)), "{text:?} gave {message:?}");
        }
    }

    #[test]
    fn defaults_hold_for_what_is_left_out() {
        let file = OrionToml::parse("kind = \"simulated\"\n[simulated]\nbase_seconds = 0.5").unwrap();
        assert_eq!((file.kind, file.batching.max_rows), (Some(Kind::Simulated), 32));
        assert_eq!(file.simulated.map(|s| (s.base_seconds, s.per_row_seconds, s.seed)), Some((0.5, 0.0, 0)));
    }
}
