//! Files that lie, and files that were broken: an error, no panic, no memory beyond what they hold.

use candle_core::{DType, Tensor};
use orion_proto::Code;
use proptest::prelude::*;

use super::{
    super::{
        decoded_bytes::decoded_bytes,
        element::Element,
        schema::{StringStringEntryProto, attribute_proto::Kind, tensor_proto::Location},
        source::Source,
    },
    operators::cases,
    *,
};

/// A graph that adds a weight to its input.
fn adding(weight: TensorProto) -> GraphProto {
    GraphProto {
        node: vec![node("Add", &["x", "w"], &["y"])],
        input: vec![value("x", 1, &[0, 2])],
        output: vec![value("y", 1, &[0, 2])],
        initializer: vec![weight],
        ..Default::default()
    }
}

fn problem(graph: GraphProto) -> String {
    super::graph(model(graph)).err().unwrap_or_default()
}

#[test]
fn lies_about_weights_are_named() {
    assert_eq!(problem(adding(weight("w", &[2], &[1.0, 2.0]))), "");
    for (dims, words) in [
        (&[3][..], "tensor 'w': its shape [3] takes 12 bytes, the file holds 8"),
        (&[1 << 40, 1 << 40], "is larger than can be"),
        (&[1 << 62], "is larger than can be"),
        (&[-1], "negative dimension"),
        (&[1; 65], "is larger than can be"),
    ] {
        assert!(problem(adding(weight("w", dims, &[1.0, 2.0]))).contains(words), "{dims:?}");
    }
    let int8 = TensorProto { data_type: 3, raw_data: vec![1, 2].into(), ..weight("w", &[2], &[]) };
    assert!(problem(adding(int8)).contains("element type int8 is not served"));
    let raw = TensorProto { raw_data: vec![0; 7].into(), ..weight("w", &[2], &[]) };
    assert!(problem(adding(raw)).contains("takes 8 bytes, the file holds 7"));
}

#[test]
fn weights_in_other_files_must_lie_in_the_folder_and_be_whole() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("w.bin"),
        [0u8; 4].iter().chain(&1.5f32.to_le_bytes()).chain(&[0; 4]).copied().collect::<Vec<_>>(),
    )
    .unwrap();
    let external = |location: &str, offset: &str| {
        let entry = |key: &str, value: &str| StringStringEntryProto { key: key.into(), value: value.into() };
        let external_data = vec![entry("location", location), entry("offset", offset)];
        let data_location = Location::External.into();
        let tensor = TensorProto { external_data, data_location, ..weight("w", &[2], &[]) };
        let file = OnnxFile::decode(model(adding(tensor))).unwrap();
        Graph::read(&file.model, folder.path())
    };
    let graph = external("w.bin", "4").unwrap();
    let read = Evaluator::load(graph, &Device::Cpu, Precision::F32, LIMITS, &|_| {}).unwrap();
    let x = Tensor::zeros((1, 2), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(read.run(vec![x]).unwrap()[0].to_vec2::<f32>().unwrap(), [[1.5, 0.0]]);
    for (location, offset, words) in [
        ("w.bin", "5", "lies at 5 with 8 bytes in w.bin, which has 12 bytes"),
        ("w.bin", "18446744073709551615", "which has 12 bytes"),
        ("w.bin", "-1", "must be a number"),
        ("../w.bin", "0", "must lie in the model's folder"),
        ("/etc/passwd", "0", "must lie in the model's folder"),
        ("none.bin", "0", "cannot read"),
    ] {
        let error = external(location, offset).err().unwrap_or_default();
        assert!(error.contains(words), "{location} {offset}: {error}");
    }
}

