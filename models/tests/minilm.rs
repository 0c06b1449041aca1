//! The real model against known-good outputs. `scripts/fetch-models minilm --to models-data` fetches it; `ORION_MODELS`
//! names another folder than `models-data`.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::path::PathBuf;

use orion_models::{Model, ModelRequest, inspect, load};
use orion_proto::{Datatype, InferAnswer, ModelName, Payload, Tensor, encode_bytes_elements};
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    text: Vec<String>,
    embedding: Vec<Vec<f32>>,
}

/// Where a model was fetched to; `None`, said aloud, where it was not.
fn folder(name: &str) -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../models-data").into();
    let path = PathBuf::from(std::env::var("ORION_MODELS").unwrap_or(default)).join(name);
    if !path.exists() {
        println!(
            "skipped: {} is not there, fetch it with: scripts/fetch-models {name} --to models-data",
            path.display()
        );
        return None;
    }
    Some(path)
}

/// The fetched model.
fn fetched(name: &str) -> Option<Box<dyn Model>> {
    let path = folder(name)?;
    let manifest = inspect(&ModelName::new(name).unwrap(), &path).unwrap();
    assert_eq!(manifest.spec.outputs[0].shape, [-1, 384]);
    Some(load(&manifest, &|_| {}).unwrap().model().unwrap())
}

fn request(texts: &[String], truncate: bool) -> ModelRequest {
    let data = Payload::from(encode_bytes_elements(texts));
    let tensor = Tensor::new("text", Datatype::Bytes, vec![texts.len() as i64], data).unwrap();
    ModelRequest { inputs: vec![tensor], truncate, ..ModelRequest::default() }
}

fn rows(answer: &InferAnswer) -> Vec<Vec<f32>> {
    let bytes = answer.outputs[0].data.contiguous();
    let floats: Vec<f32> = bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
    floats.chunks_exact(384).map(<[f32]>::to_vec).collect()
}

fn expected() -> Expected {
    serde_json::from_str(include_str!("../../tests/data/expected/minilm.json")).unwrap()
}

fn difference(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().flatten().zip(b.iter().flatten()).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
}

/// The least cosine of rows of unit length.
fn cosine(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    let cosines = a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>());
    cosines.fold(1.0, f32::min)
}

/// Weights in half precision are widened as they are loaded.
#[test]
fn known_good_embeddings_come_out() {
    let Expected { text, embedding } = expected();
    for (name, most) in [("minilm", 1e-4), ("minilm-fp16", 1e-3)] {
        let Some(mut model) = fetched(name) else { continue };
        let answers = model.run(vec![request(&text, false)]);
        let answer = answers[0].as_ref().unwrap();
        // [CLS], the words of each sentence, [SEP].
        assert_eq!(answer.usage_tokens, 50);
        let got = difference(&rows(answer), &embedding);
        let cosine = cosine(&rows(answer), &embedding);
        println!("{name}: greatest difference {got:e}, least cosine {cosine}");
        assert!(got < most && cosine > 0.999, "{name}: {got}, {cosine}");
    }
}

/// In half precision products and weights are rounded; texts that mean the same still lie together.
#[test]
fn half_precision_keeps_the_direction() {
    let Expected { text, embedding } = expected();
    let Some(path) = folder("minilm") else { return };
    for precision in ["f16", "bf16"] {
        let copy = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(&path).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
        std::fs::write(copy.path().join("orion.toml"), format!("precision = \"{precision}\"")).unwrap();
        let manifest = inspect(&ModelName::new("minilm").unwrap(), copy.path()).unwrap();
        let mut model = load(&manifest, &|_| {}).unwrap().model().unwrap();
        let got = rows(model.run(vec![request(&text, false)])[0].as_ref().unwrap());
        let cosine = cosine(&got, &embedding);
        println!("{precision}: least cosine {cosine}");
        assert!(cosine > 0.9995, "{precision}: {cosine}");
    }
}

#[test]
fn a_batch_of_mixed_lengths_equals_each_alone() {
    let Some(mut model) = fetched("minilm") else { return };
    let words = "the quick brown fox jumps over a lazy dog and runs home";
    let texts: Vec<String> = (0..40).map(|i| format!("{i} {}", format!("{words} ").repeat(i * i % 41))).collect();
    let batch = model.run(texts.iter().map(|text| request(std::slice::from_ref(text), true)).collect());
    let together = model.run(vec![request(&texts, true)]);
    let together = rows(together[0].as_ref().unwrap());
    for ((text, batched), together) in texts.iter().zip(batch).zip(together) {
        let alone = model.run(vec![request(std::slice::from_ref(text), true)]);
        let alone = rows(alone[0].as_ref().unwrap());
        assert!(difference(&alone, &rows(&batched.unwrap())) < 1e-5, "{text}");
        assert!(difference(&alone, &[together]) < 1e-5, "{text}");
    }
}
