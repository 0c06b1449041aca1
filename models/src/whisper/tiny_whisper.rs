//! A Whisper folder of random weights, for tests without a download.

use std::{collections::HashMap, path::Path};

use candle_core::{Device, Tensor};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{Source, WhisperConfig, names::hugging_face, vocabulary::Vocabulary};

/// Tokens; the bytes are the first 256.
pub(super) const VOCABULARY: usize = 1765;
/// 0.00 s.
pub(super) const FIRST_TIMESTAMP: u32 = 264;

/// Its `config.json`: windows of 1.6 seconds.
pub(super) const CONFIG: &str = r#"{"model_type": "whisper", "d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_layers": 2, "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "num_mel_bins": 80,
    "max_source_positions": 80, "max_target_positions": 24, "vocab_size": 1765, "activation_function": "gelu"}"#;

/// The byte of each of GPT-2's stand-in characters.
fn byte_characters() -> Vec<char> {
    let printable = |byte: u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut others = 256..;
    (0..256)
        .filter_map(|byte| if printable(byte) { Some(byte) } else { others.next() })
        .filter_map(char::from_u32)
        .collect()
}

/// A tokenizer in which each byte is a token.
fn tokenizer() -> serde_json::Value {
    let bytes = byte_characters().into_iter().zip(0..).map(|(character, id)| (character.to_string(), id.into()));
    let special = [
        "endoftext",
        "startoftranscript",
        "translate",
        "transcribe",
        "startoflm",
        "startofprev",
        "nocaptions",
        "notimestamps",
    ];
    let added = special.iter().zip(256..).map(|(name, id)| {
        serde_json::json!({"id": id, "content": format!("<|{name}|>"), "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true})
    });
    let byte_level =
        serde_json::json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    serde_json::json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": null, "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false,
            "vocab": bytes.collect::<serde_json::Map<String, serde_json::Value>>(), "merges": []}})
}

/// Writes the folder; the weights under the names of Hugging Face where asked.
pub(super) fn write(folder: &Path, under_hugging_face_names: bool) {
    std::fs::write(folder.join("config.json"), CONFIG).unwrap();
    std::fs::write(folder.join("tokenizer.json"), tokenizer().to_string()).unwrap();
    let config: WhisperConfig = serde_json::from_str(CONFIG).unwrap();
    let mut random = StdRng::seed_from_u64(5);
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let middle = if name.ends_with("ln.weight") || name.ends_with("ln_post.weight") { 1.0 } else { 0.0 };
        let count = shape.iter().product();
        let values = (0..count).map(|_| middle + (random.random::<f32>() - 0.5) * 0.7).collect();
        let name = if under_hugging_face_names { hugging_face(&name) } else { name };
        (name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
    };
    let tensors: HashMap<String, Tensor> = config.tensors().into_iter().map(tensor).collect();
    candle_core::safetensors::save(&tensors, folder.join("model.safetensors")).unwrap();
}

/// Its tokens.
pub(super) fn vocabulary() -> Vocabulary {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), false);
    Vocabulary::load(&Source::inspect(folder.path(), crate::Precision::F32).unwrap()).unwrap()
}
