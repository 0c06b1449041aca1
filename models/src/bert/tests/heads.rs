//! Heads against transformers, whose outputs `tests/data/models/make_bert.py` wrote down.

use std::{collections::HashMap, fs, path::PathBuf};

use candle_core::{Device, Tensor as Weight};
use orion_proto::bytes_elements;
use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Expected {
    classifier: Classifier,
    reranker: Reranker,
}

#[derive(Deserialize)]
struct Classifier {
    text: Vec<String>,
    logits: Vec<[f32; 3]>,
    label: Vec<String>,
    /// By the problem type.
    score: HashMap<String, Vec<f32>>,
    pairs: Vec<(String, String)>,
    pair_logits: Vec<[f32; 3]>,
}

#[derive(Deserialize)]
struct Reranker {
    pairs: Vec<(String, String)>,
    logit: Vec<f32>,
    score: Vec<f32>,
}

fn expected() -> Expected {
    serde_json::from_str(include_str!("../../../../tests/data/expected/bert-heads.json")).unwrap()
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/models").join(name)
}

/// A copy whose files may be changed, with an `orion.toml`.
fn copy(name: &str, orion_toml: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(data(name)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    fs::write(folder.path().join("orion.toml"), orion_toml).unwrap();
    folder
}

/// A copy with keys set in its `config.json`; a null takes one away.
fn configured(name: &str, orion_toml: &str, keys: &str) -> tempfile::TempDir {
    let folder = copy(name, orion_toml);
    let path = folder.path().join("config.json");
    let mut config: serde_json::Map<_, _> = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config.extend(serde_json::from_str::<serde_json::Map<_, _>>(keys).unwrap());
    fs::write(path, serde_json::to_vec(&config).unwrap()).unwrap();
    folder
}

/// A copy whose weights are changed.
fn weighed(name: &str, change: impl Fn(&mut HashMap<String, Weight>)) -> tempfile::TempDir {
    let folder = copy(name, "");
    let path = folder.path().join("model.safetensors");
    let mut weights = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    change(&mut weights);
    candle_core::safetensors::save(&weights, path).unwrap();
    folder
}

fn texts<E: AsRef<[u8]>>(name: &str, texts: &[E]) -> Tensor {
    let data = Payload::from(encode_bytes_elements(texts));
    Tensor::new(name, Datatype::Bytes, vec![texts.len() as i64], data).unwrap()
}

fn pairs(names: [&str; 2], pairs: &[(String, String)], truncate: bool) -> ModelRequest {
    let (first, second): (Vec<&str>, Vec<&str>) = pairs.iter().map(|(a, b)| (a.as_str(), b.as_str())).unzip();
    // Inputs come in any order.
    ModelRequest {
        inputs: vec![texts(names[1], &second), texts(names[0], &first)],
        truncate,
        ..ModelRequest::default()
    }
}

fn run(model: &mut dyn Model, request: ModelRequest) -> Vec<Tensor> {
    model.run(vec![request]).remove(0).unwrap().outputs
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.data.contiguous().chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}

fn labels(tensor: &Tensor) -> Vec<String> {
    let texts = bytes_elements("label", &tensor.data.contiguous(), tensor.rows()).unwrap();
    texts.iter().map(|text| String::from_utf8(text.to_vec()).unwrap()).collect()
}

fn refusal(folder: &tempfile::TempDir) -> String {
    inspect(&ModelName::new("tiny").unwrap(), folder.path()).unwrap_err().message
}

#[test]
fn classes_are_those_of_transformers() {
    let Expected { classifier: wanted, .. } = expected();
    for (problem, scores) in &wanted.score {
        let folder = configured("bert-classifier", "", &format!(r#"{{"problem_type": "{problem}"}}"#));
        for mut model in [model(folder.path()), Box::new(general(folder.path()))] {
            let outputs = run(&mut *model, request(&wanted.text, true));
            let [logits, label, score] = outputs.as_slice() else { panic!("three outputs") };
            assert_eq!((logits.name.as_str(), logits.shape.as_slice()), ("logits", &[wanted.text.len() as i64, 3][..]));
            assert!(difference(&values(logits), wanted.logits.as_flattened()) < 1e-5);
            assert_eq!((label.name.as_str(), score.name.as_str()), ("label", "score"));
            assert_eq!(labels(label), wanted.label);
            assert!(difference(&values(score), scores) < 1e-5, "{problem}");
        }
    }
    let mut plain = model(&data("bert-classifier"));
    assert_eq!(plain.spec().family, "text-classification");
    let alone: Vec<f32> =
        wanted.text.iter().flat_map(|text| values(&run(&mut *plain, request(&[text], true))[2])).collect();
    assert!(difference(&alone, &wanted.score["single_label_classification"]) < 1e-5);
}

#[test]
fn pairs_are_cut_and_told_apart_as_by_transformers() {
    let Expected { classifier, reranker } = expected();
    let folder = data("bert-classifier");
    for mut model in [model(&folder), Box::new(general(&folder))] {
        let logits = values(&run(&mut *model, pairs(["text", "text_pair"], &classifier.pairs, true))[0]);
        let got = difference(&logits, classifier.pair_logits.as_flattened());
        assert!(got < 1e-5, "{got}");
    }
    let folder = data("bert-reranker");
    for mut model in [model(&folder), Box::new(general(&folder))] {
        assert_eq!(model.spec().family, "reranker");
        let scores = values(&run(&mut *model, pairs(["query", "text"], &reranker.pairs, true))[0]);
        let got = difference(&scores, &reranker.score);
        assert!(got < 1e-5, "{got}");
        let turned: Vec<_> = reranker.pairs.iter().cloned().map(|(query, text)| (text, query)).collect();
        let scores = values(&run(&mut *model, pairs(["query", "text"], &turned, true))[0]);
        assert!(difference(&scores, &reranker.score) > 0.01, "the query goes first");
    }
}

#[test]
fn half_precision_is_near() {
    let Expected { classifier, reranker } = expected();
    for (precision, most) in [("f16", 0.03), ("bf16", 0.3)] {
        let settings = format!("precision = \"{precision}\"");
        let mut classes = model(copy("bert-classifier", &settings).path());
        let logits = values(&run(&mut *classes, request(&classifier.text, true))[0]);
        let got = difference(&logits, classifier.logits.as_flattened());
        assert!(got < most, "{precision} differs by {got}");
        let mut scores = model(copy("bert-reranker", &settings).path());
        let scores = values(&run(&mut *scores, pairs(["query", "text"], &reranker.pairs, true))[0]);
        let got = difference(&scores, &reranker.score);
        assert!(got < most / 4.0, "{precision} differs by {got}");
    }
}

#[test]
fn a_reranker_s_score_is_what_its_configuration_says() {
    let Reranker { pairs: given, logit, score } = expected().reranker;
    let named = |path: &str| format!(r#"{{"sentence_transformers": {{"activation_fn": "torch.nn.modules.{path}"}}}}"#);
    let old = r#"{"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}"#.to_owned();
    for (keys, wanted) in [
        (named("linear.Identity"), &logit),
        (named("activation.Sigmoid"), &score),
        (old, &logit),
        (r#"{"sentence_transformers": null, "id2label": null, "num_labels": 1}"#.to_owned(), &score),
    ] {
        let folder = configured("bert-reranker", "", &keys);
        let got = values(&run(&mut *model(folder.path()), pairs(["query", "text"], &given, true))[0]);
        assert!(difference(&got, wanted) < 1e-5, "{keys}");
    }
    let folder = configured("bert-reranker", "", &named("activation.Sigmoid"));
    let own = r#"{"activation_fn": "torch.nn.modules.linear.Identity", "model_type": "CrossEncoder"}"#;
    fs::write(folder.path().join("config_sentence_transformers.json"), own).unwrap();
    let got = values(&run(&mut *model(folder.path()), pairs(["query", "text"], &given, true))[0]);
    assert!(difference(&got, &logit) < 1e-5);
}

#[test]
fn what_a_folder_is_for_can_be_said() {
    let Expected { classifier, reranker } = expected();
    let family =
        |folder: &tempfile::TempDir| inspect(&ModelName::new("m").unwrap(), folder.path()).unwrap().spec.family;
    let mut one = model(copy("bert-reranker", "kind = \"text-classification\"").path());
    let outputs = run(&mut *one, pairs(["text", "text_pair"], &reranker.pairs, true));
    assert!(difference(&values(&outputs[2]), &reranker.score) < 1e-5);
    assert_eq!(labels(&outputs[1])[0], "LABEL_0");
    assert_eq!(family(&copy("bert-classifier", "kind = \"sentence-embedding\"")), "sentence-embedding");
    assert_eq!(family(&configured("bert-classifier", "", r#"{"architectures": ["BertModel"]}"#)), "sentence-embedding");
    assert_eq!(family(&configured("bert-classifier", "", r#"{"architectures": null}"#)), "sentence-embedding");
    // Labels without names are called as transformers calls them.
    let unnamed = configured("bert-classifier", "", r#"{"id2label": null, "num_labels": 3}"#);
    let label = labels(&run(&mut *model(unnamed.path()), request(&classifier.text[..3], true))[1]);
    assert_eq!(label, ["LABEL_0", "LABEL_1", "LABEL_2"]);
    // Saved without the encoder's prefix.
    let bare = weighed("bert-classifier", |weights| {
        *weights =
            weights.drain().map(|(name, weight)| (name.trim_start_matches("bert.").to_owned(), weight)).collect();
    });
    let logits = values(&run(&mut *model(bare.path()), request(&classifier.text, true))[0]);
    assert!(difference(&logits, classifier.logits.as_flattened()) < 1e-5);
}

#[test]
fn heads_that_do_not_fit_are_named() {
    let zeros = |shape: &[usize]| Weight::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
    let without = |name: &'static str| weighed("bert-classifier", move |weights| drop(weights.remove(name)));
    let shaped = |name: &'static str, shape: &'static [usize]| {
        weighed("bert-classifier", move |weights| drop(weights.insert(name.into(), zeros(shape))))
    };
    let keys = |keys: &str| configured("bert-classifier", "", keys);
    let activation = r#"{"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Tanh"}}"#;
    for (folder, words) in [
        (without("classifier.weight"), "tensor 'classifier.weight' is missing"),
        (without("classifier.weight"), "kind = \"sentence-embedding\""),
        (without("classifier.bias"), "tensor 'classifier.bias' is missing"),
        (without("bert.pooler.dense.weight"), "tensor 'bert.pooler.dense.weight' is missing"),
        (shaped("classifier.weight", &[3, 31]), "'classifier.weight' has shape [3, 31], it must be [3, 32]"),
        (shaped("classifier.weight", &[]), "'classifier.weight' has no labels, it must have one"),
        (shaped("classifier.bias", &[2]), "'classifier.bias' has shape [2], it must be [3]"),
        (shaped("bert.pooler.dense.bias", &[3]), "'bert.pooler.dense.bias' has shape [3], it must be [32]"),
        (shaped("classifier.weight", &[2, 32]), "the count of id2label is 3, tensor 'classifier.weight' has 2 labels"),
        (keys(r#"{"num_labels": 2}"#), "num_labels is 2, tensor 'classifier.weight' has 3 labels"),
        (keys(r#"{"id2label": {"0": "a", "1": "b", "3": "c"}}"#), "id2label has no name for label 2"),
        (keys(r#"{"id2label": {"first": "a"}}"#), "config.json"),
        (keys(r#"{"problem_type": "ranking"}"#), "problem_type 'ranking' is unknown"),
        (copy("bert-classifier", "kind = \"reranker\""), "has 3 labels, a reranker has 1"),
        (configured("bert-reranker", "", activation), "activation.Tanh' is not served, only Sigmoid and Identity"),
    ] {
        let message = refusal(&folder);
        assert!(message.contains(words), "{words:?} is not in {message:?}");
    }
}

#[test]
fn a_bad_pair_fails_alone_and_says_why() {
    let mut model = model(&data("bert-reranker"));
    let long = "the ".repeat(43);
    let of = |query: &[&[u8]], text: &[&[u8]]| ModelRequest {
        inputs: vec![texts("query", query), texts("text", text)],
        ..ModelRequest::default()
    };
    let batch = vec![
        of(&[b"where"], &[b"paris"]),
        of(&[b"where", b"who"], &[b"paris"]),
        of(&[b"where"], &[b"paris \xff"]),
        of(&[b"where", b"where is it"], &[b"paris", long.as_bytes()]),
        of(&[b"where"], &["the ".repeat(8000).as_bytes()]),
        request(&["where"], false),
        of(&[], &[]),
    ];
    let answers = model.run(batch);
    assert!(answers[0].is_ok());
    for (index, words) in [
        (1, "input 'text' has 1 rows, input 'query' has 2: they must agree"),
        (2, "element 0 of input 'text' is not UTF-8 from byte 6 on"),
        (3, "element 1 of inputs 'query' and 'text' has 49 tokens, the model takes 48"),
        (4, "element 0 of input 'text' has 32000 bytes"),
        (5, "input 'query' of model 'tiny' is missing"),
    ] {
        match &answers[index] {
            Err(error) => assert!(error.code == Code::InvalidArgument && error.message.contains(words), "{error}"),
            Ok(_) => panic!("{words:?} was expected"),
        }
    }
    assert_eq!(answers[6].as_ref().unwrap().outputs[0].shape, [0]);
}

#[test]
fn a_second_text_needs_a_second_type() {
    let folder = configured("bert-reranker", "", r#"{"type_vocab_size": 1}"#);
    let path = folder.path().join("model.safetensors");
    let mut weights = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    let name = "bert.embeddings.token_type_embeddings.weight";
    let first = weights[name].narrow(0, 0, 1).unwrap().contiguous().unwrap();
    weights.insert(name.into(), first);
    candle_core::safetensors::save(&weights, path).unwrap();
    let answers = model(folder.path()).run(vec![pairs(["query", "text"], &expected().reranker.pairs, true)]);
    let error = answers[0].as_ref().unwrap_err();
    assert!(error.code == Code::FailedPrecondition && error.message.contains("the model has 1 types"), "{error}");
}

#[test]
fn a_sample_is_answered() {
    for name in ["bert-classifier", "bert-reranker"] {
        let mut model = model(&data(name));
        let sample = model.sample(5);
        let answer = model.run(vec![sample]).remove(0).unwrap();
        assert_eq!((answer.usage_tokens, answer.outputs[0].rows()), (5 * TYPICAL_TOKENS as u64, 5), "{name}");
    }
}
