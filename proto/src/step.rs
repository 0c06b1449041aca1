//! Steps before and after models, which need no files: what they are is in their path, `step:NAME{settings as JSON}`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Error, Result, datatype::shortened};

/// What such a path begins with.
const PREFIX: &str = "step:";
/// Pixels of a side of an image, and classes or boxes, at most.
const MOST_PIXELS: usize = 8192;
const MOST_AREA: usize = 1 << 22;
const MOST_CHOSEN: usize = 65_536;
/// Samples a second.
const MOST_RATE: u32 = 768_000;
const MOST_RATIO: u32 = 96;
const MOST_TERMS: u32 = 48_000;
const MOST_BANDS: usize = 128;
const MOST_SAMPLES: usize = 1 << 28;

/// A step with its settings. All take FP32 where nothing else is said, in an input `x`, and give an output `y`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "run", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Run {
    /// Values become shares of their row, the last dimension.
    Softmax {},
    /// Values become shares of 1, each alone.
    Sigmoid {},
    /// The greatest of the last dimension: `values`, `indices` (INT64), and `labels` (BYTES) where they are given.
    TopK {
        /// How many.
        k: usize,
        /// Names of the classes, in order.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        labels: Vec<String>,
    },
    /// Each row of the last dimension has the length 1.
    UnitLength {},
    /// Values less their channel's mean, by its deviation; channels are the second dimension.
    Normalize {
        /// One a channel, or one for all.
        mean: Vec<f32>,
        /// As `mean`; none may be 0.
        deviation: Vec<f32>,
    },
    /// Whether values are at least this: BOOL.
    Threshold {
        /// The least.
        at: f32,
    },
    /// Rows of tokens × values become one vector each; `mask` (INT64, rows × tokens) leaves tokens out.
    Pool {
        /// Of which tokens.
        of: Pooling,
    },
    /// Encoded images (BYTES) become rows × 3 × height × width, from 0 to 1, less mean and by deviation.
    Image {
        /// Pixels.
        width: usize,
        /// Pixels.
        height: usize,
        /// Red, green, blue; none: 0.
        #[serde(default = "zeros")]
        mean: [f32; 3],
        /// Red, green, blue; none: 1.
        #[serde(default = "ones")]
        deviation: [f32; 3],
    },
    /// Boxes (rows × boxes × 4: left, top, right, bottom) with `scores` (rows × boxes): of those that overlap the best stays.
    /// `indices` (INT64, rows × most) of those that stay, best first, filled up with -1.
    Nms {
        /// Share of their union that two boxes may have in common.
        overlap: f32,
        /// Boxes of a lower score are left out.
        #[serde(default)]
        score: f32,
        /// Boxes that stay of a row.
        most: usize,
    },
    /// Sound of one rate becomes sound of another: rows × samples.
    Resample {
        /// Samples a second.
        from: u32,
        /// Samples a second.
        to: u32,
    },
    /// The mel spectrogram of sound of 16 kHz, as Whisper hears it: rows × samples become rows × bands × frames of 10 ms.
    LogMel {
        /// Bands.
        mels: usize,
    },
    /// Texts (`text`, BYTES) become tokens: `ids`, `mask` and `types` (INT64, rows × tokens), filled up with zeros.
    Tokenize {
        /// A `tokenizer.json` that the workers have.
        tokenizer: String,
        /// Tokens of a row; what is longer is cut.
        #[serde(default = "most_tokens")]
        most: usize,
    },
    /// Tokens (`ids`, INT64, rows × tokens; `mask` leaves some out) become texts: `text` (BYTES).
    Detokenize {
        /// A `tokenizer.json` that the workers have.
        tokenizer: String,
    },
    /// One row of samples becomes rows of so many, the last filled up with zeros.
    Chunk {
        /// Samples of a row.
        size: usize,
        /// Samples from the beginning of one to that of the next.
        step: usize,
    },
}

/// What a row's tokens become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The greatest of each value.
    Max,
    /// The first.
    First,
}

fn divisor(one: u32, other: u32) -> u32 {
    if other == 0 { one.max(1) } else { divisor(other, one % other) }
}

