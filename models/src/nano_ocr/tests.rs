use std::{fs, path::Path};

use orion_proto::{Code, ModelName, Payload, bytes_elements, encode_bytes_elements};

use super::{source::tensors, *};
use crate::{Precision, convnet::made, inspect, load};

const CONFIG: &str = r#"{"model_type": "crnn-ocr", "characters": "abc"}"#;

/// A folder of made weights that reads three characters.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), CONFIG).unwrap();
    made::write(folder.path(), &tensors(&network::network().unwrap(), 4));
    folder
}

fn model(folder: &Path) -> Box<dyn Model> {
    load(&inspect(&ModelName::new("tiny").unwrap(), folder).unwrap(), &|_| {}).unwrap().model().unwrap()
}

fn request(files: &[&[u8]]) -> ModelRequest {
    let data = Payload::from(encode_bytes_elements(files));
    let tensor = Tensor::new("image", Datatype::Bytes, vec![files.len() as i64], data).unwrap();
    ModelRequest { inputs: vec![tensor], ..ModelRequest::default() }
}

fn texts(answer: &Result<InferAnswer>) -> Vec<Vec<u8>> {
    let output = &answer.as_ref().unwrap().outputs[0];
    let elements = bytes_elements(&output.name, &output.data.contiguous(), output.rows()).unwrap();
    elements.iter().map(|element| element.to_vec()).collect()
}

/// Photographs of several sizes.
fn photos() -> Vec<Vec<u8>> {
    (0..7).map(|index| sample_photo(40 + 30 * index, 90 - 9 * index).unwrap()).collect()
}

fn reader(folder: &Path, precision: Precision) -> Reader {
    let source = Source::inspect(folder, precision).unwrap();
    let spec = source.spec(&ModelName::new("tiny").unwrap(), "1".into(), 32);
    Reader::load(spec, &source, &|_| {}).unwrap()
}

fn scores(reader: &Reader, files: &[&[u8]]) -> Vec<Vec<f32>> {
    let batch = [request(files)];
    reader.scores(&Rows::of(&reader.spec, &batch).all()).into_iter().map(std::result::Result::unwrap).collect()
}

#[test]
fn rows_do_not_depend_on_their_batch() {
    let folder = folder();
    let reader = reader(folder.path(), Precision::F32);
    let scores = |files: &[&[u8]]| scores(&reader, files);
    let files = photos();
    let rows: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
    let alone: Vec<Vec<f32>> = rows.iter().flat_map(|row| scores(&[row])).collect();
    assert!(alone.windows(2).all(|pair| pair[0] != pair[1] && pair[0].len() == 33 * 4));
    assert_eq!(scores(&rows), alone);
}

#[test]
fn half_precision_reads_nearly_the_same_in_less_memory() {
    let (folder, file) = (folder(), sample_photo(100, 30).unwrap());
    let [whole, half, brief] =
        [Precision::F32, Precision::F16, Precision::Bf16].map(|precision| reader(folder.path(), precision));
    let of_whole = scores(&whole, &[&file]).concat();
    for (reader, most) in [(&half, 2e-3), (&brief, 2e-2)] {
        let pairs = scores(reader, &[&file]).concat().into_iter().zip(of_whole.clone());
        let difference = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(difference > 0.0 && difference < most, "{difference:e}");
        assert!(reader.spec.memory_bytes + 9_000_000 < whole.spec.memory_bytes);
    }
}

#[test]
fn a_bad_request_fails_alone_and_says_why() {
    let folder = folder();
    fs::write(folder.path().join("orion.toml"), "[batching]\nmax_rows = 4").unwrap();
    let mut model = model(folder.path());
    let files = photos();
    let rows: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
    let gone = request(&rows[..1]);
    gone.given_up.set();
    let answers =
        model.run(vec![request(&rows[..2]), request(&[rows[0], b"no image"]), gone, request(&rows), request(&[])]);
    let error = answers[1].as_ref().unwrap_err();
    assert!(error.code == Code::InvalidArgument && error.message.contains("element 1 of input 'image'"), "{error}");
    assert_eq!(answers[2].as_ref().unwrap_err().code, Code::Cancelled);
    let counts = [0, 3, 4].map(|index: usize| texts(&answers[index]).len());
    assert_eq!(counts, [2, 7, 0]);
}

#[test]
fn a_sample_has_its_rows_and_is_answered() {
    let folder = folder();
    let mut model = model(folder.path());
    let sample = model.sample(3);
    assert_eq!(texts(&model.run(vec![sample])[0]).len(), 3);
    // 4.8 million weights of 4 bytes, and what is computed from them.
    assert!((19_000_000..40_000_000).contains(&model.spec().memory_bytes), "{}", model.spec().memory_bytes);
}

#[test]
fn a_folder_that_does_not_fit_is_refused_by_name() {
    let folder = folder();
    let refused = |config: &str| {
        fs::write(folder.path().join("config.json"), config).unwrap();
        inspect(&ModelName::new("m").unwrap(), folder.path()).unwrap_err()
    };
    for (config, words) in [
        (r#"{"model_type": "crnn-ocr"}"#, "tensor 'fc.weight' has shape [4, 512], it must be [66, 512]"),
        (r#"{"model_type": "crnn-ocr", "characters": "ab"}"#, "it must be [3, 512]"),
        (r#"{"model_type": "crnn-ocr", "characters": 7}"#, "config.json: invalid type"),
        (r#"{"model_type": "crnn-ocr", "characters": "abc", "blank": 3}"#, "blank is 3, only 0 is served"),
        (r#"{"model_type": "crnn-ocr", "characters": "abc", "image_width": 256}"#, "image_width is 256, only 128 is"),
        (
            r#"{"model_type": "crnn-ocr", "characters": "abc", "hidden_size": 512}"#,
            "hidden_size is 512, only 256 is served",
        ),
    ] {
        let error = refused(config);
        assert!(error.code == Code::FailedPrecondition && error.message.contains(words), "{words}: {error}");
    }
    made::add(folder.path(), &[("rnn.weight_hh_l0_reverse", vec![1024, 255])]);
    let words = "tensor 'rnn.weight_hh_l0_reverse' has shape [1024, 255], it must be [1024, 256]";
    assert!(refused(CONFIG).message.contains(words));
}
