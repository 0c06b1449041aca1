//! The forward pass once more, plainly and in double precision, against every variant of the family.

use std::{collections::HashMap, path::Path};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use super::{alone, loaded};
use crate::{
    Precision,
    checkpoint::{Conversion, convert},
    generation::{
        config::{DecoderConfig, RopeConfig, RopeScaling},
        key_values::Width,
    },
    tiny_llama,
};
use orion_proto::{Generation, Prompt};

type Tensors = HashMap<String, Vec<f64>>;

fn tensors(folder: &Path) -> Tensors {
    let bytes = std::fs::read(folder.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let halves = |view: &TensorView<'_>, wide: fn([u8; 2]) -> f32| {
        view.data().as_chunks().0.iter().map(|bytes| f64::from(wide(*bytes))).collect()
    };
    let values = |view: &TensorView<'_>| match view.dtype() {
        Dtype::F16 => halves(view, |bytes| half::f16::from_le_bytes(bytes).to_f32()),
        Dtype::BF16 => halves(view, |bytes| half::bf16::from_le_bytes(bytes).to_f32()),
        _ => view.data().as_chunks().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect(),
    };
    file.iter().map(|(name, view)| (name.to_owned(), values(&view))).collect()
}

fn multiply(weight: &[f64], x: &[f64]) -> Vec<f64> {
    weight.chunks(x.len()).map(|row| row.iter().zip(x).map(|(a, b)| a * b).sum()).collect()
}

fn normalise(x: &[f64], weight: &[f64], epsilon: f64) -> Vec<f64> {
    let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
    x.iter().zip(weight).map(|(x, w)| x / (mean + epsilon).sqrt() * w).collect()
}

/// The logits after the last of the tokens.
fn logits(config: &DecoderConfig, width: Width, tensors: &Tensors, tokens: &[u32]) -> Vec<f64> {
    let (size, epsilon) = (config.head_size, f64::from(config.epsilon));
    let turns = config.turns();
    let mut rows: Vec<Vec<f64>> = tokens
        .iter()
        .map(|token| tensors["model.embed_tokens.weight"][*token as usize * config.hidden..][..config.hidden].to_vec())
        .collect();
    for layer in 0..config.layers {
        let get = |name: &str| tensors.get(&format!("model.layers.{layer}.{name}"));
        let project = |name: &str, x: &[f64]| {
            let mut out = multiply(get(&format!("self_attn.{name}_proj.weight")).unwrap(), x);
            let bias = get(&format!("self_attn.{name}_proj.bias")).cloned().unwrap_or(vec![0.0; out.len()]);
            out.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias);
            out
        };
        let turned = |name: &str, x: &[f64], position: usize| -> Vec<Vec<f64>> {
            let norm = get(&format!("self_attn.{name}_norm.weight"));
            let heads = project(name, x).chunks(size).map(<[f64]>::to_vec).collect::<Vec<_>>();
            let turn = |head: Vec<f64>| {
                let head = norm.map_or(head.clone(), |norm| normalise(&head, norm, epsilon));
                let (low, high) = head.split_at(size / 2);
                let angle = |pair: usize| position as f64 * turns[pair];
                let first = (0..size / 2).map(|i| low[i] * angle(i).cos() - high[i] * angle(i).sin());
                let second = (0..size / 2).map(|i| low[i] * angle(i).sin() + high[i] * angle(i).cos());
                first.chain(second).collect()
            };
            heads.into_iter().map(turn).collect()
        };
        let normal: Vec<Vec<f64>> =
            rows.iter().map(|row| normalise(row, get("input_layernorm.weight").unwrap(), epsilon)).collect();
        // In half precision what lies between two of its numbers may become either.
        let held = |x: Vec<f64>| match width {
            Width::F32 => x,
            Width::F16 => x.iter().map(|x| half::f16::from_f64(*x).to_f64()).collect(),
        };
        let keys = |at: usize, x| turned("k", x, at).into_iter().map(held).collect::<Vec<_>>();
        let keys: Vec<_> = normal.iter().enumerate().map(|(at, x)| keys(at, x)).collect();
        let values: Vec<Vec<f64>> = normal.iter().map(|x| held(project("v", x))).collect();
        for (at, row) in rows.iter_mut().enumerate() {
            let first = config.window.map_or(0, |window| (at + 1).saturating_sub(window));
            let mut attended = Vec::new();
            for (head, query) in turned("q", &normal[at], at).iter().enumerate() {
                let shared = head * config.key_value_heads / config.heads;
                let score =
                    |key: &Vec<f64>| query.iter().zip(key).map(|(a, b)| a * b).sum::<f64>() / (size as f64).sqrt();
                let weights: Vec<f64> = keys[first..=at].iter().map(|keys| score(&keys[shared]).exp()).collect();
                let total: f64 = weights.iter().sum();
                attended.extend((0..size).map(|i| {
                    let pairs = weights.iter().zip(&values[first..=at]);
                    pairs.map(|(weight, value)| weight * value[shared * size + i]).sum::<f64>() / total
                }));
            }
            let out = multiply(get("self_attn.o_proj.weight").unwrap(), &attended);
            row.iter_mut().zip(out).for_each(|(x, out)| *x += out);
            let x = normalise(row, get("post_attention_layernorm.weight").unwrap(), epsilon);
            let (gate, up) =
                (multiply(get("mlp.gate_proj.weight").unwrap(), &x), multiply(get("mlp.up_proj.weight").unwrap(), &x));
            let inner: Vec<f64> = gate.iter().zip(up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
            let out = multiply(get("mlp.down_proj.weight").unwrap(), &inner);
            row.iter_mut().zip(out).for_each(|(x, out)| *x += out);
        }
    }
    let last = normalise(rows.last().unwrap(), &tensors["model.norm.weight"], epsilon);
    let output = if config.tied == Some(true) { "model.embed_tokens.weight" } else { "lm_head.weight" };
    multiply(&tensors[output], &last)
}

