//! The family as it is served: declarations, rows and batches.

use orion_proto::{Code, Datatype, ModelName, Payload, Tensor as Sent};

use super::{
    super::source::{Rows, Source},
    *,
};
use crate::{Loaded, Model, ModelRequest, inspect, load};

/// A served graph in a folder of its own.
fn served(graph: GraphProto) -> (tempfile::TempDir, Result<Box<dyn Model>, orion_proto::Error>) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.onnx"), model(graph)).unwrap();
    let loaded = inspect(&ModelName::new("m").unwrap(), folder.path())
        .and_then(|manifest| load(&manifest, &|_| {}))
        .and_then(Loaded::model);
    (folder, loaded)
}

fn fp32(name: &str, shape: &[i64], values: &[f32]) -> Sent {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Sent::new(name, Datatype::Fp32, shape.to_vec(), Payload::from(data)).unwrap()
}

fn request(inputs: Vec<Sent>) -> ModelRequest {
    ModelRequest { inputs, ..ModelRequest::default() }
}

fn values(tensor: &Sent) -> Vec<f32> {
    tensor.data.contiguous().chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}

/// Rows of any width plus a weight of one row, gathered by a second input.
fn picking() -> GraphProto {
    GraphProto {
        node: vec![with(node("GatherElements", &["x", "i"], &["p"]), int("axis", 1)), node("Add", &["p", "w"], &["y"])],
        input: vec![value("x", 1, &[0, 0]), value("i", 7, &[0, 1])],
        output: vec![value("y", 1, &[0, 1])],
        initializer: vec![weight("w", &[1], &[10.0])],
        ..Default::default()
    }
}

fn picked(values: &[f32], positions: &[i64]) -> ModelRequest {
    let rows = positions.len() as i64;
    let data: Vec<u8> = positions.iter().flat_map(|position| position.to_le_bytes()).collect();
    let positions = Sent::new("i", Datatype::Int64, vec![rows, 1], Payload::from(data)).unwrap();
    request(vec![positions, fp32("x", &[rows, values.len() as i64 / rows.max(1)], values)])
}

#[test]
fn requests_of_one_shape_run_together_and_a_bad_one_fails_alone() {
    let (_folder, loaded) = served(picking());
    let mut loaded = loaded.unwrap();
    let spec = loaded.spec().clone();
    assert_eq!((spec.family.as_str(), spec.max_batch_rows), ("onnx", 32));
    assert_eq!(spec.inputs[0].shape, [-1, -1]);
    assert_eq!((spec.outputs[0].shape.as_slice(), spec.outputs[0].datatype), (&[-1, 1][..], Datatype::Fp32));
    let many: Vec<f32> = (0..80).map(|value| value as f32).collect();
    let answers = loaded.run(vec![
        picked(&[1.0, 2.0, 3.0, 4.0], &[1, 0]),
        picked(&[5.0, 6.0, 7.0], &[2]),
        picked(&[1.0, 2.0], &[9]),
        picked(&[7.0, 8.0], &[-1]),
        request(vec![fp32("x", &[1, 1], &[1.0])]),
        picked(&many, &[1; 40]),
        picked(&[], &[]),
    ]);
    let outputs: Vec<_> =
        answers.iter().map(|answer| answer.as_ref().map(|answer| values(&answer.outputs[0]))).collect();
    assert_eq!(outputs[0], Ok(vec![12.0, 13.0]));
    assert_eq!(outputs[1], Ok(vec![17.0]));
    let refused = outputs[2].as_ref().unwrap_err();
    assert!(refused.code == Code::InvalidArgument && refused.message.contains("position 9 is outside"), "{refused}");
    assert_eq!(outputs[3], Ok(vec![18.0]));
    assert!(outputs[4].as_ref().is_err_and(|error| error.message.contains("input 'i' of model 'm' is missing")));
    // More rows than a batch holds.
    assert_eq!(outputs[5], Ok((0..40).map(|row| 2.0 * row as f32 + 11.0).collect()));
    assert_eq!(outputs[6], Ok(vec![]));
    assert_eq!(answers[6].as_ref().unwrap().outputs[0].shape, [0, 1]);
    assert_eq!(loaded.run(vec![loaded.sample(3)])[0].as_ref().unwrap().outputs[0].shape, [3, 1]);
}

