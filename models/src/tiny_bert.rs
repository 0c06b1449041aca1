//! A BERT folder of a few kilobytes with seeded weights, so that tests need no download.

use std::{collections::HashMap, path::Path};

use candle_core::{Device, Tensor};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::bert::BertConfig;

/// Its `config.json`. The sizes are no multiples of a vector but for the hidden one, to reach every edge.
pub(crate) const CONFIG: &str = r#"{"model_type": "bert", "hidden_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 3, "intermediate_size": 83, "max_position_embeddings": 40, "type_vocab_size": 2,
    "vocab_size": 64, "layer_norm_eps": 1e-12, "hidden_act": "gelu"}"#;

/// Words `w0` to `w59` are one token each, all else is `[UNK]`; each text gets `[CLS]` and `[SEP]`.
fn tokenizer() -> String {
    let words = (0..60).map(|n| format!(r#""w{n}": {}"#, n + 4)).collect::<Vec<_>>().join(", ");
    let special =
        |token: &str, id: u32| format!(r#""{token}": {{"id": "{token}", "ids": [{id}], "tokens": ["{token}"]}}"#);
    format!(
        r#"{{"version": "1.0", "truncation": {{"max_length": 8, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}},
        "padding": {{"strategy": {{"Fixed": 8}}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "[PAD]"}},
        "added_tokens": [], "normalizer": null, "pre_tokenizer": {{"type": "Whitespace"}}, "decoder": null,
        "post_processor": {{"type": "TemplateProcessing", "pair": [],
            "single": [{{"SpecialToken": {{"id": "[CLS]", "type_id": 0}}}}, {{"Sequence": {{"id": "A", "type_id": 0}}}},
                {{"SpecialToken": {{"id": "[SEP]", "type_id": 0}}}}],
            "special_tokens": {{{}, {}}}}},
        "model": {{"type": "WordLevel", "unk_token": "[UNK]",
            "vocab": {{"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, {words}}}}}}}"#,
        special("[CLS]", 2),
        special("[SEP]", 3)
    )
}

/// Writes the folder.
pub(crate) fn write(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("config.json"), CONFIG).unwrap();
    std::fs::write(folder.join("tokenizer.json"), tokenizer()).unwrap();
    let config: BertConfig = serde_json::from_str(CONFIG).unwrap();
    let mut random = StdRng::seed_from_u64(3);
    let tensor = |(name, shape): (String, Vec<usize>)| {
        // Near 1 where it scales, near 0 elsewhere: as trained weights lie.
        let middle = if name.ends_with("LayerNorm.weight") { 1.0 } else { 0.0 };
        let count = shape.iter().product();
        let values = (0..count).map(|_| middle + (random.random::<f32>() - 0.5) * 0.6).collect();
        (name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
    };
    let tensors: HashMap<String, Tensor> = config.tensors().map(tensor).collect();
    candle_core::safetensors::save(&tensors, folder.join("model.safetensors")).unwrap();
}
