//! What a decoder of the Llama family is made of, from `config.json` or a GGUF file's metadata.

use std::path::Path;

use orion_proto::Result;
use serde::Deserialize;

use super::kernels::{LANES, RopeStyle};
use crate::{
    gguf::{Encoding, Gguf, Value},
    unservable,
};

/// Architectures that are read, as both kinds of files call them.
pub(crate) const ARCHITECTURES: [&str; 4] = ["llama", "mistral", "qwen2", "qwen3"];

/// Sizes and variants of a decoder.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DecoderConfig {
    pub(crate) architecture: String,
    pub(crate) hidden: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) key_value_heads: usize,
    pub(crate) head_size: usize,
    pub(crate) intermediate: usize,
    pub(crate) vocabulary: usize,
    /// Positions that it was trained for.
    pub(crate) context: usize,
    pub(crate) epsilon: f32,
    pub(crate) rope: RopeConfig,
    /// Positions that one looks back at, itself included; none: all.
    pub(crate) window: Option<usize>,
    /// Queries, keys and values have a bias.
    pub(crate) bias: bool,
    /// Each head's query and key are normalised.
    pub(crate) head_norm: bool,
    /// Whether the embeddings are the output weight too, where that is declared.
    pub(crate) tied: Option<bool>,
}

/// Rotary positions.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RopeConfig {
    pub(crate) style: RopeStyle,
    pub(crate) base: f64,
    pub(crate) scaling: RopeScaling,
}

/// How positions are stretched.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RopeScaling {
    None,
    /// Every position is divided.
    Linear(f64),
    /// Slow turns are slowed further (Llama 3.1).
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        original: f64,
    },
    /// Each pair's turn is divided by its own factor, which stands in the file.
    Factors(Vec<f32>),
}

#[derive(Deserialize)]
struct ConfigJson {
    model_type: String,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    rms_norm_eps: f32,
    rope_theta: Option<f64>,
    rope_scaling: Option<ScalingJson>,
    /// Both of the above, in files of newer tools.
    rope_parameters: Option<ScalingJson>,
    sliding_window: Option<usize>,
    use_sliding_window: Option<bool>,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    hidden_act: Option<String>,
}

#[derive(Deserialize)]
struct ScalingJson {
    rope_theta: Option<f64>,
    #[serde(alias = "type")]
    rope_type: Option<String>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
}

impl ScalingJson {
    fn scaling(&self) -> Result<RopeScaling> {
        let need = |value: Option<f64>, name: &str| {
            value
                .filter(|value| *value > 0.0 && value.is_finite())
                .ok_or_else(|| unservable(format!("config.json's rope_scaling has no '{name}' above 0")))
        };
        match self.rope_type.as_deref() {
            None | Some("default") => Ok(RopeScaling::None),
            Some("linear") => Ok(RopeScaling::Linear(need(self.factor, "factor")?)),
            Some("llama3") => Ok(RopeScaling::Llama3 {
                factor: need(self.factor, "factor")?,
                low: need(self.low_freq_factor, "low_freq_factor")?,
                high: need(self.high_freq_factor, "high_freq_factor")?,
                original: need(self.original_max_position_embeddings, "original_max_position_embeddings")?,
            }),
            Some(other) => Err(unservable(format!(
                "config.json's rope_scaling is '{other}', served are 'linear', 'llama3' and 'default'"
            ))),
        }
    }
}

