use std::path::Path;

use orion_proto::{Code, Datatype, InferAnswer, ModelName, Payload, Result, Tensor, encode_bytes_elements};

use super::{
    network::{Encoder, Network},
    tensor_encoder::TensorEncoder,
    text::TextReader,
    *,
};
use crate::{Family, Model, ModelRequest, inspect, load, tiny_bert};

mod heads;

fn folder(orion_toml: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    tiny_bert::write(folder.path());
    std::fs::write(folder.path().join("orion.toml"), orion_toml).unwrap();
    folder
}

fn model(folder: &Path) -> Box<dyn Model> {
    load(&inspect(&ModelName::new("tiny").unwrap(), folder).unwrap(), &|_| {}).unwrap().model().unwrap()
}

/// The same on candle's operations, whatever the precision.
fn general(folder: &Path) -> Bert {
    let manifest = inspect(&ModelName::new("tiny").unwrap(), folder).unwrap();
    let Family::Bert(source) = manifest.family else { panic!("a BERT folder") };
    let encoder = Encoder::Tensor(TensorEncoder::load(&source, &|_| {}).unwrap());
    let network = Network::on(encoder, &source, manifest.spec.max_batch_rows).unwrap();
    Bert { text: TextReader::load(&source).unwrap(), network, task: source.task.clone(), spec: manifest.spec }
}

fn request<E: AsRef<[u8]>>(texts: &[E], truncate: bool) -> ModelRequest {
    let data = Payload::from(encode_bytes_elements(texts));
    ModelRequest {
        inputs: vec![Tensor::new("text", Datatype::Bytes, vec![texts.len() as i64], data).unwrap()],
        truncate,
        ..ModelRequest::default()
    }
}

fn floats(answer: &Result<InferAnswer>) -> Vec<f32> {
    let bytes = answer.as_ref().unwrap().outputs[0].data.contiguous();
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}

fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    // max() would drop a NaN.
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, |most, d| if d > most || d.is_nan() { d } else { most })
}

/// Texts of 2 to 40 tokens in no order.
fn mixed() -> Vec<String> {
    let words = |count: usize| (0..count).map(|n| format!("w{}", (n * 7 + count) % 60)).collect::<Vec<_>>().join(" ");
    (0..39).map(|n| words(n * 16 % 39)).collect()
}

#[test]
fn both_encoders_agree_row_by_row_whatever_the_batch() {
    let exact = folder("[batching]\nmax_rows = 16");
    let mut fast = model(exact.path());
    let texts = mixed();
    let alone: Vec<f32> = texts.iter().flat_map(|text| floats(&fast.run(vec![request(&[text], false)])[0])).collect();
    assert!(alone.chunks(48).all(|row| (row.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5));
    let together = fast.run(vec![request(&texts, false)]);
    assert!(difference(&floats(&together[0]), &alone) < 1e-5);
    let tokens: usize = texts.iter().map(|text| text.split_whitespace().count() + 2).sum();
    assert_eq!(together[0].as_ref().unwrap().usage_tokens, tokens as u64);

    let mut general = general(exact.path());
    let got = difference(&floats(&general.run(vec![request(&texts, false)])[0]), &alone);
    assert!(got < 1e-5, "candle's operations differ by {got}");
}

#[test]
fn half_precision_with_padding_is_near_and_no_nan() {
    let texts = mixed();
    let want = floats(&model(folder("").path()).run(vec![request(&texts, false)])[0]);
    for (precision, most) in [("f16", 0.01), ("bf16", 0.08)] {
        let mut model = model(folder(&format!("precision = \"{precision}\"")).path());
        let got = difference(&floats(&model.run(vec![request(&texts, false)])[0]), &want);
        assert!(got < most, "{precision} differs by {got}");
    }
}

#[test]
fn a_bad_request_fails_alone_and_says_why() {
    let folder = folder("");
    let mut model = model(folder.path());
    let long = "w1 ".repeat(39);
    let batch = vec![
        request(&["w1 w2"], false),
        request(&[b"w1".as_slice(), b"w2 \xff"], false),
        request(&["w1", long.as_str()], false),
        request(&[long.as_str()], true),
        ModelRequest::default(),
        request::<&str>(&[], false),
    ];
    let answers = model.run(batch);
    let first = floats(&answers[0]);
    assert!(difference(&first, &floats(&model.run(vec![request(&["w1 w2"], false)])[0])) < 1e-5);
    for (index, words) in [
        (1, "element 1 of input 'text' is not UTF-8 from byte 3 on"),
        (2, "element 1 of input 'text' has 41 tokens, the model takes 40"),
        (2, "'truncate'"),
        (4, "input 'text' of model 'tiny' is missing"),
    ] {
        let error = answers[index].as_ref().unwrap_err();
        assert!(error.code == Code::InvalidArgument && error.message.contains(words), "{error}");
    }
    // Cut to [CLS], 38 words and [SEP]: what fits without cutting.
    let fitting = model.run(vec![request(&["w1 ".repeat(38)], false)]);
    assert_eq!(answers[3].as_ref().unwrap().usage_tokens, 40);
    assert!(difference(&floats(&answers[3]), &floats(&fitting[0])) < 1e-5);
    assert_eq!(answers[5].as_ref().unwrap().outputs[0].shape, [0, 48]);
}

#[test]
fn a_sample_has_its_rows_and_is_answered() {
    let folder = folder("");
    let mut model = model(folder.path());
    let sample = model.sample(5);
    assert_eq!(model.run(vec![sample])[0].as_ref().unwrap().outputs[0].shape, [5, 48]);
}
