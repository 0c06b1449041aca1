//! A Llama folder of a few kilobytes with seeded weights, so that tests need no download. What it generates is noise, but
//! each weight has its part in it.

use std::{collections::HashMap, io, path::Path};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use safetensors::{Dtype, tensor::TensorView};

/// Its `config.json`.
pub(crate) const CONFIG: &str = r#"{"model_type": "llama", "hidden_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 80, "vocab_size": 288,
    "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
    "tie_word_embeddings": false, "eos_token_id": 1}"#;
/// Tokens before those of single bytes: the start, the end, and one that a conversation's turns begin with.
const SPECIAL: [&str; 3] = ["<s>", "</s>", "<turn>"];
/// Longer tokens, spelled as GPT-2's vocabularies are: the last two are a whole character and the begin of one.
const MERGES: [(&str, &str); 8] =
    [("t", "h"), ("th", "e"), ("Ġ", "the"), ("Ġ", "a"), ("Ġa", "n"), ("Ã", "©"), ("a", "n"), ("â", "Ĥ")];
const TEMPLATE: &str = "{{ bos_token }}{% for message in messages %}<turn>{{ message.content }}{% endfor %}<turn>";

/// The characters that stand for bytes in GPT-2's vocabularies, by byte.
fn byte_characters() -> Vec<char> {
    let seen = |byte: u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let mut hidden = 0x100;
    let one = |byte: u32| {
        let code = if seen(byte) { byte } else { hidden };
        hidden += u32::from(!seen(byte));
        char::from_u32(code).unwrap_or('?')
    };
    (0..=255).map(one).collect()
}

fn tokenizer() -> serde_json::Value {
    let bytes = byte_characters().into_iter().map(String::from);
    let merged = MERGES.iter().map(|(left, right)| format!("{left}{right}"));
    let tokens = SPECIAL.iter().map(|token| (*token).to_owned()).chain(bytes).chain(merged);
    let vocabulary: HashMap<String, u32> = tokens.zip(0..).collect();
    let added = |(id, token): (usize, &&str)| {
        serde_json::json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    let bytes = serde_json::json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
        "use_regex": true});
    serde_json::json!({"version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": SPECIAL.iter().enumerate().map(added).collect::<Vec<_>>(),
        "pre_tokenizer": bytes, "decoder": bytes,
        "post_processor": {"type": "TemplateProcessing", "pair": [],
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary,
            "merges": MERGES.map(|(left, right)| [left, right])}})
}

/// Its tensors' names and shapes, for layers with these extras.
fn tensors(bias: bool, head_norm: bool) -> Vec<(String, Vec<usize>)> {
    let mut tensors = vec![
        ("model.embed_tokens.weight".to_owned(), vec![288, 48]),
        ("model.norm.weight".into(), vec![48]),
        ("lm_head.weight".into(), vec![288, 48]),
    ];
    let mut parts = vec![
        ("input_layernorm.weight", vec![48]),
        ("post_attention_layernorm.weight", vec![48]),
        ("self_attn.q_proj.weight", vec![64, 48]),
        ("self_attn.k_proj.weight", vec![32, 48]),
        ("self_attn.v_proj.weight", vec![32, 48]),
        ("self_attn.o_proj.weight", vec![48, 64]),
        ("mlp.gate_proj.weight", vec![80, 48]),
        ("mlp.up_proj.weight", vec![80, 48]),
        ("mlp.down_proj.weight", vec![48, 80]),
    ];
    if bias {
        parts.extend([
            ("self_attn.q_proj.bias", vec![64]),
            ("self_attn.k_proj.bias", vec![32]),
            ("self_attn.v_proj.bias", vec![32]),
        ]);
    }
    if head_norm {
        parts.extend([("self_attn.q_norm.weight", vec![16]), ("self_attn.k_norm.weight", vec![16])]);
    }
    for layer in 0..2 {
        tensors.extend(parts.iter().map(|(name, shape)| (format!("model.layers.{layer}.{name}"), shape.clone())));
    }
    tensors
}

/// Writes the folder.
///
/// # Errors
/// Those of writing files.
pub fn write(folder: &Path) -> io::Result<()> {
    write_with(folder, CONFIG, false, false)
}

/// Writes it with another configuration of the same sizes, and with what its layers have besides.
pub(crate) fn write_with(folder: &Path, config: &str, bias: bool, head_norm: bool) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("config.json"), config)?;
    std::fs::write(folder.join("tokenizer.json"), tokenizer().to_string())?;
    let settings = serde_json::json!({"bos_token": "<s>", "eos_token": "</s>", "chat_template": TEMPLATE});
    std::fs::write(folder.join("tokenizer_config.json"), settings.to_string())?;
    let mut random = StdRng::seed_from_u64(5);
    let mut data = |name: &str, count: usize| -> Vec<u8> {
        // Near 1 where it scales; large enough elsewhere that the likeliest token is not always the same.
        let middle = if name.ends_with("norm.weight") { 1.0 } else { 0.0 };
        (0..count).flat_map(|_| (middle + (random.random::<f32>() - 0.5) * 0.8f32).to_le_bytes()).collect()
    };
    let filled: Vec<(String, Vec<usize>, Vec<u8>)> = tensors(bias, head_norm)
        .into_iter()
        .map(|(name, shape)| {
            let bytes = data(&name, shape.iter().product());
            (name, shape, bytes)
        })
        .collect();
    let mut views = Vec::new();
    for (name, shape, bytes) in &filled {
        views.push((name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(io::Error::other)?));
    }
    let bytes = safetensors::serialize(views, None).map_err(io::Error::other)?;
    std::fs::write(folder.join("model.safetensors"), bytes)
}