/// The tiny model's configuration with other words in it.
fn changed(pairs: &[(&str, &str)]) -> String {
    pairs.iter().fold(tiny_llama::CONFIG.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    })
}

const UNTIED: &str = "\"tie_word_embeddings\": false";
const TIED: &str = "\"tie_word_embeddings\": true";

/// Greedy tokens of the model in `folder`, and their logarithms, are those of these tensors.
fn check(folder: &Path, tensors: &Tensors, new_tokens: u32) {
    let mut model = loaded(folder, "");
    let mut tokens: Vec<u32> = (0..40).map(|at| at * 7 % 288).collect();
    let generation = Generation {
        max_tokens: Some(new_tokens),
        logprobs: Some(20),
        ignore_end: true,
        ..Generation::new(Prompt::Tokens(tokens.clone()))
    };
    let given = alone(&mut model, &generation);
    let (config, width) = (&model.decoder.config, model.cache.width());
    let tolerance = if width == Width::F32 { 2e-4 } else { 1e-3 };
    for (token, told) in given.tokens.iter().zip(&given.logprobs) {
        let logits = logits(config, width, tensors, &tokens);
        let total = logits.iter().map(|logit| logit.exp()).sum::<f64>().ln();
        for (token, bits) in told {
            let (got, want) = (f64::from(f32::from_bits(*bits)), logits[*token as usize] - total);
            assert!((got - want).abs() < tolerance, "{config:?}: token {token} has {got}, not {want}");
        }
        let likeliest = logits.iter().copied().fold(f64::MIN, f64::max);
        assert!(likeliest - logits[*token as usize] < 1e-3, "{config:?}");
        tokens.push(*token);
    }
}

