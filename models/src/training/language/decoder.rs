//! A decoder of the Llama family as the tensor library sees it, with gradients: texts lie one after the other.

use std::path::Path;

use candle_core::{Device, Tensor};
use orion_proto::{Result, training::Lora};

use crate::{
    checkpoint::Checkpoint,
    generation::{DecoderConfig, Part},
    training::{
        adapted::{Adapted, BaseTensor, Weights, check_layers},
        operations::{Attention, Dense, RmsNorm, Rotation},
    },
    unservable,
};

/// The network.
pub(super) struct Decoder {
    config: DecoderConfig,
    places: Places,
    pub(super) adapted: Adapted,
}

/// Where the tensors of a decoder lie among those of its base.
struct Places {
    /// The output weight, where the embeddings are not that too.
    output: Option<usize>,
    layers: Vec<Layer>,
}

/// The embeddings and the last norm are the first two.
const EMBEDDING: usize = 0;
const OUTPUT_NORM: usize = 1;

#[derive(Clone, Copy)]
struct Layer {
    attention_norm: usize,
    /// Weight and bias of queries, keys, values, and of what is made of what was seen.
    query: (usize, Option<usize>),
    key: (usize, Option<usize>),
    value: (usize, Option<usize>),
    seen: (usize, Option<usize>),
    /// Of each head's queries, and of each head's keys.
    head_norms: Option<[usize; 2]>,
    gate_norm: usize,
    gate: usize,
    up: usize,
    down: usize,
}

impl Decoder {
    /// Of a hub's folder, for texts of so many tokens.
    pub(super) fn new(folder: &Path, lora: Option<&Lora>, tokens: usize, free_bytes: u64) -> Result<Self> {
        let config = DecoderConfig::read(folder)?;
        let most = config.window.unwrap_or(usize::MAX).min(config.context);
        if tokens > most {
            return Err(unservable(format!("model.tokens is {tokens}, the base looks back at {most}")));
        }
        check_layers(config.layers)?;
        let checkpoint = Checkpoint::open(folder)?;
        let (base, places) = tensors(&config);
        Ok(Self {
            adapted: Adapted::new(checkpoint, base, lora, ["q_proj", "v_proj"], &[], free_bytes)?,
            config,
            places,
        })
    }

    pub(super) fn vocabulary(&self) -> usize {
        self.config.vocabulary
    }

    /// Values that one text of so many tokens leaves on its way, or while it is looked at alone.
    pub(super) fn values(&self, tokens: usize, learns: bool) -> usize {
        let DecoderConfig { hidden, intermediate, vocabulary, layers, .. } = self.config;
        let block = 8 * hidden + 8 * self.config.queries() + 6 * intermediate + tokens;
        let blocks = block.saturating_mul(if learns { layers } else { 1 });
        tokens.saturating_mul(blocks.saturating_add(2 * vocabulary)).saturating_mul(2)
    }

    /// What it makes of texts: for each token the logits of the one after it.
    pub(super) fn logits(&self, tensors: &[Tensor], rows: &[Vec<u32>]) -> candle_core::Result<Tensor> {
        let weights = self.adapted.weights(tensors);
        let (ids, lengths): (Vec<u32>, Vec<usize>) = (rows.concat(), rows.iter().map(Vec::len).collect());
        let angles = self.angles(&lengths);
        let count = ids.len();
        let mut x = weights.get(EMBEDDING).index_select(&Tensor::from_vec(ids, count, &Device::Cpu)?, 0)?;
        for layer in &self.places.layers {
            x = self.layer(&weights, *layer, &x, &lengths, &angles)?;
        }
        let x = self.norm(&weights, OUTPUT_NORM, &x)?;
        x.apply_op2(weights.get(self.places.output.unwrap_or(EMBEDDING)), Dense)
    }

    /// Cosines and sines of each token of each text.
    fn angles(&self, lengths: &[usize]) -> [Vec<f32>; 2] {
        let turns = self.config.turns();
        let angles = || {
            let places = lengths.iter().flat_map(|length| 0..*length);
            places.flat_map(|place| turns.iter().map(move |turn| turn * place as f64))
        };
        [
            angles().map(|angle| libm::cos(angle) as f32).collect(),
            angles().map(|angle| libm::sin(angle) as f32).collect(),
        ]
    }

