//! The tensors of a decoder, whichever kind of file they lie in.

use std::path::Path;

use orion_proto::Result;

use super::{
    config::DecoderConfig,
    kernels::{Matrix, Unpack, dispatch},
};
use crate::{
    checkpoint::{self, Element},
    gguf::{Encoding, Gguf},
    mapped::{MappedBytes, MappedFile},
    unservable,
};

/// A tensor of a decoder.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    Embedding,
    OutputNorm,
    Output,
    AttentionNorm(usize),
    Query(usize),
    Key(usize),
    Value(usize),
    QueryBias(usize),
    KeyBias(usize),
    ValueBias(usize),
    AttentionOutputBias(usize),
    QueryNorm(usize),
    KeyNorm(usize),
    AttentionOutput(usize),
    GateNorm(usize),
    Gate(usize),
    Up(usize),
    Down(usize),
}

impl Part {
    /// Its name in a GGUF file.
    fn gguf_name(self) -> String {
        let (layer, name) = match self {
            Self::Embedding => return "token_embd.weight".into(),
            Self::OutputNorm => return "output_norm.weight".into(),
            Self::Output => return "output.weight".into(),
            Self::AttentionNorm(layer) => (layer, "attn_norm.weight"),
            Self::Query(layer) => (layer, "attn_q.weight"),
            Self::Key(layer) => (layer, "attn_k.weight"),
            Self::Value(layer) => (layer, "attn_v.weight"),
            Self::QueryBias(layer) => (layer, "attn_q.bias"),
            Self::KeyBias(layer) => (layer, "attn_k.bias"),
            Self::ValueBias(layer) => (layer, "attn_v.bias"),
            Self::AttentionOutputBias(layer) => (layer, "attn_output.bias"),
            Self::QueryNorm(layer) => (layer, "attn_q_norm.weight"),
            Self::KeyNorm(layer) => (layer, "attn_k_norm.weight"),
            Self::AttentionOutput(layer) => (layer, "attn_output.weight"),
            Self::GateNorm(layer) => (layer, "ffn_norm.weight"),
            Self::Gate(layer) => (layer, "ffn_gate.weight"),
            Self::Up(layer) => (layer, "ffn_up.weight"),
            Self::Down(layer) => (layer, "ffn_down.weight"),
        };
        format!("blk.{layer}.{name}")
    }

    /// Its name in a hub's safetensors files.
    pub(crate) fn hub_name(self) -> String {
        let (layer, name) = match self {
            Self::Embedding => return "model.embed_tokens.weight".into(),
            Self::OutputNorm => return "model.norm.weight".into(),
            Self::Output => return "lm_head.weight".into(),
            Self::AttentionNorm(layer) => (layer, "input_layernorm.weight"),
            Self::Query(layer) => (layer, "self_attn.q_proj.weight"),
            Self::Key(layer) => (layer, "self_attn.k_proj.weight"),
            Self::Value(layer) => (layer, "self_attn.v_proj.weight"),
            Self::QueryBias(layer) => (layer, "self_attn.q_proj.bias"),
            Self::KeyBias(layer) => (layer, "self_attn.k_proj.bias"),
            Self::ValueBias(layer) => (layer, "self_attn.v_proj.bias"),
            Self::AttentionOutputBias(layer) => (layer, "self_attn.o_proj.bias"),
            Self::QueryNorm(layer) => (layer, "self_attn.q_norm.weight"),
            Self::KeyNorm(layer) => (layer, "self_attn.k_norm.weight"),
            Self::AttentionOutput(layer) => (layer, "self_attn.o_proj.weight"),
            Self::GateNorm(layer) => (layer, "post_attention_layernorm.weight"),
            Self::Gate(layer) => (layer, "mlp.gate_proj.weight"),
            Self::Up(layer) => (layer, "mlp.up_proj.weight"),
            Self::Down(layer) => (layer, "mlp.down_proj.weight"),
        };
        format!("model.layers.{layer}.{name}")
    }
}

/// The open files of a model.
#[derive(Clone, Debug)]
pub(crate) enum Checkpoint {
    Gguf(Box<Gguf>),
    Safetensors(checkpoint::Checkpoint),
}

/// A tensor that was found.
struct Found {
    encoding: Encoding,
    shape: Vec<usize>,
    bytes: MappedBytes,
}

impl Checkpoint {
    /// Opens the safetensors files of a folder, one or many.
    pub(crate) fn safetensors(folder: &Path) -> Result<Self> {
        checkpoint::Checkpoint::open(folder).map(Self::Safetensors)
    }

    /// The mapped files.
    pub(crate) fn files(&self) -> &[MappedFile] {
        match self {
            Self::Gguf(gguf) => std::slice::from_ref(&gguf.file),
            Self::Safetensors(tensors) => tensors.files(),
        }
    }

    /// Bytes of the files.
    pub(crate) fn bytes(&self) -> u64 {
        self.files().iter().map(|file| file.bytes().len() as u64).sum()
    }

    fn name(&self, part: Part) -> String {
        if let Self::Gguf(_) = self { part.gguf_name() } else { part.hub_name() }
    }

    fn find(&self, part: Part) -> Result<Option<Found>> {
        let name = self.name(part);
        match self {
            Self::Gguf(gguf) => Ok(gguf.tensor(&name).and_then(|info| {
                let bytes = gguf.tensor_bytes(info)?;
                Some(Found { encoding: info.encoding, shape: info.shape.clone(), bytes })
            })),
            Self::Safetensors(tensors) => {
                let Some(entry) = tensors.get(&name) else { return Ok(None) };
                let encoding = match entry.element {
                    Element::F32 => Encoding::F32,
                    Element::F16 => Encoding::F16,
                    Element::Bf16 => Encoding::Bf16,
                    other => {
                        return Err(unservable(format!("tensor '{name}' is {other}, it must be F32, F16 or BF16")));
                    }
                };
                Ok(tensors.mapped(entry).map(|bytes| Found { encoding, shape: entry.shape.clone(), bytes }))
            }
        }
    }

