//! The real Magika against what its own package answers. `scripts/fetch-models magika --to models-data` fetches it;
//! `ORION_MODELS` names another folder than `models-data`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic, in its helpers too")]

use std::path::PathBuf;

use base64::{Engine, prelude::BASE64_STANDARD};
use orion_models::{Model, ModelRequest, inspect, load};
use orion_proto::{Datatype, InferAnswer, ModelName, Payload, Tensor, bytes_elements, encode_bytes_elements};
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    cases: Vec<Case>,
    /// The graph's input, and what it gives for it.
    bytes: Vec<i32>,
    scores: Vec<f32>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    content: String,
    label: String,
    score: f32,
}

fn expected() -> Expected {
    serde_json::from_str(include_str!("../../tests/data/expected/magika.json")).unwrap()
}

/// The fetched folder; `None`, said aloud, where it was not fetched.
fn folder() -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../models-data").into();
    let path = PathBuf::from(std::env::var("ORION_MODELS").unwrap_or(default)).join("magika");
    if !path.exists() {
        println!(
            "skipped: {} is not there, fetch it with: scripts/fetch-models magika --to models-data",
            path.display()
        );
        return None;
    }
    Some(path)
}

fn loaded(path: PathBuf) -> Box<dyn Model> {
    load(&inspect(&ModelName::new("m").unwrap(), &path).unwrap(), &|_| {}).unwrap().model().unwrap()
}

fn request<E: AsRef<[u8]>>(contents: &[E]) -> ModelRequest {
    let data = Payload::from(encode_bytes_elements(contents));
    let content = Tensor::new("content", Datatype::Bytes, vec![contents.len() as i64], data).unwrap();
    ModelRequest { inputs: vec![content], ..ModelRequest::default() }
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    tensor.data.contiguous().chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}

fn verdicts(answer: &InferAnswer) -> Vec<(String, f32)> {
    let [labels, scores] = answer.outputs.as_slice() else { panic!("two outputs") };
    let texts = bytes_elements("label", &labels.data.contiguous(), labels.rows()).unwrap();
    texts.iter().map(|text| String::from_utf8(text.to_vec()).unwrap()).zip(floats(scores)).collect()
}

#[test]
fn contents_are_labelled_as_by_magika_itself() {
    let Some(path) = folder() else { return };
    let mut model = loaded(path);
    assert_eq!(model.spec().family, "magika");
    let Expected { cases, .. } = expected();
    let contents: Vec<Vec<u8>> = cases.iter().map(|case| BASE64_STANDARD.decode(&case.content).unwrap()).collect();
    // One request with all, one with each alone, and a bad one among them.
    let mut batch = vec![request(&contents), ModelRequest::default()];
    batch.extend(contents.iter().map(|content| request(&[content])));
    let mut answers = model.run(batch).into_iter();
    let together = verdicts(&answers.next().unwrap().unwrap());
    assert!(answers.next().unwrap().is_err_and(|error| error.message.contains("'content'")));
    let mut greatest = 0.0f32;
    for ((case, together), alone) in cases.iter().zip(together).zip(answers) {
        let alone = verdicts(&alone.unwrap()).remove(0);
        for (label, score) in [together, alone] {
            assert_eq!(label, case.label, "{}: {score}", case.name);
            greatest = greatest.max((score - case.score).abs());
        }
    }
    println!("{} contents, greatest difference of a score {greatest:e}", cases.len());
    // The graph takes variances as differences of sums: of short contents, which are mostly padding, a tenth of a variance is
    // the rounding of onnxruntime's sums.
    assert!(greatest < 2e-3, "{greatest}");
}

#[test]
fn the_graph_alone_gives_the_known_scores() {
    let Some(path) = folder() else { return };
    let mut model = loaded(path.join("model.onnx"));
    assert_eq!((model.spec().family.as_str(), model.spec().outputs[0].shape.as_slice()), ("onnx", &[-1, 214][..]));
    let Expected { bytes, scores, .. } = expected();
    let data: Vec<u8> = bytes.iter().flat_map(|value| value.to_le_bytes()).collect();
    let tensor = Tensor::new("bytes", Datatype::Int32, vec![1, bytes.len() as i64], Payload::from(data)).unwrap();
    let request = ModelRequest { inputs: vec![tensor], ..ModelRequest::default() };
    let answer = model.run(vec![request]).remove(0).unwrap();
    let got = floats(&answer.outputs[0]);
    let greatest = got.iter().zip(&scores).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    println!("greatest difference {greatest:e}");
    assert!(got.len() == scores.len() && greatest < 1e-4, "{greatest}");
}