#[test]
fn a_leading_dimension_of_one_is_one_row_at_a_time() {
    let graph = GraphProto {
        node: vec![with(node("Softmax", &["x"], &["y"]), int("axis", 0)), node("Relu", &["x"], &["r"])],
        input: vec![value("x", 1, &[1, 2])],
        output: vec![value("y", 1, &[1, 2]), value("r", 1, &[])],
        ..Default::default()
    };
    let (_folder, loaded) = served(graph);
    let mut loaded = loaded.unwrap();
    assert_eq!(loaded.spec().outputs[1].shape, [-1, -1]);
    let answers = loaded.run(vec![request(vec![fp32("x", &[3, 2], &[1.0, -2.0, 3.0, 4.0, 5.0, 6.0])])]);
    let answer = answers[0].as_ref().unwrap();
    // Over two rows at once the softmax of a column would not be one.
    assert_eq!(values(&answer.outputs[0]), [1.0; 6]);
    assert_eq!(values(&answer.outputs[1]), [1.0, 0.0, 3.0, 4.0, 5.0, 6.0]);
}

#[test]
fn a_graph_without_rows_takes_each_request_as_it_is() {
    let graph = GraphProto {
        node: vec![
            node("Mul", &["x", "s"], &["m"]),
            with(with(node("Concat", &["m", "state"], &["c"]), int("axis", 0)), int("unused", 1)),
            with(node("ReduceSum", &["m", "axes"], &["y"]), int("keepdims", 0)),
        ],
        input: vec![value("x", 1, &[0, 2]), value("state", 1, &[2, 2]), value("s", 1, &[])],
        output: vec![value("y", 1, &[2]), value("c", 1, &[0, 2])],
        initializer: vec![numbers("axes", &[0])],
        ..Default::default()
    };
    let (_folder, loaded) = served(graph);
    let mut loaded = loaded.unwrap();
    let spec = loaded.spec().clone();
    assert!(!spec.has_rows() && spec.max_batch_rows == 1);
    assert_eq!(spec.inputs[2].shape, [1]);
    let inputs = |rows: i64, scale: f32| {
        let x: Vec<f32> = (0..2 * rows).map(|value| value as f32).collect();
        request(vec![fp32("x", &[rows, 2], &x), fp32("s", &[1], &[scale]), fp32("state", &[2, 2], &[9.0; 4])])
    };
    let answers = loaded.run(vec![inputs(3, 2.0), inputs(1, -1.0), inputs(2, 1.0)]);
    let first = answers[0].as_ref().unwrap();
    assert_eq!((values(&first.outputs[0]), first.outputs[1].shape.as_slice()), (vec![12.0, 18.0], &[5, 2][..]));
    assert_eq!(values(&answers[1].as_ref().unwrap().outputs[0]), [0.0, -1.0]);
    spec.check_answer(&first.outputs, 1).unwrap();
}

#[test]
fn what_is_known_of_a_file_before_it_is_loaded() {
    let size = 64i64;
    let kernel = vec![0.5; (size * size * 9) as usize];
    let graph = GraphProto {
        node: vec![with(node("Conv", &["x", "w"], &["c"]), ints("pads", &[1, 1, 1, 1])), node("Relu", &["c"], &["y"])],
        input: vec![value("x", 1, &[0, size, 32, 32])],
        output: vec![value("y", 1, &[0, 0, 0, 0])],
        initializer: vec![weight("w", &[size, size, 3, 3], &kernel)],
        ..Default::default()
    };
    let read = super::graph(model(graph)).unwrap();
    let of = |precision, rows| Source::of(&read, Path::new("m.onnx"), 7, precision, rows).unwrap();
    let source = of(Precision::F32, 8);
    assert_eq!(source.rows, Rows::Together);
    assert_eq!(source.outputs[0].shape, [-1, -1, -1, -1]);
    let (weights, plane) = (64 * 64 * 9 * 4, 64 * 32 * 32 * 4);
    assert_eq!(source.flops, 2.0 * (64 * 64 * 9 * 32 * 32) as f64 + (64 * 32 * 32) as f64);
    let spec = |source: &Source, rows| source.spec(&ModelName::new("m").unwrap(), "1".into(), rows).memory_bytes;
    // Input and output at one time, and as much again as two of them for what the library needs.
    assert_eq!(spec(&source, 8), weights + 8 * plane * 4);
    assert_eq!(spec(&of(Precision::F16, 1), 1), (weights + plane * 4) / 2);
}