#[test]
fn everything_unknown_is_named_at_once() {
    let mut graph = adding(weight("w", &[2], &[1.0, 2.0]));
    let mut foreign = node("TreeEnsemble", &["a"], &["b"]);
    foreign.domain = "ai.onnx.ml".into();
    let body =
        GraphProto { node: vec![node("Zzz", &["x"], &["z"])], output: vec![value("z", 1, &[])], ..Default::default() };
    let branch =
        AttributeProto { name: "then_branch".into(), r#type: Kind::Graph.into(), g: Some(body), ..Default::default() };
    graph.node.extend([
        node("Bogus", &["y"], &["a"]),
        foreign,
        node("Bogus", &["b"], &["c"]),
        with(node("If", &["c"], &["d"]), branch),
    ]);
    assert_eq!(problem(graph), "these operators are not served: Bogus, Zzz, ai.onnx.ml.TreeEnsemble");
}

#[test]
fn names_that_do_not_meet_are_told() {
    let mut graph = adding(weight("w", &[2], &[1.0, 2.0]));
    graph.node[0].input[1] = "v".into();
    assert_eq!(problem(graph), "node 0 (Add): its input 'v' is not computed before it");
    let mut graph = adding(weight("w", &[2], &[1.0, 2.0]));
    graph.node[0].output[0] = "x".into();
    assert_eq!(problem(graph), "node 0 (Add): 'x' is defined twice");
    let mut graph = adding(weight("w", &[2], &[1.0, 2.0]));
    graph.node[0].input.pop();
    assert_eq!(problem(graph), "node 0 (Add): it needs 2 inputs, 1 are given");
    let mut graph = adding(weight("w", &[2], &[1.0, 2.0]));
    graph.output[0].name = "q".into();
    assert_eq!(problem(graph), "output 'q' is not computed");
}

/// A graph whose shape comes from numbers in the file.
fn growing(operator: &str, by: &[i64]) -> Result<Vec<Tensor>, orion_proto::Error> {
    let graph = GraphProto {
        node: vec![node(operator, &["x", "n"], &["y"])],
        input: vec![value("x", 1, &[0, 1])],
        output: vec![value("y", 1, &[0, 0])],
        initializer: vec![numbers("n", by)],
        ..Default::default()
    };
    let read = evaluator(model(graph), Precision::F32).unwrap();
    read.run(vec![Tensor::zeros((1, 1), DType::F32, &Device::Cpu).unwrap()])
}

#[test]
fn tensors_that_would_be_too_large_are_refused_before_they_are_made() {
    for (operator, by) in
        [("Expand", &[1 << 20, 1 << 20][..]), ("Tile", &[1 << 31, 1 << 31]), ("Pad", &[0, 0, 1 << 39, 1 << 39])]
    {
        let error = growing(operator, by).unwrap_err();
        assert!(error.code == Code::InvalidArgument && error.message.contains("it would give"), "{operator}: {error}");
    }
    assert_eq!(growing("Tile", &[2, 3]).unwrap()[0].dims(), [2, 3]);
    // The second dimension is cut when the first has grown.
    let error = growing("Pad", &[1 << 24, -1, 0, 0]).unwrap_err();
    assert!(error.message.contains("it would give"), "{error}");
    // Many that are each small enough.
    let names: Vec<String> = (0..40).map(|index| format!("t{index}")).collect();
    let mut nodes: Vec<NodeProto> = names.iter().map(|name| node("Tile", &["x", "n"], &[name])).collect();
    nodes.push(node("Sum", &names.iter().map(String::as_str).collect::<Vec<_>>(), &["y"]));
    let graph = GraphProto {
        node: nodes,
        input: vec![value("x", 1, &[0, 1])],
        output: vec![value("y", 1, &[0, 0])],
        initializer: vec![numbers("n", &[1 << 10, 1 << 10])],
        ..Default::default()
    };
    let read = evaluator(model(graph), Precision::F32).unwrap();
    let error = read.run(vec![Tensor::zeros((1, 1), DType::F32, &Device::Cpu).unwrap()]).unwrap_err();
    assert!(error.code == Code::ResourceExhausted && error.message.contains("67108864 bytes"), "{error}");
}

#[test]
fn a_mask_is_measured_whatever_its_input_holds() {
    let mut graph = adding(weight("w", &[0, 1 << 20, 1 << 20], &[]));
    graph.node = vec![node("Trilu", &["w"], &["y"])];
    let read = super::graph(model(graph)).unwrap();
    let inspected = Source::of(&read, Path::new("m.onnx"), 1, Precision::F32, 4).map(|_| ());
    let loaded = Evaluator::load(read, &Device::Cpu, Precision::F32, LIMITS, &|_| {});
    let x = Tensor::zeros((1, 2), DType::F32, &Device::Cpu).unwrap();
    let loaded = loaded.map_err(|error| error.to_string());
    let ran = loaded.and_then(|read| read.run(vec![x]).map_err(|error| error.message));
    assert!(ran.as_ref().is_err_and(|error| error.contains("it would give")), "{inspected:?} {ran:?}");
}

#[test]
fn a_file_of_empty_messages_is_measured_before_it_is_decoded() {
    // Nodes of two bytes each, in a graph.
    let nodes = [0x0a, 0x00].repeat(1 << 20);
    let mut file = vec![0x3a];
    prost::encoding::encode_varint(nodes.len() as u64, &mut file);
    file.extend(&nodes);
    assert!(decoded_bytes(&file).is_ok_and(|bytes| bytes > 100 << 20));
    let error = OnnxFile::decode(file.into()).err().unwrap();
    assert!(error.message.contains("would take") && error.message.contains("at most"), "{error}");
    let nested = (0..200).fold(Vec::new(), |inside: Vec<u8>, level| {
        // A node in a graph, an attribute in a node, a graph in an attribute.
        let mut outer = vec![[0x2a, 0x0a, 0x32][level % 3]];
        prost::encoding::encode_varint(inside.len() as u64, &mut outer);
        outer.extend(&inside);
        outer
    });
    let mut file = vec![0x3a];
    prost::encoding::encode_varint(nested.len() as u64, &mut file);
    file.extend(&nested);
    assert!(OnnxFile::decode(file.into()).is_err());
}

/// Everything that a file goes through before and while it is served.
fn serve(bytes: Vec<u8>, inputs: &[Tensor]) {
    let Ok(graph) = super::graph(bytes.into()) else { return };
    let _ = Source::of(&graph, Path::new("m.onnx"), 1, Precision::F32, 4);
    let fits = |(declared, given): (&super::super::graph::Declared, &Tensor)| {
        declared.element.dtype(Precision::F32) == given.dtype() && declared.element != Element::Bool
    };
    let fit = graph.inputs.len() == inputs.len() && graph.inputs.iter().zip(inputs).all(fits);
    let Ok(read) = Evaluator::load(graph, &Device::Cpu, Precision::F32, LIMITS, &|_| {}) else { return };
    if fit {
        let _ = read.run(inputs.to_vec());
    }
}

proptest! {
    #[test]
    fn broken_files_never_panic(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        thread_local! {
            static CASES: Vec<super::operators::Case> = cases();
        }
        CASES.with(|cases| {
            let case = which.get(cases);
            let mut bytes = case.model.to_vec();
            for (at, value) in &changes {
                let at = at.index(bytes.len());
                // Half of the changes are small ones, which leave more of the file as it was.
                bytes[at] = if value % 2 == 0 { *value } else { bytes[at].wrapping_add(value % 5).wrapping_sub(2) };
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            let inputs: Vec<Tensor> = case.inputs.iter().map(|weight| weight.tensor(Precision::F32).unwrap()).collect();
            serve(bytes, &inputs);
        });
    }
}
