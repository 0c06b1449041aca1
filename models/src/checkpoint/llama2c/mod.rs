//! llama2.c's weights (version 0 of `export.py`): a header of seven numbers, then f32 tensors without names.
//!
//! They become the tensors that Hugging Face's Llama has. llama2.c rotates neighbouring rows of a query's or key's head,
//! Hugging Face the rows of its two halves, so these rows are taken in another order.

#[cfg(test)]
mod tests;
mod tokenizer;

use orion_proto::{Error, Result};
use serde_json::json;

pub(super) use tokenizer::Vocabulary;

use super::{
    Element,
    view::{Axis, Storage, View},
};

/// Bytes of the header.
const HEADER_BYTES: usize = 7 * 4;
/// No size of a model of this format is greater.
const MOST: i32 = 1 << 20;
/// What `run.c` divides by when it normalises, and its base of the rotations' periods.
const NORM_EPSILON: f64 = 1e-5;
const ROPE_THETA: f64 = 10_000.0;

/// The sizes of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    width: usize,
    inner: usize,
    layers: usize,
    heads: usize,
    key_value_heads: usize,
    /// Tokens.
    pub(super) vocabulary: usize,
    positions: usize,
    /// Whether the embeddings are the classifier too.
    tied: bool,
}

/// Tensors of one kind, as they lie one after the other.
struct Section {
    /// The name in Hugging Face's Llama, where it has one; `{}` is the layer.
    name: &'static str,
    /// One for each layer, or one.
    repeats: usize,
    shape: Vec<usize>,
    /// Heads whose rows are in llama2.c's order.
    rotated: Option<usize>,
}

/// Whether a file begins with seven numbers that could be sizes.
pub(super) fn begins_like_one(file: &[u8]) -> bool {
    let numbers = file.first_chunk::<HEADER_BYTES>().map(|header| header.as_chunks().0);
    numbers.is_some_and(|numbers: &[[u8; 4]]| {
        numbers.iter().all(|&four| i32::from_le_bytes(four).unsigned_abs() <= MOST.unsigned_abs())
    })
}

impl Header {
    /// Reads the header; the file must be exactly as long as it says.
    ///
    /// # Errors
    /// INVALID_ARGUMENT saying what is wrong.
    pub(super) fn read(file: &[u8]) -> Result<Self> {
        let refused = |reason: String| Error::invalid(format!("it is not a whole llama2.c model: {reason}"));
        let Some(header) = file.first_chunk::<HEADER_BYTES>() else {
            return Err(refused(format!("it has {} bytes", file.len())));
        };
        let mut numbers = [0; 7];
        numbers.iter_mut().zip(header.as_chunks().0).for_each(|(number, &four)| *number = i32::from_le_bytes(four));
        // The vocabulary's size is negative where the classifier has weights of its own.
        let tied = numbers[5] > 0;
        numbers[5] = numbers[5].saturating_abs();
        if let Some(wrong) = numbers.iter().find(|number| !(1..=MOST).contains(*number)) {
            return Err(refused(format!("a size in its header is {wrong}, it must be 1 to {MOST}")));
        }
        let [width, inner, layers, heads, key_value_heads, vocabulary, positions] = numbers.map(|n| n as usize);
        if !width.is_multiple_of(2 * heads) || !heads.is_multiple_of(key_value_heads) {
            return Err(refused(format!("{width} columns do not fit {heads} heads over {key_value_heads}")));
        }
        let header = Self { width, inner, layers, heads, key_value_heads, vocabulary, positions, tied };
        let floats = header.sections().iter().try_fold(0usize, |floats, section| {
            let each = section.shape.iter().try_fold(section.repeats, |count, &size| count.checked_mul(size))?;
            floats.checked_add(each)
        });
        let bytes = floats.and_then(|floats| floats.checked_mul(4)?.checked_add(HEADER_BYTES));
        if bytes != Some(file.len()) {
            let said = bytes.map_or("more than 2^64".into(), |bytes| bytes.to_string());
            return Err(refused(format!("its header says {said} bytes, it has {}", file.len())));
        }
        Ok(header)
    }

