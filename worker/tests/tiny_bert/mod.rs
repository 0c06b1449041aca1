//! A BERT folder of a few kilobytes: one layer, every weight 1, every word unknown.

use std::path::Path;

const CONFIG: &str = r#"{"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1,
    "intermediate_size": 16, "max_position_embeddings": 40, "type_vocab_size": 1, "vocab_size": 2,
    "layer_norm_eps": 1e-12, "hidden_act": "gelu"}"#;
const TOKENIZER: &str = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
    "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
    "model": {"type": "WordLevel", "unk_token": "[UNK]", "vocab": {"[PAD]": 0, "[UNK]": 1}}}"#;

/// Writes the folder.
pub(crate) fn write(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("config.json"), CONFIG).unwrap();
    std::fs::write(folder.join("tokenizer.json"), TOKENIZER).unwrap();
    let mut tensors = vec![
        ("embeddings.word_embeddings.weight".to_owned(), vec![2, 16]),
        ("embeddings.position_embeddings.weight".to_owned(), vec![40, 16]),
        ("embeddings.token_type_embeddings.weight".to_owned(), vec![1, 16]),
    ];
    let linear = ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"];
    for part in linear.iter().chain(&["intermediate.dense", "output.dense"]) {
        tensors.push((format!("encoder.layer.0.{part}.weight"), vec![16, 16]));
        tensors.push((format!("encoder.layer.0.{part}.bias"), vec![16]));
    }
    for part in ["embeddings", "encoder.layer.0.attention.output", "encoder.layer.0.output"] {
        tensors.push((format!("{part}.LayerNorm.weight"), vec![16]));
        tensors.push((format!("{part}.LayerNorm.bias"), vec![16]));
    }
    std::fs::write(folder.join("model.safetensors"), safetensors(tensors)).unwrap();
}

/// The header's length, the header, then every element 1.0.
fn safetensors(tensors: Vec<(String, Vec<usize>)>) -> Vec<u8> {
    let (mut header, mut bytes) = (serde_json::Map::new(), 0);
    for (name, shape) in tensors {
        let end = bytes + 4 * shape.iter().product::<usize>();
        let entry = serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [bytes, end]});
        header.insert(name, entry);
        bytes = end;
    }
    let header = serde_json::Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(1f32.to_le_bytes().repeat(bytes / 4));
    file
}
