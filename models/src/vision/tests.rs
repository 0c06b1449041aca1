use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

use orion_proto::{Code, Error, ModelName, Payload, encode_bytes_elements};

use super::{architecture::Architecture, *};
use crate::{convnet::made, inspect, load};

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data").join(path)
}

fn photo(name: &str) -> Vec<u8> {
    fs::read(data("images").join(name)).unwrap()
}

fn model(folder: &Path) -> Box<dyn Model> {
    load(&inspect(&ModelName::new("tiny").unwrap(), folder).unwrap(), &|_| {}).unwrap().model().unwrap()
}

fn request(files: &[&[u8]]) -> ModelRequest {
    let data = Payload::from(encode_bytes_elements(files));
    let tensor = Tensor::new("image", Datatype::Bytes, vec![files.len() as i64], data).unwrap();
    ModelRequest { inputs: vec![tensor], ..ModelRequest::default() }
}

fn logits(answer: &Result<InferAnswer>) -> Vec<f32> {
    let bytes = answer.as_ref().unwrap().outputs[0].data.contiguous();
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}

fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    // max() would drop a NaN.
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, |most, d| if d > most || d.is_nan() { d } else { most })
}

/// A copy of a small ResNet whose files may be changed.
fn copy(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(data("models").join(name)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    folder
}

/// The same with one text of a file replaced.
fn changed(file: &str, from: &str, to: &str) -> tempfile::TempDir {
    let folder = copy("resnet-basic");
    let text = fs::read_to_string(folder.path().join(file)).unwrap();
    assert!(text.contains(from), "{file} holds {from}");
    fs::write(folder.path().join(file), text.replace(from, to)).unwrap();
    folder
}

#[test]
fn hugging_face_s_resnets_give_what_its_library_gives() {
    type Expected = BTreeMap<String, BTreeMap<String, Vec<f32>>>;
    let expected: Expected = serde_json::from_str(include_str!("../../../tests/data/expected/resnet.json")).unwrap();
    assert_eq!(expected.len(), 3);
    for (name, photos) in expected {
        let mut model = model(&data("models").join(format!("resnet-{name}")));
        for (file, wanted) in photos {
            let answer = &model.run(vec![request(&[&photo(&file)])])[0];
            let got = difference(&logits(answer), &wanted);
            // JPEG decoders differ by a step or two of 255.
            let most = if file.ends_with("png") { 2e-4 } else { 2e-2 };
            assert!(got < most, "{name} {file}: {got:e}");
        }
    }
}

#[test]
fn torchvision_s_variants_have_its_tensors() {
    type Expected = BTreeMap<String, HashMap<String, Vec<usize>>>;
    let text = include_str!("../../../tests/data/expected/torchvision-resnet.json");
    for (variant, wanted) in serde_json::from_str::<Expected>(text).unwrap() {
        let folder = tempfile::tempdir().unwrap();
        let config = format!(r#"{{"model_type": "resnet", "variant": "{variant}"}}"#);
        fs::write(folder.path().join("config.json"), config).unwrap();
        let config = architecture::Config::read(folder.path()).unwrap();
        let found = Architecture::of(folder.path(), &config).unwrap();
        let found: HashMap<_, _> = found.network.tensors().into_iter().chain(found.head(1000)).collect();
        assert_eq!(found, wanted, "{variant}");
    }
}

#[test]
fn rows_do_not_depend_on_their_batch() {
    let mut model = model(&data("models/resnet-bottleneck"));
    let files = ["flower.jpg", "chelsea.png", "china.jpg", "flower.jpg", "chelsea.png"].map(photo);
    let rows: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
    let together = logits(&model.run(vec![request(&rows)])[0]);
    let alone: Vec<f32> = rows.iter().flat_map(|row| logits(&model.run(vec![request(&[row])])[0])).collect();
    assert_eq!(together, alone);
}

#[test]
fn a_bad_request_fails_alone_and_says_why() {
    let mut model = model(&data("models/resnet-basic"));
    let (flower, cat) = (photo("flower.jpg"), photo("chelsea.png"));
    let batch = vec![
        request(&[&flower]),
        request(&[&cat, &flower[..5000]]),
        request(&[&cat]),
        request(&[]),
        ModelRequest::default(),
        request(&[&cat, &flower]),
    ];
    batch[2].given_up.set();
    let answers = model.run(batch);
    let error = |index: usize| -> &Error { answers[index].as_ref().unwrap_err() };
    assert!(error(1).code == Code::InvalidArgument, "{}", error(1));
    assert!(error(1).message.contains("element 1 of input 'image': it is a JPEG file that ends"), "{}", error(1));
    assert_eq!(error(2).code, Code::Cancelled);
    assert!(error(4).message.contains("input 'image' of model 'tiny' is missing"), "{}", error(4));
    assert_eq!(answers[3].as_ref().unwrap().outputs[0].shape, [0, 5]);
    assert_eq!(logits(&answers[5])[5..], logits(&answers[0]));

    let outputs = &answers[5].as_ref().unwrap().outputs;
    let described: Vec<(&str, &[i64])> = outputs.iter().map(|o| (o.name.as_str(), o.shape.as_slice())).collect();
    assert_eq!(described, [("logits", &[2, 5][..]), ("class", &[2]), ("label", &[2])]);
    let class = outputs[1].data.contiguous();
    for (row, logits) in logits(&answers[5]).chunks_exact(5).enumerate() {
        let best = i32::from_le_bytes(class[4 * row..][..4].try_into().unwrap());
        assert!(logits.iter().all(|value| *value <= logits[best as usize]));
        let labels = orion_proto::bytes_elements("label", &outputs[2].data.contiguous(), 2).unwrap();
        assert_eq!(labels[row], format!("kind {best}"));
    }
}

#[test]
fn a_sample_has_its_rows_and_is_answered() {
    let mut model = model(&data("models/resnet-downsampling"));
    let sample = model.sample(3);
    assert_eq!(model.run(vec![sample])[0].as_ref().unwrap().outputs[0].shape, [3, 5]);
    assert!(model.spec().memory_bytes > 100_000 && model.spec().outputs[0].shape == [-1, 5]);
}

#[test]
fn half_precision_weights_are_widened() {
    let folder = copy("resnet-bottleneck");
    let path = folder.path().join("model.safetensors");
    let tensors = candle_core::safetensors::load(&path, &candle_core::Device::Cpu).unwrap();
    let halved = tensors.into_iter().map(|(name, tensor)| (name, tensor.to_dtype(candle_core::DType::F16).unwrap()));
    candle_core::safetensors::save(&halved.collect::<HashMap<_, _>>(), &path).unwrap();
    let cat = photo("chelsea.png");
    let run = |folder: &Path| {
        let mut model = model(folder);
        (logits(&model.run(vec![request(&[&cat])])[0]), model.spec().memory_bytes)
    };
    let (half, taken) = run(folder.path());
    let (whole, _) = run(&data("models/resnet-bottleneck"));
    let got = difference(&half, &whole);
    assert!(got > 0.0 && got < 0.02, "{got:e}");
    // Held in half precision they compute the same, and take less memory.
    for (precision, least, most) in [("f16", 0.0, 5e-3), ("bf16", 1e-3, 0.1)] {
        fs::write(folder.path().join("orion.toml"), format!("precision = \"{precision}\"")).unwrap();
        let (held, less) = run(folder.path());
        let got = difference(&held, &half);
        assert!(got > least && got < most, "{precision}: {got:e}");
        assert!(less < taken, "{precision}: {less} of {taken} bytes");
    }
}

#[test]
fn labels_txt_goes_before_the_configuration() {
    let folder = copy("resnet-basic");
    fs::write(folder.path().join("labels.txt"), "a\nb\nc\nd\ne\n").unwrap();
    let answer = model(folder.path()).run(vec![request(&[&photo("chelsea.png")])]).remove(0).unwrap();
    let label = answer.outputs[2].data.contiguous();
    assert!((b'a'..=b'e').contains(&label[4]) && label.len() == 5);
    fs::write(folder.path().join("labels.txt"), "a\nb\n").unwrap();
    let refused = inspect(&ModelName::new("m").unwrap(), folder.path()).unwrap_err();
    assert!(refused.message.contains("labels.txt has 2 lines, the model has 5 classes"), "{refused}");
}

#[test]
fn a_folder_that_would_compute_wrongly_is_refused_by_name() {
    let config = |from: &str, to: &str| changed("config.json", from, to);
    let lite = |variant: &str| {
        let folder = copy("resnet-basic");
        let text = format!(r#"{{"model_type": "efficientnet-lite", "variant": "{variant}"}}"#);
        fs::write(folder.path().join("config.json"), text).unwrap();
        folder
    };
    let cut = copy("resnet-basic");
    fs::write(cut.path().join("model.safetensors"), &fs::read(cut.path().join("model.safetensors")).unwrap()[..90_000])
        .unwrap();
    let empty = copy("resnet-basic");
    fs::remove_file(empty.path().join("model.safetensors")).unwrap();
    let none = changed("config.json", "id2label", "names");
    let shapes = [("classifier.1.weight", vec![0, 32]), ("classifier.1.bias", vec![0])];
    made::add(none.path(), &shapes);
    for (folder, words) in [
        (config("\"embedding_size\": 8", "\"embedding_size\": 12"), "shape [8, 3, 7, 7], it must be [12, 3, 7, 7]"),
        (config("\"embedding_size\": 8", "\"embedding_size\": 99999996"), "a layer has 99999996 channels"),
        (config("\"embedding_size\": 8", "\"embedding_size\": -1"), "config.json"),
        (config("\"hidden_act\": \"relu\"", "\"hidden_act\": \"gelu\""), "hidden_act 'gelu' is not served yet"),
        (config("\"num_channels\": 3", "\"num_channels\": 1"), "num_channels is 1, only 3"),
        (config("    2,\n    1\n", "    2\n"), "depths has 1 stages and hidden_sizes 2"),
        (config("    2,\n    1\n", "    2,\n    2\n"), "tensor 'resnet.encoder.stages.1.layers.1"),
        (config("    2,\n    1\n", "    2,\n    0\n"), "each must be 1 to 256"),
        (config("\"num_channels\"", "\"num_classes\": 7, \"num_channels\""), "num_classes is 7, the checkpoint has 5"),
        (config("\"4\": \"kind 4\"", "\"3\": \"kind 4\""), "count of id2label is 4, the checkpoint has 5"),
        (config("basic", "deep"), "config.json"),
        (config("\"num_channels\"", "\"variant\": \"resnet152\", \"num_channels\""), "known are: resnet18"),
        (lite("lite9"), "variant 'lite9' is unknown, known are: lite0, lite1"),
        (lite("lite0"), "tensor '_conv_stem.weight' is missing"),
        (changed("preprocessor_config.json", "\"resample\": 3", "\"resample\": 5"), "resample 5 is not served"),
        (changed("preprocessor_config.json", "\"resample\": 3", "\"resample\": {}"), "preprocessor_config.json"),
        (changed("preprocessor_config.json", "\"shortest_edge\": 56", "\"shortest_edge\": 0"), "a side of 0 pixels"),
        (cut, "model.safetensors is not a whole safetensors file"),
        (empty, "has no *.safetensors"),
        (none, "has no classes, it must have one"),
    ] {
        let refused = inspect(&ModelName::new("m").unwrap(), folder.path()).unwrap_err();
        assert!(refused.code == Code::FailedPrecondition && refused.message.contains(words), "{words}: {refused}");
    }
}