    /// The tensors, with Hugging Face's names.
    ///
    /// # Errors
    /// INVALID_ARGUMENT where one is not inside the file.
    pub(super) fn views(&self, file_bytes: usize) -> Result<Vec<(String, View)>> {
        let storage = Storage { element: Element::F32, bytes: HEADER_BYTES..file_bytes };
        let mut views = Vec::new();
        let mut offset = 0;
        for section in self.sections() {
            let count: usize = section.shape.iter().product();
            for layer in 0..section.repeats {
                if !section.name.is_empty() {
                    let view = section.view(&storage, offset)?;
                    views.push((section.name.replace("{}", &layer.to_string()), view));
                }
                offset += count;
            }
        }
        Ok(views)
    }

    /// What Hugging Face calls the sizes.
    pub(super) fn config(&self) -> serde_json::Value {
        json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.width,
            "intermediate_size": self.inner,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_value_heads,
            "head_dim": self.width / self.heads,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": self.positions,
            "hidden_act": "silu",
            "rms_norm_eps": NORM_EPSILON,
            "rope_theta": ROPE_THETA,
            "tie_word_embeddings": self.tied,
            "bos_token_id": tokenizer::START,
            // In the training data a story ends where the next one starts; `run.c` stops there too.
            "eos_token_id": [tokenizer::START, tokenizer::END],
        })
    }

    /// The file after its header, in order.
    fn sections(&self) -> Vec<Section> {
        let Self { width, inner, layers, heads, key_value_heads, vocabulary, positions, tied } = *self;
        let head = width / heads;
        let narrow = key_value_heads * head;
        let section = |name, repeats, shape: &[usize]| Section { name, repeats, shape: shape.to_vec(), rotated: None };
        let rotated = |heads, section| Section { rotated: Some(heads), ..section };
        let mut sections = vec![
            section("model.embed_tokens.weight", 1, &[vocabulary, width]),
            section("model.layers.{}.input_layernorm.weight", layers, &[width]),
            rotated(heads, section("model.layers.{}.self_attn.q_proj.weight", layers, &[width, width])),
            rotated(key_value_heads, section("model.layers.{}.self_attn.k_proj.weight", layers, &[narrow, width])),
            section("model.layers.{}.self_attn.v_proj.weight", layers, &[narrow, width]),
            section("model.layers.{}.self_attn.o_proj.weight", layers, &[width, width]),
            section("model.layers.{}.post_attention_layernorm.weight", layers, &[width]),
            section("model.layers.{}.mlp.gate_proj.weight", layers, &[inner, width]),
            section("model.layers.{}.mlp.down_proj.weight", layers, &[width, inner]),
            section("model.layers.{}.mlp.up_proj.weight", layers, &[inner, width]),
            section("model.norm.weight", 1, &[width]),
            // Cosines and sines of the rotations, which follow from the sizes.
            section("", 2, &[positions, head / 2]),
        ];
        if !tied {
            sections.push(section("lm_head.weight", 1, &[vocabulary, width]));
        }
        sections
    }
}

impl Section {
    /// One of its tensors, from element `offset` on.
    fn view(&self, storage: &Storage, offset: usize) -> Result<View> {
        let (Some(heads), &[rows, columns]) = (self.rotated, &self.shape[..]) else {
            return View::contiguous(storage, offset, &self.shape);
        };
        let head = rows / heads;
        // Of each head the even rows, then the odd ones.
        let axes = [(heads, head * columns), (2, columns), (head / 2, 2 * columns), (columns, 1)];
        let axes = axes.map(|(size, stride)| Axis { size, stride }).to_vec();
        View::new(storage, offset, &self.shape, axes)
    }
}
