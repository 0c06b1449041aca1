//! A BERT encoder with a head as the tensor library sees it, with gradients: texts lie one after the other, without padding.

use candle_core::{Device, Tensor};
use orion_proto::{Result, training::Lora};

use crate::{
    bert::{BertConfig, Source, Tokens},
    checkpoint::Checkpoint,
    training::{
        adapted::{Adapted, BaseTensor, Weights, check_layers},
        network::drop_out,
        operations::{Attention, Dense, Gelu, Norm},
    },
};

/// Tensors of the embeddings, and of each block after them, as [`BertConfig::tensors`] has them.
const EMBEDDINGS: usize = 5;
const BLOCK: usize = 16;
const POOLER: &str = "bert.pooler.";

/// The network.
pub(super) struct Encoder {
    config: BertConfig,
    /// What stands before a name in the base's files.
    prefix: &'static str,
    pub(super) adapted: Adapted,
}

impl Encoder {
    pub(super) fn new(source: &Source, lora: Option<&Lora>, labels: usize, free_bytes: u64) -> Result<Self> {
        let (config, prefix) = (source.config.clone(), source.prefix);
        check_layers(config.num_hidden_layers)?;
        let tensor = |(name, shape): (String, Vec<usize>)| {
            let written = format!("bert.{name}");
            BaseTensor { name: if prefix.is_empty() { name } else { written.clone() }, written, shape }
        };
        let hidden = config.hidden_size;
        let head = [
            ("bert.pooler.dense.weight", vec![hidden, hidden]),
            ("bert.pooler.dense.bias", vec![hidden]),
            ("classifier.weight", vec![labels, hidden]),
            ("classifier.bias", vec![labels]),
        ]
        .map(|(name, shape)| (name.to_owned(), shape));
        let (checkpoint, base) = (Checkpoint::open(&source.folder)?, config.tensors().map(tensor).collect());
        Ok(Self {
            adapted: Adapted::new(checkpoint, base, lora, ["query", "value"], &head, free_bytes)?,
            config,
            prefix,
        })
    }

    /// Where learning begins: a pooler that the base has is taken with it.
    pub(super) fn initial(&self, seed: u64) -> Result<Vec<f32>> {
        self.adapted.initial(seed, |parameter, checkpoint| {
            let Some(name) = parameter.name.strip_prefix("bert.").filter(|_| parameter.name.starts_with(POOLER)) else {
                return Ok(None);
            };
            let name = if self.prefix.is_empty() { name } else { parameter.name.as_str() };
            checkpoint.get(name).map(|_| checkpoint.floats(name, &parameter.shape)).transpose()
        })
    }

    /// Values that one text of so many tokens leaves on its way, or while it is looked at alone.
    pub(super) fn values(&self, tokens: usize, learns: bool) -> usize {
        let BertConfig { hidden_size, intermediate_size, num_hidden_layers, .. } = self.config;
        // What each operation of a block gives, and the weights of the pairs of one text.
        let block = tokens.saturating_mul(18 * hidden_size + 4 * intermediate_size + tokens);
        block.saturating_mul(if learns { num_hidden_layers } else { 1 }).saturating_mul(2)
    }

    /// What it makes of texts, `[texts, labels]`. `dropout`: which share is left out, and its seed.
    pub(super) fn logits(
        &self,
        tensors: &[Tensor],
        rows: &[Tokens],
        dropout: Option<(f32, u64)>,
    ) -> candle_core::Result<Tensor> {
        let weights = self.adapted.weights(tensors);
        let lengths: Vec<usize> = rows.iter().map(|row| row.ids.len()).collect();
        let mut x = self.embed(&weights, rows)?;
        for block in 0..self.config.num_hidden_layers {
            x = self.block(&weights, EMBEDDINGS + block * BLOCK, &x, &lengths)?;
        }
        let first = lengths.iter().scan(0, |next, length| {
            let first = *next;
            *next += *length as u32;
            Some(first)
        });
        let first = x.index_select(&Tensor::from_vec(first.collect(), rows.len(), &Device::Cpu)?, 0)?;
        let pooled = first.apply_op2(&weights.head[0], Dense)?.broadcast_add(&weights.head[1])?.tanh()?;
        let pooled = match dropout {
            Some((share, seed)) => drop_out(pooled, share, Some(seed))?,
            None => pooled,
        };
        pooled.apply_op2(&weights.head[2], Dense)?.broadcast_add(&weights.head[3])
    }

    fn embed(&self, weights: &Weights<'_>, rows: &[Tokens]) -> candle_core::Result<Tensor> {
        let select = |tensor: usize, of: &dyn Fn(&Tokens, usize) -> u32| {
            let all: Vec<u32> = rows.iter().flat_map(|row| (0..row.ids.len()).map(|at| of(row, at))).collect();
            let count = all.len();
            weights.get(tensor).index_select(&Tensor::from_vec(all, count, &Device::Cpu)?, 0)
        };
        let words = select(0, &|row, at| row.ids[at])?;
        let places = select(1, &|_, at| at as u32)?;
        let kinds = select(2, &|row, at| u32::from(at >= row.first))?;
        self.norm(weights, 3, &((words + places)? + kinds)?)
    }

    fn norm(&self, weights: &Weights<'_>, at: usize, x: &Tensor) -> candle_core::Result<Tensor> {
        x.apply_op3(weights.get(at), weights.get(at + 1), Norm { epsilon: self.config.layer_norm_eps })
    }

    fn block(&self, weights: &Weights<'_>, at: usize, x: &Tensor, lengths: &[usize]) -> candle_core::Result<Tensor> {
        let dense = |x: &Tensor, layer: usize| weights.dense(x, at + layer, Some(at + layer + 1));
        let heads = self.config.num_attention_heads;
        let attention = Attention { lengths: lengths.to_vec(), heads, key_heads: heads, causal: false };
        let seen = dense(x, 0)?.apply_op3(&dense(x, 2)?, &dense(x, 4)?, attention)?;
        let x = self.norm(weights, at + 8, &(dense(&seen, 6)? + x)?)?;
        let inner = dense(&x, 10)?.apply_op1(Gelu)?;
        self.norm(weights, at + 14, &(dense(&inner, 12)? + x)?)
    }
}
