//! The tiny model as a GGUF file: the same tokens as from the hub's folder, and no panic whatever the file says.

use std::path::{Path, PathBuf};

use orion_proto::{Code, Generation, ModelName, Priority, Prompt};
use proptest::prelude::*;
use safetensors::SafeTensors;
use serde_json::Value;

use super::{allocation, alone, model};
use crate::{
    Generator,
    gguf::{Encoding, writer::Writer},
    inspect, load, tiny_llama,
};

/// A tensor's name in a GGUF file, from that in the hub's.
fn renamed(name: &str) -> String {
    let pairs = [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("model.layers", "blk"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    pairs.iter().fold(name.to_owned(), |name, (hub, gguf)| name.replace(hub, gguf))
}

/// Rows of heads of 16 in which the two of a pair are neighbours, from those in which they are halves.
fn neighbours(rows: &[u8], row: usize) -> Vec<u8> {
    let rows: Vec<&[u8]> = rows.chunks(row).collect();
    let order = (0..rows.len()).map(|at| at / 16 * 16 + at % 2 * 8 + at % 16 / 2);
    order.flat_map(|at| rows[at].to_vec()).collect()
}

/// The tiny model's file, its tokenizer spelled as in its folder.
fn whole() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    tiny_llama::write(folder.path()).unwrap();
    let json =
        |name: &str| -> Value { serde_json::from_slice(&std::fs::read(folder.path().join(name)).unwrap()).unwrap() };
    let tokenizer = json("tokenizer.json");
    // What no text has is there to fill the vocabulary up.
    let mut tokens: Vec<String> = (0..288).map(|id| format!("<unused{id}>")).collect();
    let mut kinds = vec![5; 288];
    for (token, id) in tokenizer["model"]["vocab"].as_object().unwrap() {
        let id = id.as_u64().unwrap() as usize;
        (tokens[id], kinds[id]) = (token.clone(), if id < 3 { 3 } else { 1 });
    }
    let pairs = tokenizer["model"]["merges"].as_array().unwrap();
    let merges: Vec<String> =
        pairs.iter().map(|pair| format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap())).collect();
    let template = json("tokenizer_config.json")["chat_template"].as_str().unwrap().to_owned();
    let mut writer = Writer::default();
    writer.text("general.architecture", "llama");
    for (key, value) in [
        ("block_count", 2),
        ("context_length", 256),
        ("embedding_length", 48),
        ("feed_forward_length", 80),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 2),
        ("attention.key_length", 16),
        ("rope.dimension_count", 16),
    ] {
        writer.number(&format!("llama.{key}"), value);
    }
    writer.float("llama.attention.layer_norm_rms_epsilon", 1e-5).float("llama.rope.freq_base", 10_000.0);
    writer.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", "gpt-2");
    writer.texts("tokenizer.ggml.tokens", &tokens).words("tokenizer.ggml.token_type", 5, &kinds);
    writer.texts("tokenizer.ggml.merges", &merges).bool("tokenizer.ggml.add_bos_token", true);
    writer.number("tokenizer.ggml.bos_token_id", 0).number("tokenizer.ggml.eos_token_id", 1);
    writer.text("tokenizer.chat_template", &template);
    let bytes = std::fs::read(folder.path().join("model.safetensors")).unwrap();
    for (name, view) in SafeTensors::deserialize(&bytes).unwrap().iter() {
        let turned = name.contains("q_proj") || name.contains("k_proj");
        let data = if turned { neighbours(view.data(), 48 * 4) } else { view.data().to_vec() };
        writer.tensor(&renamed(name), view.shape(), Encoding::F32, data);
    }
    writer.bytes()
}

/// Bytes of its tensors, without what lies between them.
fn weight_bytes() -> usize {
    let folder = tempfile::tempdir().unwrap();
    tiny_llama::write(folder.path()).unwrap();
    let bytes = std::fs::read(folder.path().join("model.safetensors")).unwrap();
    SafeTensors::deserialize(&bytes).unwrap().iter().map(|(_, view)| view.data().len()).sum()
}

fn written(folder: &Path, bytes: &[u8]) -> PathBuf {
    let path = folder.join("tiny.gguf");
    std::fs::write(&path, bytes).unwrap();
    path
}

fn loaded(path: &Path) -> orion_proto::Result<Box<dyn Generator>> {
    load(&inspect(&ModelName::new("tiny").unwrap(), path)?, &|_| {})?.generator()
}

