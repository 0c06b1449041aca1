//! The shape of a BERT encoder, from its `config.json`.

use std::path::Path;

use orion_proto::Result;
use serde::Deserialize;

use crate::{file::read_json, unservable};

/// What `config.json` says of a BERT encoder; other keys are not needed to run it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct BertConfig {
    pub(crate) hidden_size: usize,
    pub(crate) num_hidden_layers: usize,
    pub(crate) num_attention_heads: usize,
    pub(crate) intermediate_size: usize,
    pub(crate) max_position_embeddings: usize,
    pub(crate) type_vocab_size: usize,
    pub(crate) vocab_size: usize,
    #[serde(default = "default_epsilon")]
    pub(crate) layer_norm_eps: f64,
    #[serde(default = "default_activation")]
    hidden_act: String,
    #[serde(default = "default_positions")]
    position_embedding_type: String,
}

fn default_epsilon() -> f64 {
    1e-12
}

fn default_activation() -> String {
    "gelu".into()
}

fn default_positions() -> String {
    "absolute".into()
}

impl BertConfig {
    /// Reads `config.json` and refuses what the encoder would compute wrongly.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        let refused = |reason: String| unservable(format!("{}: {reason}", path.display()));
        let config: Self = read_json(&path)?;
        config.check().map_err(refused)?;
        Ok(config)
    }

    fn check(&self) -> std::result::Result<(), String> {
        let sizes = [
            ("hidden_size", self.hidden_size, 1 << 16),
            ("num_hidden_layers", self.num_hidden_layers, 1 << 10),
            ("num_attention_heads", self.num_attention_heads, 1 << 10),
            ("intermediate_size", self.intermediate_size, 1 << 18),
            ("max_position_embeddings", self.max_position_embeddings, 1 << 20),
            ("type_vocab_size", self.type_vocab_size, 1 << 16),
            ("vocab_size", self.vocab_size, 1 << 24),
        ];
        if let Some((key, size, most)) = sizes.into_iter().find(|(_, size, most)| !(1..=*most).contains(size)) {
            return Err(format!("{key} is {size}, it must be 1 to {most}"));
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let (hidden, heads) = (self.hidden_size, self.num_attention_heads);
            return Err(format!("hidden_size {hidden} must be a multiple of num_attention_heads {heads}"));
        }
        if !self.layer_norm_eps.is_finite() || self.layer_norm_eps < 0.0 {
            return Err(format!("layer_norm_eps is {}, it must be 0 or more", self.layer_norm_eps));
        }
        match (self.hidden_act.as_str(), self.position_embedding_type.as_str()) {
            ("gelu", "absolute") => Ok(()),
            ("gelu", positions) => {
                Err(format!("position_embedding_type '{positions}' is not served yet, only 'absolute'"))
            }
            (activation, _) => Err(format!("hidden_act '{activation}' is not served yet, only 'gelu'")),
        }
    }

    /// Types of tokens that are told apart: those of a first text and of a second.
    pub(crate) fn types(&self) -> usize {
        self.type_vocab_size.min(2)
    }

    /// Columns of one attention head.
    pub(crate) fn head_size(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// Floating-point operations for one row of so many tokens.
    pub(crate) fn flops(&self, tokens: usize) -> f64 {
        let (hidden, inner, tokens) = (self.hidden_size as f64, self.intermediate_size as f64, tokens as f64);
        let weights = 4.0 * hidden * hidden + 2.0 * hidden * inner;
        let attention = 2.0 * tokens * hidden;
        2.0 * self.num_hidden_layers as f64 * tokens * (weights + attention)
    }

    /// The tensors that the encoder reads, with their shapes: those of the embeddings, then those of each layer.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = (String, Vec<usize>)> {
        let (hidden, inner) = (self.hidden_size, self.intermediate_size);
        let embeddings = [
            ("embeddings.word_embeddings.weight", vec![self.vocab_size, hidden]),
            ("embeddings.position_embeddings.weight", vec![self.max_position_embeddings, hidden]),
            ("embeddings.token_type_embeddings.weight", vec![self.type_vocab_size, hidden]),
            ("embeddings.LayerNorm.weight", vec![hidden]),
            ("embeddings.LayerNorm.bias", vec![hidden]),
        ];
        let layer = move |index: usize| {
            [
                ("attention.self.query", hidden, hidden),
                ("attention.self.key", hidden, hidden),
                ("attention.self.value", hidden, hidden),
                ("attention.output.dense", hidden, hidden),
                ("attention.output.LayerNorm", hidden, 0),
                ("intermediate.dense", inner, hidden),
                ("output.dense", hidden, inner),
                ("output.LayerNorm", hidden, 0),
            ]
            .into_iter()
            .flat_map(move |(part, rows, columns)| {
                let weight = if columns == 0 { vec![rows] } else { vec![rows, columns] };
                [("weight", weight), ("bias", vec![rows])]
                    .map(|(kind, shape)| (format!("encoder.layer.{index}.{part}.{kind}"), shape))
            })
        };
        let embeddings = embeddings.into_iter().map(|(name, shape)| (name.to_owned(), shape));
        embeddings.chain((0..self.num_hidden_layers).flat_map(layer))
    }
}