    /// Whether a tensor is there.
    pub(crate) fn has(&self, part: Part) -> bool {
        self.find(part).is_ok_and(|found| found.is_some())
    }

    /// A weight `[outputs, inputs]`.
    pub(crate) fn matrix(&self, part: Part, outputs: usize, inputs: usize) -> Result<Matrix> {
        let name = self.name(part);
        let found = self.find(part)?.ok_or_else(|| unservable(format!("tensor '{name}' is missing")))?;
        let elements: Option<usize> = found.shape.iter().try_fold(1usize, |all, dimension| all.checked_mul(*dimension));
        let vector = outputs == 1 && found.shape == [inputs];
        if !vector && found.shape != [outputs, inputs] || elements != outputs.checked_mul(inputs) {
            return Err(unservable(format!(
                "tensor '{name}' has shape {:?}, the configuration says [{outputs}, {inputs}]",
                found.shape
            )));
        }
        Matrix::new(found.bytes, found.encoding, outputs, inputs)
            .ok_or_else(|| unservable(format!("tensor '{name}' of shape [{outputs}, {inputs}] has another length")))
    }

    /// A vector, as f32.
    pub(crate) fn vector(&self, part: Part, length: usize) -> Result<Vec<f32>> {
        let matrix = self.matrix(part, 1, length)?;
        let mut values = vec![0.0; length];
        dispatch(Unpack { matrix: &matrix, row: 0, to: &mut values });
        Ok(values)
    }
}

/// The weights of one layer.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub(crate) attention_norm: Vec<f32>,
    pub(crate) query: Matrix,
    pub(crate) key: Matrix,
    pub(crate) value: Matrix,
    /// Of queries, keys and values, where they have one.
    pub(crate) biases: Option<[Vec<f32>; 3]>,
    /// Of each head's query and key, where they have one.
    pub(crate) head_norms: Option<[Vec<f32>; 2]>,
    pub(crate) attention_output: Matrix,
    pub(crate) gate_norm: Vec<f32>,
    pub(crate) gate: Matrix,
    pub(crate) up: Matrix,
    pub(crate) down: Matrix,
}

/// All weights: matrices where they lie in the files, vectors as f32.
#[derive(Clone, Debug)]
pub(crate) struct DecoderWeights {
    pub(crate) embedding: Matrix,
    pub(crate) layers: Vec<Layer>,
    pub(crate) output_norm: Vec<f32>,
    pub(crate) output: Matrix,
}

impl DecoderWeights {
    /// Finds every tensor.
    ///
    /// # Errors
    /// FAILED_PRECONDITION naming the tensor that is missing or does not fit the configuration.
    pub(crate) fn find(checkpoint: &Checkpoint, config: &DecoderConfig) -> Result<Self> {
        let embedding = checkpoint.matrix(Part::Embedding, config.vocabulary, config.hidden)?;
        let tied = config.tied.unwrap_or_else(|| !checkpoint.has(Part::Output));
        let output =
            if tied { embedding.clone() } else { checkpoint.matrix(Part::Output, config.vocabulary, config.hidden)? };
        Ok(Self {
            embedding,
            layers: (0..config.layers).map(|layer| Layer::find(checkpoint, config, layer)).collect::<Result<_>>()?,
            output_norm: checkpoint.vector(Part::OutputNorm, config.hidden)?,
            output,
        })
    }

    /// Whether the layers' weights are f32.
    pub(crate) fn are_floats(&self) -> bool {
        self.layers.iter().all(|layer| layer.key.is_float() && layer.value.is_float())
    }
}

impl Layer {
    fn find(checkpoint: &Checkpoint, config: &DecoderConfig, layer: usize) -> Result<Self> {
        let (hidden, inner, queries, keys) = (config.hidden, config.intermediate, config.queries(), config.keys());
        if checkpoint.has(Part::AttentionOutputBias(layer)) {
            let name = checkpoint.name(Part::AttentionOutputBias(layer));
            return Err(unservable(format!("tensor '{name}' is there: a bias after the attention is not served")));
        }
        let biases = config.bias.then(|| {
            Ok([
                checkpoint.vector(Part::QueryBias(layer), queries)?,
                checkpoint.vector(Part::KeyBias(layer), keys)?,
                checkpoint.vector(Part::ValueBias(layer), keys)?,
            ])
        });
        let head_norms = config.head_norm.then(|| {
            Ok([
                checkpoint.vector(Part::QueryNorm(layer), config.head_size)?,
                checkpoint.vector(Part::KeyNorm(layer), config.head_size)?,
            ])
        });
        Ok(Self {
            attention_norm: checkpoint.vector(Part::AttentionNorm(layer), hidden)?,
            query: checkpoint.matrix(Part::Query(layer), queries, hidden)?,
            key: checkpoint.matrix(Part::Key(layer), keys, hidden)?,
            value: checkpoint.matrix(Part::Value(layer), keys, hidden)?,
            biases: biases.transpose()?,
            head_norms: head_norms.transpose()?,
            attention_output: checkpoint.matrix(Part::AttentionOutput(layer), hidden, queries)?,
            gate_norm: checkpoint.vector(Part::GateNorm(layer), hidden)?,
            gate: checkpoint.matrix(Part::Gate(layer), inner, hidden)?,
            up: checkpoint.matrix(Part::Up(layer), inner, hidden)?,
            down: checkpoint.matrix(Part::Down(layer), hidden, inner)?,
        })
    }
}