#[test]
fn a_file_and_its_folder_give_the_same_as_the_hub_s_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), &whole());
    let mut hub = model("");
    let messages = r#"[{"role": "user", "content": "the an é"}]"#.to_owned();
    let prompts =
        [Prompt::Text("the an\u{20ac} 12".into()), Prompt::Text(String::new()), Prompt::Chat { messages, tools: None }];
    for place in [path.as_path(), folder.path()] {
        let mut gguf = loaded(place).unwrap();
        assert!(gguf.spec().generator.unwrap().chat && gguf.spec().memory_bytes > 100_000);
        for prompt in &prompts {
            let generation = Generation { max_tokens: Some(20), ignore_end: true, ..Generation::new(prompt.clone()) };
            let want = alone(&mut hub, &generation);
            gguf.add(1, Priority::Normal, &generation).unwrap();
            let (mut tokens, mut text) = (Vec::new(), String::new());
            while gguf.load().running + gguf.load().waiting > 0 {
                for (_, delta) in gguf.step() {
                    let delta = delta.unwrap();
                    tokens.extend(delta.tokens);
                    text.push_str(&delta.text);
                }
            }
            assert_eq!((tokens, text), (want.tokens, want.text), "{prompt:?}");
        }
    }
}

#[test]
fn what_a_file_lacks_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let whole = whole();
    let replaced = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len(), "lengths stand before the texts");
        let at = whole.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        let mut bytes = whole.clone();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        bytes
    };
    for (from, to, words) in [
        ("general.architecture", "general.architectur3", "general.architecture is ''"),
        ("llama.block_count", "llama.block_coun7", "no whole number 'llama.block_count'"),
        ("blk.1.ffn_up.weight", "blk.1.ffn_uq.weight", "tensor 'blk.1.ffn_up.weight' is missing"),
        ("tokenizer.ggml.merges", "tokenizer.ggml.merge5", "no texts 'tokenizer.ggml.merges'"),
        ("gpt2", "bert", "tokenizer.ggml.model is 'bert'"),
        ("gpt-2", "gpt-9", "tokenizer.ggml.pre is 'gpt-9'"),
        ("{% endfor %}", "{% endfox %}", "chat template"),
    ] {
        let error = loaded(&written(folder.path(), &replaced(from, to))).err().unwrap();
        assert!(error.message.contains(words) && error.message.contains("tiny.gguf"), "{error}, not {words}");
    }
}

/// What is done to a file.
#[derive(Clone, Debug)]
enum Harm {
    /// Other bytes at these places, as shares of the file.
    Bytes(Vec<(f64, u8)>),
    /// A count, length or offset that is far too great, anywhere in the header.
    Count(f64, u64),
    /// The end is missing.
    Cut(f64),
}

impl Harm {
    fn apply(&self, bytes: &mut Vec<u8>, header: usize) {
        let at = |share: f64, length: usize| (share * length as f64) as usize;
        match self {
            Self::Bytes(changes) => changes.iter().for_each(|(share, value)| bytes[at(*share, header)] = *value),
            Self::Count(share, count) => {
                let start = at(*share, header - 8);
                bytes[start..start + 8].copy_from_slice(&count.to_le_bytes());
            }
            Self::Cut(share) => bytes.truncate(at(*share, bytes.len())),
        }
    }
}

fn harm() -> impl Strategy<Value = Harm> {
    let count = prop_oneof![Just(u64::MAX), Just(1 << 63), (20u32..62).prop_map(|bits| 1 << bits), 0u64..100_000];
    prop_oneof![
        4 => prop::collection::vec((0.0..1.0, any::<u8>()), 1..6).prop_map(Harm::Bytes),
        4 => (0.0..1.0, count).prop_map(|(share, count)| Harm::Count(share, count)),
        1 => (0.0..1.0).prop_map(Harm::Cut),
    ]
}

/// The whole tiny model takes less; no count of its file may make it take more in one piece.
const MOST_BYTES: usize = 16 << 20;

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    #[test]
    fn a_hostile_file_is_refused_in_a_line_or_runs(harm in harm()) {
        let mut bytes = whole();
        let header = bytes.len() - weight_bytes();
        harm.apply(&mut bytes, header);
        let folder = tempfile::tempdir().unwrap();
        written(folder.path(), &bytes);
        std::fs::write(folder.path().join("orion.toml"), "[generation]\ncache_tokens = 512").unwrap();
        match loaded(folder.path()) {
            Err(error) => {
                let text = &error.message;
                prop_assert!(error.code == Code::InvalidArgument || error.code == Code::FailedPrecondition, "{}", error);
                prop_assert!(text.contains("tiny.gguf") && !text.contains('\n') && text.len() < 1024, "{}", text);
            }
            Ok(mut model) => {
                let generation = Generation { max_tokens: Some(3), ..Generation::new(Prompt::Text("the é".into())) };
                if model.add(1, Priority::Normal, &generation).is_ok() {
                    (0..4).for_each(|_| drop(model.step()));
                }
            }
        }
        prop_assert!(allocation::greatest() < MOST_BYTES, "{} bytes in one piece", allocation::greatest());
    }
}
