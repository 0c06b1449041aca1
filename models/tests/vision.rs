//! EfficientNet-Lite0 against known-good outputs. `scripts/fetch-models efficientnet-lite0 --to models-data` fetches it;
//! `ORION_MODELS` names another folder than `models-data`.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use orion_models::{Model, ModelRequest, inspect, load};
use orion_proto::{Datatype, InferAnswer, ModelName, Payload, Tensor, bytes_elements, encode_bytes_elements};
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    class: i32,
    label: String,
    probability: f32,
    logits: Vec<f32>,
}

/// The fetched model; `None`, said aloud, where it was not fetched.
fn fetched(name: &str) -> Option<Box<dyn Model>> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../models-data").into();
    let path = PathBuf::from(std::env::var("ORION_MODELS").unwrap_or(default)).join(name);
    if !path.exists() {
        let path = path.display();
        println!("skipped: {path} is not there, fetch it with: scripts/fetch-models {name} --to models-data");
        return None;
    }
    Some(load(&inspect(&ModelName::new(name).unwrap(), &path).unwrap(), &|_| {}).unwrap().model().unwrap())
}

fn expected() -> BTreeMap<String, Expected> {
    serde_json::from_str(include_str!("../../tests/data/expected/efficientnet-lite0.json")).unwrap()
}

fn request<'a>(photos: impl Iterator<Item = &'a String>) -> ModelRequest {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/images");
    let files: Vec<Vec<u8>> = photos.map(|photo| std::fs::read(folder.join(photo)).unwrap()).collect();
    let data = Payload::from(encode_bytes_elements(&files));
    let tensor = Tensor::new("image", Datatype::Bytes, vec![files.len() as i64], data).unwrap();
    ModelRequest { inputs: vec![tensor], ..ModelRequest::default() }
}

fn fours(answer: &InferAnswer, output: usize) -> Vec<[u8; 4]> {
    answer.outputs[output].data.contiguous().chunks_exact(4).map(|four| four.try_into().unwrap()).collect()
}

fn logits(answer: &InferAnswer) -> Vec<f32> {
    fours(answer, 0).into_iter().map(f32::from_le_bytes).collect()
}

#[test]
fn known_good_classes_come_out() {
    let Some(mut model) = fetched("efficientnet-lite0") else { return };
    let shapes: Vec<&[i64]> = model.spec().outputs.iter().map(|output| output.shape.as_slice()).collect();
    assert_eq!(shapes, [&[-1, 1000][..], &[-1], &[-1]]);
    let expected = expected();
    let answer = model.run(vec![request(expected.keys())]).remove(0).unwrap();
    let classes: Vec<i32> = fours(&answer, 1).into_iter().map(i32::from_le_bytes).collect();
    let labels = bytes_elements("label", &answer.outputs[2].data.contiguous(), 3).unwrap();
    for (row, (photo, wanted)) in expected.iter().enumerate() {
        let logits = &logits(&answer)[row * 1000..][..1000];
        let difference = logits.iter().zip(&wanted.logits).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let sum: f32 = logits.iter().map(|logit| logit.exp()).sum();
        let probability = logits[wanted.class as usize].exp() / sum;
        println!("{photo}: probability {probability:.4}, greatest difference of a logit {difference:e}");
        assert_eq!((classes[row], &labels[row][..]), (wanted.class, wanted.label.as_bytes()), "{photo}");
        assert!((probability - wanted.probability).abs() < 5e-3, "{photo}: {probability}");
        // JPEG decoders differ by a step or two of 255; without one in between only rounding does.
        let most = if photo.ends_with("png") { 1e-4 } else { 0.1 };
        assert!(difference < most, "{photo}: {difference:e}");
    }
}

#[test]
fn a_batch_equals_each_alone() {
    let Some(mut model) = fetched("efficientnet-lite0") else { return };
    let photos: Vec<String> = expected().into_keys().collect();
    let together = model.run(vec![request(photos.iter().cycle().take(7))]).remove(0).unwrap();
    let together = logits(&together);
    for (row, photo) in photos.iter().cycle().take(7).enumerate() {
        let alone = model.run(vec![request(std::iter::once(photo))]).remove(0).unwrap();
        assert_eq!(logits(&alone), together[row * 1000..][..1000], "{photo}");
    }
}
