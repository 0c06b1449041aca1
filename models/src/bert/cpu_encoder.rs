//! The encoder on the CPU, on our own kernels: rows lie one after the other, so no padding is computed at all.
//!
//! Weights are held in the model's precision. What lies between layers is f32; products in bf16 round what they read, where
//! the machine has them.

use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device, Result};
use candle_nn::VarBuilder;

use super::{BertConfig, Source, task::Pooling, tensor_encoder::vars, text::Tokens, words::Words};
use crate::{
    Precision,
    kernels::{Activation, FeedForward, Linear, Norm, attend, normalise_sum},
};

struct Layer {
    query_key_value: Linear,
    attended: Linear,
    attention_norm: Norm,
    feed_forward: FeedForward,
    output_norm: Norm,
}

/// A BERT encoder and the pooling of its rows.
pub(super) struct CpuEncoder {
    words: Words,
    /// Position and token type together, for each type.
    positions: Vec<Vec<f32>>,
    norm: Norm,
    layers: Vec<Layer>,
    hidden: usize,
    inner: usize,
    heads: usize,
    pooling: Pooling,
    /// Buffers of buckets that are done: fresh memory would be faulted in page by page.
    buffers: Mutex<Vec<Buffers>>,
}

#[derive(Default)]
struct Buffers {
    x: Vec<f32>,
    sum: Vec<f32>,
    wide: Vec<f32>,
}

impl CpuEncoder {
    /// Whether the kernels take these sizes.
    pub(super) fn fits(config: &BertConfig) -> bool {
        config.hidden_size.is_multiple_of(16)
    }

    /// Reads the weights, memory-mapped, and packs them for the kernels.
    pub(super) fn load(source: &Source, progress: &dyn Fn(f32)) -> Result<Self> {
        let config = &source.config;
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let vars = vars(source, DType::F32, &Device::Cpu)?;
        let embeddings = vars.pp("embeddings");
        let kinds = floats(&embeddings, "token_type_embeddings.weight", &[config.type_vocab_size, hidden])?;
        let places = [config.max_position_embeddings, hidden];
        let places = floats(&embeddings, "position_embeddings.weight", &places)?;
        let of = |kind: &[f32]| {
            places.chunks_exact(hidden).flat_map(|row| row.iter().zip(kind).map(|(p, k)| p + k)).collect()
        };
        let positions = kinds.chunks_exact(hidden).take(config.types()).map(of).collect();
        let words = floats(&embeddings, "word_embeddings.weight", &[config.vocab_size, hidden])?;
        let words = Words::new(words, source.precision);
        let norm = norm(&embeddings.pp("LayerNorm"), config)?;
        let mut layers = Vec::new();
        for index in 0..config.num_hidden_layers {
            layers.push(layer(&vars.pp(format!("encoder.layer.{index}")), config, source.precision)?);
            progress((index + 1) as f32 / config.num_hidden_layers as f32);
        }
        let (heads, pooling) = (config.num_attention_heads, source.task.pooling());
        Ok(Self { words, positions, norm, layers, hidden, inner, heads, pooling, buffers: Mutex::default() })
    }

    /// The pooled vectors of these rows, one after the other.
    pub(super) fn encode(&self, rows: &[&Tokens]) -> Vec<f32> {
        let lengths: Vec<usize> = rows.iter().map(|tokens| tokens.ids.len()).collect();
        let tokens: usize = lengths.iter().sum();
        let mut buffers = self.lock().pop().unwrap_or_default();
        let Buffers { x, sum, wide } = &mut buffers;
        x.resize(tokens * self.hidden, 0.0);
        sum.resize(tokens * self.hidden, 0.0);
        wide.resize(tokens * self.inner.max(4 * self.hidden), 0.0);

        self.embed(rows, x);
        for layer in &self.layers {
            let (all, attended) = wide.split_at_mut(3 * tokens * self.hidden);
            let attended = &mut attended[..tokens * self.hidden];
            layer.query_key_value.forward(x, all);
            attend(all, &lengths, self.heads, attended);
            layer.attended.forward(attended, sum);
            layer.attention_norm.add(x, sum);
            let inner = &mut wide[..tokens * self.inner];
            layer.feed_forward.forward(x, inner, sum);
            layer.output_norm.add(x, sum);
        }
        let mut vectors = vec![0.0; rows.len() * self.hidden];
        let mut rest: &[f32] = x;
        for (vector, length) in vectors.chunks_exact_mut(self.hidden).zip(lengths) {
            let (own, others) = rest.split_at(length * self.hidden);
            match self.pooling {
                Pooling::Mean => normalise_sum(own, vector),
                Pooling::First => vector.copy_from_slice(&own[..self.hidden]),
            }
            rest = others;
        }
        self.lock().push(buffers);
        vectors
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Buffers>> {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn embed(&self, rows: &[&Tokens], x: &mut [f32]) {
        let hidden = self.hidden;
        let tokens = rows.iter().flat_map(|row| row.ids.iter().enumerate().map(|(place, &id)| (row.first, place, id)));
        for (out, (first, place, id)) in x.chunks_exact_mut(hidden).zip(tokens) {
            let positions = &self.positions[usize::from(place >= first)];
            self.words.copy(id as usize, out);
            self.norm.add(out, &positions[place * hidden..][..hidden]);
        }
    }
}

fn floats(vars: &VarBuilder<'_>, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
    vars.get(shape, name)?.flatten_all()?.to_vec1()
}

fn norm(vars: &VarBuilder<'_>, config: &BertConfig) -> Result<Norm> {
    let part = |name| floats(vars, name, &[config.hidden_size]);
    Ok(Norm { weight: part("weight")?, bias: part("bias")?, epsilon: config.layer_norm_eps as f32 })
}

fn layer(vars: &VarBuilder<'_>, config: &BertConfig, precision: Precision) -> Result<Layer> {
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let linear = |name: &str, rows: usize, columns: usize, activation| -> Result<Linear> {
        let part = vars.pp(name);
        let weight = floats(&part, "weight", &[rows, columns])?;
        Ok(Linear::held_in(precision, &weight, floats(&part, "bias", &[rows])?, activation))
    };
    // The scores' scale goes into the query once, here.
    let scale = (config.head_size() as f32).powf(-0.5);
    let (mut weight, mut bias) = (Vec::new(), Vec::new());
    for (part, scale) in [("query", scale), ("key", 1.0), ("value", 1.0)] {
        let part = vars.pp("attention.self").pp(part);
        weight.extend(floats(&part, "weight", &[hidden, hidden])?.iter().map(|w| w * scale));
        bias.extend(floats(&part, "bias", &[hidden])?.iter().map(|b| b * scale));
    }
    Ok(Layer {
        query_key_value: Linear::held_in(precision, &weight, bias, Activation::None),
        attended: linear("attention.output.dense", hidden, hidden, Activation::None)?,
        attention_norm: norm(&vars.pp("attention.output.LayerNorm"), config)?,
        feed_forward: FeedForward {
            up: linear("intermediate.dense", inner, hidden, Activation::Gelu)?,
            down: linear("output.dense", hidden, inner, Activation::None)?,
        },
        output_norm: norm(&vars.pp("output.LayerNorm"), config)?,
    })
}
