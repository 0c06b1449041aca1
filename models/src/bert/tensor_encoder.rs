//! The encoder on candle's operations: any device, any precision.

use candle_core::{D, DType, Device, IndexOp, Result, Tensor};
use candle_nn::{VarBuilder, ops::softmax_last_dim};

use super::{BertConfig, Source, task::Pooling, text::Tokens};
use crate::checkpoint::Checkpoint;

/// Added to the score of a padded token: finite, since 0 · −∞ is NaN, and far below any real score.
const PADDED: f32 = -1e30;

/// `x · weight + bias`, the weight transposed once at loading.
struct Linear {
    weight: Tensor,
    bias: Tensor,
}

struct Norm {
    weight: Tensor,
    bias: Tensor,
    epsilon: f64,
}

struct Layer {
    query_key_value: Linear,
    attended: Linear,
    attention_norm: Norm,
    up: Linear,
    down: Linear,
    output_norm: Norm,
}

/// A BERT encoder and the pooling of its rows.
pub(super) struct TensorEncoder {
    words: Tensor,
    /// Position and token type together: all places of type 0, then those of type 1.
    positions: Tensor,
    places: usize,
    norm: Norm,
    layers: Vec<Layer>,
    heads: usize,
    pooling: Pooling,
    dtype: DType,
    device: Device,
}

impl Linear {
    fn load(parts: &[VarBuilder<'_>], rows: usize, columns: usize) -> Result<Self> {
        let weights = parts.iter().map(|part| part.get((rows, columns), "weight")).collect::<Result<Vec<_>>>()?;
        let biases = parts.iter().map(|part| part.get(rows, "bias")).collect::<Result<Vec<_>>>()?;
        Ok(Self { weight: Tensor::cat(&weights, 0)?.t()?.contiguous()?, bias: Tensor::cat(&biases, 0)? })
    }

    /// Of `[tokens, columns]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.matmul(&self.weight)?.broadcast_add(&self.bias)
    }
}

impl Norm {
    fn load(vars: VarBuilder<'_>, config: &BertConfig) -> Result<Self> {
        // Half precision is too coarse for a sum of squares.
        let part = |name| vars.get(config.hidden_size, name)?.to_dtype(DType::F32);
        Ok(Self { weight: part("weight")?, bias: part("bias")?, epsilon: config.layer_norm_eps })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let wide = x.to_dtype(DType::F32)?;
        let centred = wide.broadcast_sub(&wide.mean_keepdim(D::Minus1)?)?;
        let deviation = (centred.sqr()?.mean_keepdim(D::Minus1)? + self.epsilon)?.sqrt()?;
        centred.broadcast_div(&deviation)?.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)?.to_dtype(x.dtype())
    }
}

impl Layer {
    fn load(vars: &VarBuilder<'_>, config: &BertConfig) -> Result<Self> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let attention = vars.pp("attention");
        let parts = ["query", "key", "value"].map(|part| attention.pp("self").pp(part));
        Ok(Self {
            query_key_value: Linear::load(&parts, hidden, hidden)?,
            attended: Linear::load(&[attention.pp("output.dense")], hidden, hidden)?,
            attention_norm: Norm::load(attention.pp("output.LayerNorm"), config)?,
            up: Linear::load(&[vars.pp("intermediate.dense")], inner, hidden)?,
            down: Linear::load(&[vars.pp("output.dense")], hidden, inner)?,
            output_norm: Norm::load(vars.pp("output.LayerNorm"), config)?,
        })
    }

    /// `x` is `[rows · longest, hidden]`, `mask` `[rows, 1, 1, longest]`.
    fn forward(&self, x: &Tensor, mask: &Tensor, heads: usize) -> Result<Tensor> {
        let attended = self.attended.forward(&self.attend(x, mask, heads)?)?;
        let x = self.attention_norm.forward(&(attended + x)?)?;
        let inner = self.up.forward(&x)?.gelu_erf()?;
        self.output_norm.forward(&(self.down.forward(&inner)? + x)?)
    }

    fn attend(&self, x: &Tensor, mask: &Tensor, heads: usize) -> Result<Tensor> {
        let (rows, longest) = (mask.dim(0)?, mask.dim(3)?);
        let (tokens, hidden) = x.dims2()?;
        let head = hidden / heads;
        // [3, rows, heads, longest, head]
        let all = self.query_key_value.forward(x)?;
        let all = all.reshape((rows, longest, 3, heads, head))?.permute((2, 0, 3, 1, 4))?.contiguous()?;
        let query = (all.i(0)? * (head as f64).powf(-0.5))?;
        let scores = query.matmul(&all.i(1)?.t()?)?;
        let weights = softmax_last_dim(&scores.to_dtype(DType::F32)?.broadcast_add(mask)?)?.to_dtype(x.dtype())?;
        weights.matmul(&all.i(2)?)?.transpose(1, 2)?.reshape((tokens, hidden))
    }
}