#[test]
fn every_variant_agrees_with_double_precision() {
    let llama3 = r#""rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 64}, "hidden_act""#;
    for (config, bias, head_norm) in [
        (tiny_llama::CONFIG.to_owned(), false, false),
        (changed(&[(UNTIED, TIED)]), false, false),
        (changed(&[("\"hidden_act\"", llama3)]), false, false),
        (changed(&[("llama", "mistral"), ("\"hidden_act\"", "\"sliding_window\": 11, \"hidden_act\"")]), false, false),
        (changed(&[("llama", "qwen2")]), true, false),
        (changed(&[("llama", "qwen3")]), false, true),
    ] {
        let folder = tempfile::tempdir().unwrap();
        tiny_llama::write_with(folder.path(), &config, bias, head_norm).unwrap();
        check(folder.path(), &tensors(folder.path()), 8);
    }
}

/// `model.safetensors` cut in two files and an index. What is tied to the embeddings is not in them, as hubs' files are.
fn shard(folder: &Path, tied: bool) {
    let whole = folder.join("model.safetensors");
    let bytes = std::fs::read(&whole).unwrap();
    std::fs::remove_file(whole).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let mut places = HashMap::new();
    for (number, name) in names.into_iter().enumerate() {
        let needed = |view: &(&str, TensorView<'_>)| !(tied && view.0 == "lm_head.weight");
        let own = tensors.iter().filter(needed).enumerate().filter(|(at, _)| at % 2 == number);
        let part: Vec<_> = own.map(|(_, view)| view).collect();
        places.extend(part.iter().map(|view| (view.0, name)));
        std::fs::write(folder.join(name), safetensors::serialize(part, None).unwrap()).unwrap();
    }
    let index = serde_json::json!({"metadata": {}, "weight_map": places});
    std::fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

#[test]
fn halves_and_shards_of_every_family_agree_with_double_precision() {
    for (family, bias, head_norm, tied) in [
        ("llama", false, false, false),
        ("mistral", false, false, true),
        ("qwen2", true, false, true),
        ("qwen3", false, true, false),
    ] {
        let whole = tempfile::tempdir().unwrap();
        let config = changed(&[("llama", family), (UNTIED, if tied { TIED } else { UNTIED })]);
        tiny_llama::write_with(whole.path(), &config, bias, head_norm).unwrap();
        for precision in [Precision::F32, Precision::F16, Precision::Bf16] {
            let folder = tempfile::tempdir().unwrap();
            let conversion = Conversion {
                source: whole.path().join("model.safetensors"),
                folder: folder.path().into(),
                precision: Some(precision),
                config: Some(whole.path().join("config.json")),
                tokenizer: Some(whole.path().join("tokenizer.json")),
                ..Conversion::default()
            };
            convert(&conversion, &|_| {}).unwrap();
            let tensors = tensors(folder.path());
            shard(folder.path(), tied);
            check(folder.path(), &tensors, 3);
        }
    }
}

#[test]
fn slow_turns_are_stretched_as_llama_3_does() {
    let plain =
        RopeConfig { style: super::super::kernels::RopeStyle::Halves, base: 500_000.0, scaling: RopeScaling::None };
    let folder = tempfile::tempdir().unwrap();
    tiny_llama::write(folder.path()).unwrap();
    let config = DecoderConfig { head_size: 128, rope: plain.clone(), ..DecoderConfig::read(folder.path()).unwrap() };
    let scaling = RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 8192.0 };
    let stretched = DecoderConfig { rope: RopeConfig { scaling, ..plain }, ..config.clone() };
    let (plain, stretched) = (config.turns(), stretched.turns());
    let ratios: Vec<f64> = plain.iter().zip(&stretched).map(|(a, b)| a / b).collect();
    assert!(ratios[0] == 1.0 && (ratios[63] - 8.0).abs() < 1e-9, "{ratios:?}");
    assert!(ratios.is_sorted() && ratios.iter().any(|ratio| (1.5..7.0).contains(ratio)), "{ratios:?}");
}