    fn norm(&self, weights: &Weights<'_>, at: usize, x: &Tensor) -> candle_core::Result<Tensor> {
        x.apply_op2(weights.get(at), RmsNorm { epsilon: self.config.epsilon })
    }

    fn layer(
        &self,
        weights: &Weights<'_>,
        layer: Layer,
        x: &Tensor,
        lengths: &[usize],
        [cosines, sines]: &[Vec<f32>; 2],
    ) -> candle_core::Result<Tensor> {
        let dense = |x: &Tensor, (weight, bias): (usize, Option<usize>)| weights.dense(x, weight, bias);
        let width = self.config.head_size;
        let turned = |rows: Tensor, norm: Option<usize>| {
            let rows = match norm {
                None => rows,
                Some(norm) => self.norm(weights, norm, &rows.reshape(((), width))?)?.reshape(rows.dims())?,
            };
            rows.apply_op1(Rotation { cosines: cosines.clone(), sines: sines.clone(), width })
        };
        let normal = self.norm(weights, layer.attention_norm, x)?;
        let query = turned(dense(&normal, layer.query)?, layer.head_norms.map(|norms| norms[0]))?;
        let key = turned(dense(&normal, layer.key)?, layer.head_norms.map(|norms| norms[1]))?;
        let (heads, key_heads) = (self.config.heads, self.config.key_value_heads);
        let attention = Attention { lengths: lengths.to_vec(), heads, key_heads, causal: true };
        let seen = query.apply_op3(&key, &dense(&normal, layer.value)?, attention)?;
        let x = (dense(&seen, layer.seen)? + x)?;
        let normal = self.norm(weights, layer.gate_norm, &x)?;
        let gate = weights.dense(&normal, layer.gate, None)?.silu()?;
        let inner = (gate * weights.dense(&normal, layer.up, None)?)?;
        weights.dense(&inner, layer.down, None)? + x
    }
}

/// The tensors of a base, and where each lies.
fn tensors(config: &DecoderConfig) -> (Vec<BaseTensor>, Places) {
    let mut base = Vec::new();
    let mut next = |part: Part, shape: &[usize]| {
        let name = part.hub_name();
        base.push(BaseTensor { written: name.clone(), name, shape: shape.into() });
        base.len() - 1
    };
    let (hidden, inner, head) = (config.hidden, config.intermediate, config.head_size);
    let (queries, keys) = (config.queries(), config.keys());
    next(Part::Embedding, &[config.vocabulary, hidden]);
    next(Part::OutputNorm, &[hidden]);
    let output = (config.tied != Some(true)).then(|| next(Part::Output, &[config.vocabulary, hidden]));
    let layers = (0..config.layers).map(|layer| {
        let mut with_bias = |weight: Part, bias: Part, rows: usize, columns: usize| {
            (next(weight, &[rows, columns]), config.bias.then(|| next(bias, &[rows])))
        };
        let query = with_bias(Part::Query(layer), Part::QueryBias(layer), queries, hidden);
        let key = with_bias(Part::Key(layer), Part::KeyBias(layer), keys, hidden);
        let value = with_bias(Part::Value(layer), Part::ValueBias(layer), keys, hidden);
        let seen = (next(Part::AttentionOutput(layer), &[hidden, queries]), None);
        let head_norms =
            config.head_norm.then(|| [Part::QueryNorm(layer), Part::KeyNorm(layer)].map(|part| next(part, &[head])));
        Layer {
            attention_norm: next(Part::AttentionNorm(layer), &[hidden]),
            query,
            key,
            value,
            seen,
            head_norms,
            gate_norm: next(Part::GateNorm(layer), &[hidden]),
            gate: next(Part::Gate(layer), &[inner, hidden]),
            up: next(Part::Up(layer), &[inner, hidden]),
            down: next(Part::Down(layer), &[hidden, inner]),
        }
    });
    let layers = layers.collect();
    (base, Places { output, layers })
}