impl TensorEncoder {
    /// Reads the weights, memory-mapped, into the precision asked for.
    pub(super) fn load(source: &Source, progress: &dyn Fn(f32)) -> Result<Self> {
        let dtype = source.precision.dtype();
        let (config, device) = (&source.config, Device::Cpu);
        let vars = vars(source, dtype, &device)?;
        let embeddings = vars.pp("embeddings");
        let kinds = embeddings.get((config.type_vocab_size, config.hidden_size), "token_type_embeddings.weight")?;
        let places = config.max_position_embeddings;
        let positions = embeddings.get((places, config.hidden_size), "position_embeddings.weight")?;
        let of = |kind: usize| positions.broadcast_add(&kinds.i(kind)?);
        let positions = Tensor::cat(&(0..config.types()).map(of).collect::<Result<Vec<_>>>()?, 0)?;
        let words = embeddings.get((config.vocab_size, config.hidden_size), "word_embeddings.weight")?;
        let norm = Norm::load(embeddings.pp("LayerNorm"), config)?;
        let mut layers = Vec::new();
        for index in 0..config.num_hidden_layers {
            layers.push(Layer::load(&vars.pp(format!("encoder.layer.{index}")), config)?);
            progress((index + 1) as f32 / config.num_hidden_layers as f32);
        }
        let (heads, pooling) = (config.num_attention_heads, source.task.pooling());
        Ok(Self { words, positions, places, norm, layers, heads, pooling, dtype, device })
    }

    /// The pooled vectors of these rows, one after the other.
    pub(super) fn encode(&self, rows: &[&Tokens]) -> Result<Vec<f32>> {
        let longest = rows.iter().map(|row| row.ids.len()).max().unwrap_or(0);
        let indices = |of: &dyn Fn(&Tokens, usize) -> usize| {
            let all = rows.iter().flat_map(|&row| (0..longest).map(move |at| of(row, at) as u32));
            Tensor::from_vec(all.collect::<Vec<u32>>(), rows.len() * longest, &self.device)
        };
        let ids = indices(&|row, at| row.ids.get(at).map_or(0, |&id| id as usize))?;
        let positions = indices(&|row, at| if at < row.first || at >= row.ids.len() { at } else { self.places + at })?;
        let real =
            |row: &&Tokens| (0..longest).map(|at| if at < row.ids.len() { 1.0 } else { 0.0 }).collect::<Vec<f32>>();
        let real = Tensor::from_vec(rows.iter().flat_map(real).collect(), (rows.len(), longest, 1), &self.device)?;
        let mask = ((1.0 - &real)? * f64::from(PADDED))?.reshape((rows.len(), 1, 1, longest))?;

        let embedded = (self.words.index_select(&ids, 0)? + self.positions.index_select(&positions, 0)?)?;
        let mut x = self.norm.forward(&embedded)?;
        for layer in &self.layers {
            x = layer.forward(&x, &mask, self.heads)?;
        }
        debug_assert_eq!(x.dtype(), self.dtype);
        let x = x.to_dtype(DType::F32)?.reshape((rows.len(), longest, ()))?;
        if self.pooling == Pooling::First {
            return x.i((.., 0))?.flatten_all()?.to_vec1();
        }
        // Unit length makes dividing the sum by the count of tokens needless.
        let sum = x.broadcast_mul(&real)?.sum(1)?;
        let length = sum.sqr()?.sum_keepdim(1)?.sqrt()?.clamp(f32::MIN_POSITIVE, f32::MAX)?;
        sum.broadcast_div(&length)?.flatten_all()?.to_vec1()
    }
}

/// The weights by name, memory-mapped.
pub(super) fn vars(source: &Source, dtype: DType, device: &Device) -> Result<VarBuilder<'static>> {
    let checkpoint = Checkpoint::open(&source.folder).map_err(|error| candle_core::Error::Msg(error.message))?;
    let vars = checkpoint.into_vars(dtype, device);
    Ok(if source.prefix.is_empty() { vars } else { vars.pp(source.prefix) })
}