fn most_tokens() -> usize {
    512
}

fn zeros() -> [f32; 3] {
    [0.0; 3]
}

fn ones() -> [f32; 3] {
    [1.0; 3]
}

impl Run {
    /// A step by its name, with its settings.
    ///
    /// # Errors
    /// INVALID_ARGUMENT naming what is unknown or out of range.
    pub fn new(name: &str, settings: Value) -> Result<Self> {
        let Value::Object(mut settings) = settings else {
            return Err(Error::invalid(format!("the settings of step {} must be {{ name = value }}", shortened(name))));
        };
        if settings.insert("run".into(), name.into()).is_some() {
            return Err(Error::invalid("a setting of a step cannot be named 'run'"));
        }
        let read = serde_json::from_value::<Self>(Value::Object(settings));
        let step = read.map_err(|error| Error::invalid(format!("step {}: {error}", shortened(name))))?;
        step.check()?;
        Ok(step)
    }

    /// Whether a model's path is that of a step.
    pub fn is_path(path: &str) -> bool {
        path.starts_with(PREFIX)
    }

    /// The step of a path.
    ///
    /// # Errors
    /// As [`Run::new`].
    pub fn of_path(path: &str) -> Result<Self> {
        let path = path.strip_prefix(PREFIX).unwrap_or(path);
        let (name, settings) = path.split_at(path.find('{').unwrap_or(path.len()));
        let settings = match settings {
            "" => Value::Object(Map::new()),
            settings => serde_json::from_str(settings).map_err(|error| {
                Error::invalid(format!("step:{}: its settings are no JSON object: {error}", shortened(name)))
            })?,
        };
        Self::new(name, settings)
    }

    /// The same with the files that it names looked for in this folder.
    #[must_use]
    pub fn within(mut self, folder: &std::path::Path) -> Self {
        if let Self::Tokenize { tokenizer, .. } | Self::Detokenize { tokenizer } = &mut self
            && let Some(path) = folder.join(&*tokenizer).to_str()
        {
            *tokenizer = path.to_owned();
        }
        self
    }

    /// Its path.
    pub fn path(&self) -> String {
        let Ok(Value::Object(mut settings)) = serde_json::to_value(self) else { return PREFIX.into() };
        let name = settings.shift_remove("run");
        let name = name.as_ref().and_then(Value::as_str).unwrap_or_default();
        match settings.is_empty() {
            true => format!("{PREFIX}{name}"),
            false => format!("{PREFIX}{name}{}", Value::Object(settings)),
        }
    }