#[test]
fn graphs_that_cannot_be_served_are_refused_by_name() {
    let refusal = |graph: GraphProto| served(graph).1.err().map(|error| error.message).unwrap_or_default();
    let mut nothing = picking();
    nothing.input.clear();
    assert!(refusal(nothing).contains("its input 'x' is not computed before it"));
    let wrong = GraphProto {
        node: vec![node("MatMul", &["x", "w"], &["y"])],
        input: vec![value("x", 1, &[1, 3])],
        output: vec![value("y", 1, &[1, 2])],
        initializer: vec![weight("w", &[2, 2], &[0.0; 4])],
        ..Default::default()
    };
    let message = refusal(wrong);
    assert!(message.contains("model.onnx") && message.contains("[1, 3] and [2, 2] have no product"), "{message}");
    let doubled = GraphProto {
        node: vec![with(node("Concat", &["x", "x"], &["y"]), int("axis", 0))],
        input: vec![value("x", 1, &[0, 3])],
        output: vec![value("y", 1, &[0, 3])],
        ..Default::default()
    };
    assert!(refusal(doubled).contains("output 'y' has 4 rows for 2 and 6 for 3"));
}

#[test]
fn half_precision_computes_in_it_and_answers_in_the_declared_type() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("net.onnx"), model(picking())).unwrap();
    for precision in ["f16", "bf16"] {
        std::fs::write(folder.path().join("orion.toml"), format!("precision = \"{precision}\"")).unwrap();
        let manifest = inspect(&ModelName::new("m").unwrap(), folder.path()).unwrap();
        let mut loaded = load(&manifest, &|_| {}).unwrap().model().unwrap();
        let answer = loaded.run(vec![picked(&[1.0001, 2.0], &[0])]).remove(0).unwrap();
        assert_eq!((answer.outputs[0].datatype, values(&answer.outputs[0])), (Datatype::Fp32, vec![11.0]));
    }
}

#[test]
fn pieces_that_differ_in_more_than_their_rows_are_told() {
    let of = |shapes: &[&[usize]]| -> Vec<Vec<candle_core::Tensor>> {
        let zeros = |dims: &&[usize]| candle_core::Tensor::zeros(*dims, candle_core::DType::F32, &Device::Cpu);
        shapes.iter().map(|dims| vec![zeros(dims).unwrap()]).collect()
    };
    for (shapes, rows, apart) in [
        (&[&[2, 3][..], &[2, 3]][..], 4, true),
        (&[&[2, 3], &[1, 3]], 3, true),
        (&[&[2, 3], &[2, 4]], 4, false),
        (&[&[1, 3], &[1, 3]], 4, false),
        (&[&[], &[]], 4, false),
    ] {
        assert_eq!(super::super::keeps_rows_apart(&of(shapes), rows, 2), apart, "{shapes:?}");
    }
}

#[test]
fn random_numbers_are_other_ones_each_time_unless_there_is_a_seed() {
    let float = |name: &str, value: f32| AttributeProto {
        name: name.into(),
        r#type: Kind::Float.into(),
        f: value,
        ..Default::default()
    };
    let drawn = |operator: &str, attributes: Vec<AttributeProto>| {
        let mut made = with(node(operator, &[], &["r"]), ints("shape", &[1, 4000]));
        made.attribute.extend(attributes);
        let graph = GraphProto {
            node: vec![made, node("Add", &["x", "r"], &["y"])],
            input: vec![value("x", 1, &[0, 1])],
            output: vec![value("y", 1, &[0, 4000])],
            ..Default::default()
        };
        let (_folder, loaded) = served(graph);
        let mut loaded = loaded.unwrap();
        [0, 1].map(|_| {
            let mut answers = loaded.run(vec![request(vec![fp32("x", &[1, 1], &[0.0])])]);
            values(&answers.remove(0).unwrap().outputs[0])
        })
    };
    let mean = |values: &[f32]| values.iter().sum::<f32>() / values.len() as f32;
    let deviation = |values: &[f32]| {
        let mean = mean(values);
        (values.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / values.len() as f32).sqrt()
    };
    let [one, other] = drawn("RandomUniform", vec![float("low", 2.0), float("high", 6.0)]);
    assert!(one != other && one.iter().all(|value| (2.0..6.0).contains(value)));
    assert!((mean(&one) - 4.0).abs() < 0.2 && (deviation(&one) - 1.155).abs() < 0.1, "{}", mean(&one));
    let [one, other] = drawn("RandomNormal", vec![float("mean", 3.0), float("scale", 0.5), float("seed", 7.0)]);
    assert_eq!(one, other);
    assert!((mean(&one) - 3.0).abs() < 0.05 && (deviation(&one) - 0.5).abs() < 0.05, "{}", mean(&one));
}
