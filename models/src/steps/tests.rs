use orion_proto::Datatype;
use proptest::prelude::*;

use super::{
    tensors::{Values, int64, tensor},
    *,
};

fn step(path: &str) -> StepModel {
    let run = Run::of_path(path).unwrap();
    StepModel::of(&ModelName::new("s").unwrap(), run)
}

fn fp32(name: &str, shape: &[usize], values: &[f32]) -> Tensor {
    Values { shape: shape.to_vec(), values: values.to_vec() }.tensor(name)
}

fn run(path: &str, inputs: Vec<Tensor>) -> Result<Vec<Tensor>> {
    let mut model = step(path);
    let answer = model.run(vec![ModelRequest { inputs, ..ModelRequest::default() }]).remove(0)?;
    model.spec.check_answer(&answer.outputs, answer.outputs[0].rows())?;
    Ok(answer.outputs)
}

fn y(path: &str, shape: &[usize], values: &[f32]) -> Values {
    Values::of(&run(path, vec![fp32("x", shape, values)]).unwrap(), "y").unwrap()
}

fn whole(tensor: &Tensor) -> Vec<i64> {
    tensor.data.contiguous().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect()
}

#[test]
fn every_step_runs_its_own_sample() {
    for path in [
        "step:softmax",
        "step:sigmoid",
        "step:unit-length",
        r#"step:normalize{"mean":[1,2,3],"deviation":[1]}"#,
        r#"step:threshold{"at":0.5}"#,
        r#"step:top-k{"k":3}"#,
        r#"step:pool{"of":"mean"}"#,
        r#"step:image{"width":32,"height":16}"#,
        r#"step:nms{"overlap":0.5,"most":4}"#,
        r#"step:resample{"from":8000,"to":16000}"#,
        r#"step:chunk{"size":100,"step":50}"#,
        r#"step:log-mel{"mels":80}"#,
        &tokens("tokenize"),
        &tokens("detokenize"),
    ] {
        let mut model = step(path);
        for rows in [1, 3] {
            let sample = model.sample(rows);
            let counted = model.spec.check_inputs(&sample.inputs).unwrap();
            let answer = model.run(vec![sample]).remove(0).unwrap();
            model.spec.check_answer(&answer.outputs, counted).unwrap();
        }
    }
}

