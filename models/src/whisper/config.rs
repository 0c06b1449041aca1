//! The shape of a Whisper model, from its `config.json`, and the tensors that it consists of.

use std::path::Path;

use orion_proto::Result;
use serde::Deserialize;

use crate::{file::read_json, generation::kernels::LANES, unservable};

/// From this vocabulary on a model is multilingual: its prompt names a language.
const MULTILINGUAL: usize = 51_865;

/// What `config.json` says of a Whisper model, under the keys of Hugging Face; others are not needed to run it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct WhisperConfig {
    /// Columns of encoder and decoder.
    pub(crate) d_model: usize,
    pub(crate) encoder_layers: usize,
    pub(crate) encoder_attention_heads: usize,
    pub(crate) decoder_layers: usize,
    pub(crate) decoder_attention_heads: usize,
    pub(crate) num_mel_bins: usize,
    /// Positions of an encoded window; each stands for two frames of the spectrogram, 20 ms.
    pub(crate) max_source_positions: usize,
    /// Tokens of a prompt and its transcript.
    pub(crate) max_target_positions: usize,
    pub(crate) vocab_size: usize,
    encoder_ffn_dim: Option<usize>,
    decoder_ffn_dim: Option<usize>,
    #[serde(default = "default_activation")]
    activation_function: String,
}

fn default_activation() -> String {
    "gelu".into()
}