impl DecoderConfig {
    /// From a folder's `config.json`.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        let json: ConfigJson = serde_json::from_slice(&crate::file::read_text(&path)?).map_err(|error| {
            unservable(format!("{} cannot be read: {}", path.display(), error.to_string().to_lowercase()))
        })?;
        if json.hidden_act.as_deref().is_some_and(|act| act != "silu") || json.mlp_bias == Some(true) {
            return Err(unservable(format!("{}: only hidden_act 'silu' without mlp_bias is served", path.display())));
        }
        let qwen = json.model_type.starts_with("qwen");
        let scaling = json.rope_parameters.or(json.rope_scaling);
        let base = json.rope_theta.or(scaling.as_ref().and_then(|scaling| scaling.rope_theta));
        let window = json.sliding_window.filter(|_| json.use_sliding_window.unwrap_or(!qwen));
        let config = Self {
            hidden: json.hidden_size,
            layers: json.num_hidden_layers,
            heads: json.num_attention_heads,
            key_value_heads: json.num_key_value_heads.unwrap_or(json.num_attention_heads),
            head_size: json.head_dim.unwrap_or(json.hidden_size / json.num_attention_heads.max(1)),
            intermediate: json.intermediate_size,
            vocabulary: json.vocab_size,
            context: json.max_position_embeddings,
            epsilon: json.rms_norm_eps,
            rope: RopeConfig {
                style: RopeStyle::Halves,
                base: base.unwrap_or(10_000.0),
                scaling: scaling.map_or(Ok(RopeScaling::None), |scaling| scaling.scaling())?,
            },
            window,
            bias: json.attention_bias.unwrap_or(json.model_type == "qwen2"),
            head_norm: json.model_type == "qwen3",
            tied: Some(json.tie_word_embeddings.unwrap_or(false)),
            architecture: json.model_type,
        };
        config.check("config.json")
    }

    /// From a GGUF file's metadata.
    pub(crate) fn from_gguf(gguf: &Gguf) -> Result<Self> {
        let architecture = gguf.get("general.architecture").and_then(Value::text).unwrap_or_default().to_owned();
        if !ARCHITECTURES.contains(&architecture.as_str()) {
            return Err(unservable(format!(
                "its general.architecture is '{architecture}', served are {}",
                ARCHITECTURES.join(", ")
            )));
        }
        let get = |key: &str| gguf.get(&format!("{architecture}.{key}"));
        let size = |key: &str| get(key).and_then(Value::unsigned).and_then(|value| usize::try_from(value).ok());
        let need = |key: &str| {
            size(key).ok_or_else(|| unservable(format!("its metadata has no whole number '{architecture}.{key}'")))
        };
        let (hidden, heads) = (need("embedding_length")?, need("attention.head_count")?);
        let head_size = size("attention.key_length").unwrap_or(hidden / heads.max(1));
        if size("rope.dimension_count").is_some_and(|turned| turned != head_size) {
            return Err(unservable(format!("{architecture}.rope.dimension_count must be the head's size {head_size}")));
        }
        let epsilon = get("attention.layer_norm_rms_epsilon").and_then(Value::float).unwrap_or(1e-5);
        let config = Self {
            hidden,
            layers: need("block_count")?,
            heads,
            key_value_heads: size("attention.head_count_kv").unwrap_or(heads),
            head_size,
            intermediate: need("feed_forward_length")?,
            vocabulary: gguf.length("tokenizer.ggml.tokens").unwrap_or_default(),
            context: need("context_length")?,
            epsilon: epsilon as f32,
            rope: RopeConfig {
                // Converters turn the rows of llama's queries and keys so that pairs are neighbours.
                style: if architecture.starts_with("qwen") { RopeStyle::Halves } else { RopeStyle::Adjacent },
                base: get("rope.freq_base").and_then(Value::float).unwrap_or(10_000.0),
                scaling: Self::gguf_scaling(gguf, &architecture)?,
            },
            window: size("attention.sliding_window").filter(|window| *window > 0),
            bias: gguf.tensor("blk.0.attn_q.bias").is_some(),
            head_norm: architecture == "qwen3",
            tied: None,
            architecture,
        };
        config.check("its metadata")
    }

    fn gguf_scaling(gguf: &Gguf, architecture: &str) -> Result<RopeScaling> {
        let factors = gguf.tensor("rope_freqs.weight").filter(|info| info.encoding == Encoding::F32);
        if let Some(factors) = factors.and_then(|info| gguf.tensor_bytes(info)) {
            let (factors, _) = factors.bytes().as_chunks::<4>();
            return Ok(RopeScaling::Factors(factors.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()));
        }
        let get = |key: &str| gguf.get(&format!("{architecture}.rope.scaling.{key}"));
        match get("type").and_then(Value::text) {
            None | Some("none") => Ok(RopeScaling::None),
            Some("linear") => Ok(RopeScaling::Linear(get("factor").and_then(Value::float).unwrap_or(1.0))),
            Some(other) => Err(unservable(format!(
                "{architecture}.rope.scaling.type is '{other}', served are 'linear' and 'none'"
            ))),
        }
    }

    /// Refuses sizes that the kernels cannot take or that no model has.
    fn check(self, place: &str) -> Result<Self> {
        let vectors =
            [("hidden size", self.hidden), ("head size", self.head_size), ("intermediate size", self.intermediate)];
        for (name, value) in vectors {
            if value == 0 || value % LANES != 0 || value > 1 << 20 {
                return Err(unservable(format!("the {name} of {place} is {value}, it must be a multiple of {LANES}")));
            }
        }
        for (name, value, most) in [
            ("count of layers", self.layers, 1024),
            ("count of heads", self.heads, 4096),
            ("count of key-value heads", self.key_value_heads, 4096),
            ("size of the vocabulary", self.vocabulary, 1 << 24),
            ("context", self.context, 1 << 24),
        ] {
            if !(1..=most).contains(&value) {
                return Err(unservable(format!("the {name} of {place} is {value}, it must be 1 to {most}")));
            }
        }
        if !self.heads.is_multiple_of(self.key_value_heads) {
            return Err(unservable(format!(
                "{place} has {} heads for {} key-value heads, they must be a multiple",
                self.heads, self.key_value_heads
            )));
        }
        if let RopeScaling::Factors(factors) = &self.rope.scaling
            && factors.len() != self.head_size / 2
        {
            return Err(unservable(format!("rope_freqs.weight must have {} values", self.head_size / 2)));
        }
        let sane =
            self.rope.base.is_finite() && self.rope.base > 0.0 && self.epsilon.is_finite() && self.epsilon >= 0.0;
        if !sane {
            return Err(unservable(format!("the rope base and the norm's epsilon of {place} must be numbers above 0")));
        }
        Ok(self)
    }

    /// Values of the queries of one token.
    pub(crate) fn queries(&self) -> usize {
        self.heads * self.head_size
    }

    /// Values of the keys of one token, and of its values.
    pub(crate) fn keys(&self) -> usize {
        self.key_value_heads * self.head_size
    }

    /// Numbers of a token's keys and values over all layers.
    pub(crate) fn token_values(&self) -> u64 {
        2 * (self.layers * self.keys()) as u64
    }

    /// Floating-point operations for a token, attention aside.
    pub(crate) fn flops(&self) -> f64 {
        let (hidden, queries, keys) = (self.hidden as f64, self.queries() as f64, self.keys() as f64);
        let layer = hidden * (2.0 * queries + 2.0 * keys + 3.0 * self.intermediate as f64);
        2.0 * (self.layers as f64 * layer + hidden * self.vocabulary as f64)
    }

    /// Turns of a pair of values a position, radians.
    pub(crate) fn turns(&self) -> Vec<f64> {
        let pairs = self.head_size / 2;
        let plain = (0..pairs).map(|pair| {
            let exponent = -(2.0 * pair as f64) / self.head_size as f64;
            libm::pow(self.rope.base, exponent)
        });
        match &self.rope.scaling {
            RopeScaling::None => plain.collect(),
            RopeScaling::Linear(factor) => plain.map(|turn| turn / factor).collect(),
            RopeScaling::Factors(factors) => {
                plain.zip(factors).map(|(turn, factor)| turn / f64::from(*factor)).collect()
            }
            RopeScaling::Llama3 { factor, low, high, original } => plain
                .map(|turn| {
                    let length = 2.0 * std::f64::consts::PI / turn;
                    if length < original / high {
                        turn
                    } else if length > original / low {
                        turn / factor
                    } else {
                        let smooth = (original / length - low) / (high - low);
                        (1.0 - smooth) * turn / factor + smooth * turn
                    }
                })
                .collect(),
        }
    }
}