    /// The shape of what it gives, where that follows from the shape of `x`, -1 for any size; none where it is declared.
    pub fn shape(&self, x: &[i64]) -> Option<Vec<i64>> {
        match self {
            Self::Softmax {}
            | Self::Sigmoid {}
            | Self::UnitLength {}
            | Self::Normalize { .. }
            | Self::Threshold { .. } => Some(x.to_vec()),
            Self::TopK { k, .. } => {
                let (_, outer) = x.split_last()?;
                Some(outer.iter().copied().chain([*k as i64]).collect())
            }
            Self::Pool { .. }
            | Self::Image { .. }
            | Self::Nms { .. }
            | Self::Resample { .. }
            | Self::Chunk { .. }
            | Self::LogMel { .. }
            | Self::Tokenize { .. }
            | Self::Detokenize { .. } => None,
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        let within = |what: &str, value: usize, most: usize| match (1..=most).contains(&value) {
            true => Ok(()),
            false => Err(Error::invalid(format!("{what} is {value}, it must be 1 to {most}"))),
        };
        let some = |what: &str, values: &[f32], zero: bool| match !values.is_empty()
            && values.iter().all(|value| value.is_finite() && (zero || *value != 0.0))
        {
            true => Ok(()),
            false => Err(Error::invalid(format!(
                "{what} is {values:?}, it must be numbers{}",
                if zero { "" } else { " other than 0" }
            ))),
        };
        match self {
            Self::Softmax {} | Self::Sigmoid {} | Self::UnitLength {} | Self::Pool { .. } => Ok(()),
            Self::Threshold { at } => some("at", &[*at], true),
            Self::TopK { k, .. } => within("k", *k, MOST_CHOSEN),
            Self::Normalize { mean, deviation } => {
                some("mean", mean, true)?;
                some("deviation", deviation, false)?;
                let fits = |len: usize| len == 1 || len == mean.len().max(deviation.len());
                match fits(mean.len()) && fits(deviation.len()) {
                    true => Ok(()),
                    false => Err(Error::invalid("mean and deviation must have one value, or as many as each other")),
                }
            }
            Self::Image { width, height, mean, deviation } => {
                within("width", *width, MOST_PIXELS)?;
                within("height", *height, MOST_PIXELS)?;
                within("width × height", width * height, MOST_AREA)?;
                some("mean", mean, true)?;
                some("deviation", deviation, false)
            }
            Self::Nms { overlap, score, most } => {
                some("score", &[*score], true)?;
                if !(0.0..=1.0).contains(overlap) {
                    return Err(Error::invalid(format!("overlap is {overlap}, it must be 0 to 1")));
                }
                within("most", *most, MOST_CHOSEN)
            }
            Self::Resample { from, to } => {
                within("from", *from as usize, MOST_RATE as usize)?;
                within("to", *to as usize, MOST_RATE as usize)?;
                let (least, most) = (from.min(to), from.max(to));
                // The filter is as long as the rates in their lowest terms.
                let terms = most / divisor(*from, *to);
                match most / least <= MOST_RATIO && terms <= MOST_TERMS {
                    true => Ok(()),
                    false => Err(Error::invalid(format!(
                        "from {from} to {to} is too far apart: one must be at most {MOST_RATIO} times the other, and their \
                         ratio at most {MOST_TERMS} in its lowest terms"
                    ))),
                }
            }
            Self::LogMel { mels } => within("mels", *mels, MOST_BANDS),
            Self::Tokenize { tokenizer, .. } | Self::Detokenize { tokenizer } if tokenizer.is_empty() => {
                Err(Error::invalid("tokenizer is empty, it must be the path of a tokenizer.json"))
            }
            Self::Tokenize { most, .. } => within("most", *most, MOST_CHOSEN),
            Self::Detokenize { .. } => Ok(()),
            Self::Chunk { size, step } => {
                within("size", *size, MOST_SAMPLES)?;
                within("step", *step, *size)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_the_step() {
        for path in ["step:softmax", r#"step:top-k{"k":5,"labels":["a","b"]}"#, r#"step:threshold{"at":0.5}"#] {
            assert_eq!(Run::of_path(path).unwrap().path(), path);
        }
        assert!(Run::of_path(r#"step:image{"width":8,"height":4}"#).is_ok());
    }

    #[test]
    fn what_is_unknown_or_out_of_range_is_named() {
        for (path, words) in [
            ("step:sotfmax", "unknown variant `sotfmax`"),
            ("step:softmax{\"axis\":1}", "unknown field `axis`"),
            ("step:top-k", "missing field `k`"),
            ("step:top-k{\"k\":0}", "k is 0, it must be 1 to 65536"),
            ("step:top-k{", "no JSON object"),
            ("step:top-k[1]", "unknown variant"),
            ("step:normalize{\"mean\":[0,0],\"deviation\":[1,1,1]}", "as many as each other"),
            ("step:normalize{\"mean\":[0],\"deviation\":[0]}", "other than 0"),
            ("step:nms{\"overlap\":2,\"most\":3}", "overlap is 2"),
            ("step:chunk{\"size\":4,\"step\":5}", "step is 5, it must be 1 to 4"),
            ("step:resample{\"from\":1,\"to\":768000}", "too far apart"),
            ("step:resample{\"from\":48001,\"to\":96000}", "too far apart"),
            ("step:image{\"width\":8192,\"height\":8192}", "width × height is"),
            ("step:pool{\"of\":\"median\"}", "unknown variant `median`"),
        ] {
            let error = Run::of_path(path).unwrap_err();
            assert!(error.message.contains(words), "{path}: {error}");
        }
    }
}