impl WhisperConfig {
    /// Reads `config.json` and refuses what would be computed wrongly.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        let refused = |reason: String| unservable(format!("{}: {reason}", path.display()));
        let config: Self = read_json(&path)?;
        config.check().map_err(refused)?;
        Ok(config)
    }

    fn check(&self) -> std::result::Result<(), String> {
        let sizes = [
            ("d_model", self.d_model, 1 << 14),
            ("encoder_layers", self.encoder_layers, 1 << 8),
            ("encoder_attention_heads", self.encoder_attention_heads, 1 << 8),
            ("decoder_layers", self.decoder_layers, 1 << 8),
            ("decoder_attention_heads", self.decoder_attention_heads, 1 << 8),
            ("encoder_ffn_dim", self.encoder_inner(), 1 << 16),
            ("decoder_ffn_dim", self.decoder_inner(), 1 << 16),
            ("num_mel_bins", self.num_mel_bins, 128),
            ("max_source_positions", self.max_source_positions, 1500),
            ("max_target_positions", self.max_target_positions, 1 << 12),
            ("vocab_size", self.vocab_size, 1 << 20),
        ];
        if let Some((key, size, most)) = sizes.into_iter().find(|(_, size, most)| !(1..=*most).contains(size)) {
            return Err(format!("{key} is {size}, it must be 1 to {most}"));
        }
        // Half of them are for what was said before, one of those begins it.
        if self.max_target_positions < 4 {
            return Err(format!("max_target_positions is {}, it must be 4 at least", self.max_target_positions));
        }
        for (key, size) in [
            ("d_model", self.d_model),
            ("encoder_ffn_dim", self.encoder_inner()),
            ("decoder_ffn_dim", self.decoder_inner()),
        ] {
            if !size.is_multiple_of(LANES) {
                return Err(format!("{key} is {size}, it must be a multiple of {LANES}"));
            }
        }
        let heads = [
            ("encoder_attention_heads", self.encoder_attention_heads),
            ("decoder_attention_heads", self.decoder_attention_heads),
        ];
        if let Some((key, heads)) = heads.into_iter().find(|(_, heads)| !self.d_model.is_multiple_of(*heads)) {
            return Err(format!("d_model {} must be a multiple of {key} {heads}", self.d_model));
        }
        if self.vocab_size >= MULTILINGUAL {
            return Err(format!(
                "vocab_size is {}, that of a multilingual model; served are those for english (below {MULTILINGUAL})",
                self.vocab_size
            ));
        }
        match self.activation_function.as_str() {
            "gelu" => Ok(()),
            other => Err(format!("activation_function '{other}' is not served, only 'gelu'")),
        }
    }

    /// Frames of the spectrogram that are encoded at once: 30 seconds.
    pub(crate) fn window_frames(&self) -> usize {
        2 * self.max_source_positions
    }

    /// Columns between the two dense layers of an encoder's block.
    pub(crate) fn encoder_inner(&self) -> usize {
        self.encoder_ffn_dim.unwrap_or(4 * self.d_model)
    }

    /// Columns between the two dense layers of a decoder's block.
    pub(crate) fn decoder_inner(&self) -> usize {
        self.decoder_ffn_dim.unwrap_or(4 * self.d_model)
    }

    /// Floating-point operations for one window and so many tokens.
    pub(crate) fn flops(&self, tokens: usize) -> f64 {
        let (d, positions) = (self.d_model as f64, self.max_source_positions as f64);
        let (layers, decoder_layers, tokens) = (self.encoder_layers as f64, self.decoder_layers as f64, tokens as f64);
        let convolutions = positions * 3.0 * d * (2.0 * self.num_mel_bins as f64 + d);
        let block = 4.0 * d * d + 2.0 * d * self.encoder_inner() as f64 + 2.0 * positions * d;
        let cross = decoder_layers * positions * 2.0 * d * d;
        let token = decoder_layers * (6.0 * d * d + 2.0 * d * self.decoder_inner() as f64 + 2.0 * positions * d);
        let logits = self.vocab_size as f64 * d;
        2.0 * (convolutions + layers * positions * block + cross + tokens * (token + logits))
    }

    /// The tensors that are read, under the names of OpenAI's checkpoints, with their shapes.
    pub(crate) fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let (d, mels) = (self.d_model, self.num_mel_bins);
        let mut tensors = vec![
            ("encoder.conv1.weight".to_owned(), vec![d, mels, 3]),
            ("encoder.conv1.bias".to_owned(), vec![d]),
            ("encoder.conv2.weight".to_owned(), vec![d, d, 3]),
            ("encoder.conv2.bias".to_owned(), vec![d]),
            ("encoder.positional_embedding".to_owned(), vec![self.max_source_positions, d]),
            ("decoder.token_embedding.weight".to_owned(), vec![self.vocab_size, d]),
            ("decoder.positional_embedding".to_owned(), vec![self.max_target_positions, d]),
        ];
        for norm in ["encoder.ln_post", "decoder.ln"] {
            tensors.extend(["weight", "bias"].map(|part| (format!("{norm}.{part}"), vec![d])));
        }
        for layer in 0..self.encoder_layers {
            block(&format!("encoder.blocks.{layer}"), &["attn"], d, self.encoder_inner(), &mut tensors);
        }
        for layer in 0..self.decoder_layers {
            let attentions = ["attn", "cross_attn"];
            block(&format!("decoder.blocks.{layer}"), &attentions, d, self.decoder_inner(), &mut tensors);
        }
        tensors
    }
}

/// The tensors of one block: its attentions, then the two dense layers, each behind its norm.
fn block(name: &str, attentions: &[&str], d: usize, inner: usize, tensors: &mut Vec<(String, Vec<usize>)>) {
    let mut add = |part: String, shape: Vec<usize>| tensors.push((format!("{name}.{part}"), shape));
    for attention in attentions {
        for part in ["query", "key", "value", "out"] {
            add(format!("{attention}.{part}.weight"), vec![d, d]);
            // A bias on the keys would move all scores of a query alike.
            if part != "key" {
                add(format!("{attention}.{part}.bias"), vec![d]);
            }
        }
        add(format!("{attention}_ln.weight"), vec![d]);
        add(format!("{attention}_ln.bias"), vec![d]);
    }
    add("mlp_ln.weight".into(), vec![d]);
    add("mlp_ln.bias".into(), vec![d]);
    add("mlp.0.weight".into(), vec![inner, d]);
    add("mlp.0.bias".into(), vec![inner]);
    add("mlp.2.weight".into(), vec![d, inner]);
    add("mlp.2.bias".into(), vec![d]);
}