#[test]
fn rows_are_shares_lengths_and_signs() {
    let shares = y("step:softmax", &[2, 2], &[0.0, 0.0, 1000.0, f32::NEG_INFINITY]);
    assert_eq!(shares.values, [0.5, 0.5, 1.0, 0.0]);
    assert_eq!(y("step:softmax", &[1, 2], &[f32::NEG_INFINITY; 2]).values, [0.5, 0.5]);
    assert_eq!(y("step:sigmoid", &[3], &[0.0, 100.0, -100.0]).values[..2], [0.5, 1.0]);
    assert_eq!(y("step:unit-length", &[2, 2], &[3.0, 4.0, 0.0, 0.0]).values, [0.6, 0.8, 0.0, 0.0]);
    let by_channel = y(r#"step:normalize{"mean":[1,2],"deviation":[1,4]}"#, &[1, 2, 2], &[1.0, 2.0, 2.0, 10.0]);
    assert_eq!(by_channel.values, [0.0, 1.0, 0.0, 2.0]);
    let over = run(r#"step:threshold{"at":0.5}"#, vec![fp32("x", &[3], &[0.4, 0.5, f32::NAN])]).unwrap();
    assert_eq!(over[0].data.contiguous().as_ref(), [0, 1, 0]);
}

/// A step with a tokenizer whose file lies beside the tests.
fn tokens(run: &str) -> String {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/models/bert-classifier/tokenizer.json");
    format!(r#"step:{run}{{"tokenizer":"{file}"}}"#)
}

#[test]
fn texts_become_tokens_and_texts_again() {
    let texts = |rows: &[&str]| tensor("text", Datatype::Bytes, &[rows.len()], encode_bytes_elements(rows).to_vec());
    let tokens_of = run(&tokens("tokenize"), vec![texts(&["the cat", "the"])]).unwrap();
    let [ids, mask] = [0, 1].map(|at| whole(&tokens_of[at]));
    let width = tokens_of[0].shape[1] as usize;
    assert_eq!(mask[width..].iter().sum::<i64>() + 1, mask[..width].iter().sum::<i64>(), "{tokens_of:?}");
    assert!(ids[2 * width - 1] == 0 && mask[2 * width - 1] == 0 && ids[0] == ids[width]);
    let inputs = vec![tokens_of[0].clone(), tokens_of[1].clone()];
    assert_eq!(run(&tokens("detokenize"), inputs).unwrap(), [texts(&["the cat", "the"])]);
    let cut = tokens("tokenize").replace('}', ",\"most\":3}");
    assert_eq!(run(&cut, vec![texts(&["the cat the cat"])]).unwrap()[0].shape, [1, 3]);
    let wrong = int64("ids", &[1, 1], &[-1]);
    assert!(run(&tokens("detokenize"), vec![wrong]).is_err_and(|error| error.message.contains("token -1")));
    let missing = run(r#"step:tokenize{"tokenizer":"/nowhere.json"}"#, vec![texts(&["a"])]).unwrap_err();
    assert!(missing.message.contains("/nowhere.json"), "{missing}");
}

#[test]
fn sound_becomes_bands() {
    let tone: Vec<f32> = (0..1600).map(|at| (at as f32 * 0.3).sin() * 0.5).collect();
    let bands = y(r#"step:log-mel{"mels":80}"#, &[2, 1600], &[tone.clone(), vec![0.0; 1600]].concat());
    assert_eq!(bands.shape, [2, 80, 10]);
    // 764 Hz are in band 19 or 20; silence is as loud everywhere.
    let at = |band: usize| bands.values[band * 10 + 5];
    let loudest = (0..80).max_by(|one, other| at(*one).total_cmp(&at(*other))).unwrap();
    assert!((19..=20).contains(&loudest), "{loudest}");
    assert!(bands.values[800..].iter().all(|value| *value == bands.values[800]));
}

#[test]
fn the_best_boxes_stay() {
    let boxes = [0., 0., 10., 10., 1., 1., 10., 10., 20., 20., 30., 30., 0., 0., 1., 1.];
    let inputs = vec![fp32("boxes", &[1, 4, 4], &boxes), fp32("scores", &[1, 4], &[0.8, 0.9, 0.7, 0.1])];
    let indices = run(r#"step:nms{"overlap":0.5,"score":0.2,"most":3}"#, inputs).unwrap();
    assert_eq!(whole(&indices[0]), [1, 2, -1]);
}

#[test]
fn tokens_that_do_not_count_are_left_out() {
    let x = fp32("x", &[2, 2, 2], &[1., 2., 3., 4., 5., 6., 7., 8.]);
    let mask = int64("mask", &[2, 2], &[1, 0, 1, 1]);
    for (of, expected) in [("mean", [1., 2., 6., 7.]), ("max", [1., 2., 7., 8.]), ("first", [1., 2., 5., 6.])] {
        let path = format!(r#"step:pool{{"of":"{of}"}}"#);
        let pooled = run(&path, vec![x.clone(), mask.clone()]).unwrap();
        assert_eq!(Values::of(&pooled, "y").unwrap().values, expected, "{of}");
    }
    let wrong = run(r#"step:pool{"of":"mean"}"#, vec![x, int64("mask", &[1, 2], &[1, 1])]).unwrap_err();
    assert!(wrong.message.contains("'mask'"), "{wrong}");
}

#[test]
fn sound_is_cut_to_its_end() {
    let chunks = y(r#"step:chunk{"size":4,"step":3}"#, &[1, 8], &[1., 2., 3., 4., 5., 6., 7., 8.]);
    assert_eq!(chunks.shape, [3, 4]);
    assert_eq!(chunks.values, [1., 2., 3., 4., 4., 5., 6., 7., 7., 8., 0., 0.]);
    assert_eq!(y(r#"step:chunk{"size":4,"step":4}"#, &[1, 4], &[1., 2., 3., 4.]).shape, [1, 4]);
    assert_eq!(y(r#"step:chunk{"size":4,"step":4}"#, &[1, 0], &[]).shape, [1, 4]);
    // A tone keeps its place.
    let tone = |rate: f32, count: usize| -> Vec<f32> {
        (0..count).map(|at| (at as f32 * 440.0 / rate * std::f32::consts::TAU).sin()).collect()
    };
    let twice = y(r#"step:resample{"from":8000,"to":16000}"#, &[1, 8000], &tone(8000.0, 8000));
    assert_eq!(twice.shape, [1, 16_000]);
    let wanted = tone(16_000.0, 16_000);
    let worst = (2000..14_000).map(|at| (twice.values[at] - wanted[at]).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-3, "{worst}");
}

#[test]
fn an_image_has_planes_of_colour() {
    let mut file = std::io::Cursor::new(Vec::new());
    let red = ::image::RgbImage::from_pixel(4, 2, ::image::Rgb([255, 0, 51]));
    red.write_to(&mut file, ::image::ImageFormat::Png).unwrap();
    let bytes = orion_proto::encode_bytes_elements(&[file.into_inner()]).to_vec();
    let path = r#"step:image{"width":2,"height":1,"mean":[0.5,0,0],"deviation":[0.5,1,0.1]}"#;
    let planes = run(path, vec![tensor("image", Datatype::Bytes, &[1, 1], bytes)]).unwrap();
    let planes = Values::of(&planes, "y").unwrap();
    assert_eq!(planes.shape, [1, 3, 1, 2]);
    for (value, expected) in planes.values.iter().zip([1.0, 1.0, 0.0, 0.0, 2.0, 2.0]) {
        assert!((value - expected).abs() < 1e-6, "{planes:?}");
    }
    let broken = tensor("image", Datatype::Bytes, &[1], orion_proto::encode_bytes_elements(&["no image"]).to_vec());
    assert!(run(path, vec![broken]).is_err_and(|error| error.message.contains("element 0 of input 'image'")));
}

#[test]
fn what_does_not_fit_is_named() {
    let x = || vec![fp32("x", &[1, 2], &[1.0, 2.0])];
    for (path, words) in [
        (r#"step:top-k{"k":3}"#, "its last dimension must have 3 or more"),
        (r#"step:top-k{"k":1,"labels":["a"]}"#, "must be 1, as the labels"),
        (r#"step:normalize{"mean":[1,2,3],"deviation":[1]}"#, "its second dimension must be 3"),
    ] {
        let error = run(path, x()).unwrap_err();
        assert!(error.message.contains(words), "{path}: {error}");
    }
}

proptest! {
    #[test]
    fn the_greatest_are_those_of_a_sort(rows in proptest::collection::vec(proptest::collection::vec(-5i8..5, 7), 0..4), k in 1usize..8) {
        let values: Vec<f32> = rows.iter().flatten().map(|value| f32::from(*value)).collect();
        let outputs = run(&format!(r#"step:top-k{{"k":{k},"labels":["a","b","c","d","e","f","g"]}}"#), vec![fp32("x", &[rows.len(), 7], &values)]).unwrap();
        let mut expected = Vec::new();
        for row in &rows {
            let mut order: Vec<usize> = (0..7).collect();
            order.sort_by_key(|at| (-row[*at], *at));
            expected.extend(order[..k].iter().map(|at| *at as i64));
        }
        prop_assert_eq!(whole(&outputs[1]), expected);
        prop_assert_eq!(&outputs[2].shape, &vec![rows.len() as i64, k as i64]);
    }
}
