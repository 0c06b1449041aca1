//! Graphs whose nodes are joined, against the same graphs where each node's value is an output too, so that none is.

use candle_core::{Device, Tensor};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;

/// The nodes that are left of a graph whose inputs, given by shape, are random; it is computed in both ways.
fn joined(nodes: Vec<NodeProto>, inputs: &[(&str, &[i64])], weights: &[(&str, &[i64])], output: &str) -> Vec<String> {
    joined_in(Precision::F32, 1e-5, nodes, inputs, weights, output)
}

fn joined_in(
    precision: Precision,
    most: f32,
    nodes: Vec<NodeProto>,
    inputs: &[(&str, &[i64])],
    weights: &[(&str, &[i64])],
    output: &str,
) -> Vec<String> {
    let mut random = StdRng::seed_from_u64(7);
    let mut floats =
        |dims: &[i64]| (0..dims.iter().product()).map(|_: i64| random.random::<f32>() - 0.5).collect::<Vec<f32>>();
    let numbers = [("half", 0.5), ("one", 1.0), ("root", std::f32::consts::SQRT_2), ("least", -0.1), ("most", 0.2)];
    let initializer: Vec<TensorProto> = weights
        .iter()
        .map(|(name, dims)| weight(name, dims, &floats(dims)))
        .chain(numbers.iter().map(|(name, number)| weight(name, &[], &[*number])))
        .collect();
    let given: Vec<Tensor> = inputs
        .iter()
        .map(|(_, dims)| {
            let shape: Vec<usize> = dims.iter().map(|size| *size as usize).collect();
            let tensor = Tensor::from_vec(floats(dims), shape, &Device::Cpu).unwrap();
            tensor.to_dtype(super::super::element::Element::Float32.dtype(precision)).unwrap()
        })
        .collect();
    let all: Vec<String> = nodes.iter().flat_map(|node| node.output.clone()).collect();
    let load = |outputs: &[String]| {
        let graph = GraphProto {
            node: nodes.clone(),
            input: inputs.iter().map(|(name, dims)| value(name, 1, dims)).collect(),
            output: outputs.iter().map(|name| value(name, 1, &[])).collect(),
            initializer: initializer.clone(),
            ..Default::default()
        };
        evaluator(model(graph), precision).unwrap()
    };
    let values =
        |tensor: &Tensor| tensor.flatten_all().unwrap().to_dtype(candle_core::DType::F32).unwrap().to_vec1::<f32>();
    let (joined, apart) = (load(&[output.to_owned()]), load(&all));
    let at = all.iter().position(|name| name == output).unwrap();
    let (got, want) = (&joined.run(given.clone()).unwrap()[0], &apart.run(given).unwrap()[at]);
    assert_eq!((got.dims(), got.dtype()), (want.dims(), want.dtype()));
    for (got, want) in values(got).unwrap().into_iter().zip(values(want).unwrap()) {
        assert!((got - want).abs() <= most * want.abs().max(1.0), "{got} for {want}");
    }
    assert!(apart.graph.block.nodes.iter().all(|node| !node.label.contains(" with ")), "each is an output");
    joined.graph.block.nodes.iter().map(|node| node.operator.name.to_owned()).collect()
}

const X: (&str, &[i64]) = ("x", &[2, 6, 7, 5]);

fn convolution(input: &str, groups: i64, output: &str) -> NodeProto {
    let name = if groups == 1 { "w" } else { "g" };
    let node = with(node("Conv", &[input, name, "b"], &[output]), ints("pads", &[1, 1, 1, 1]));
    with(node, int("group", groups))
}

const WEIGHTS: [(&str, &[i64]); 4] = [("w", &[6, 6, 3, 3]), ("g", &[6, 1, 3, 3]), ("b", &[6]), ("v", &[8, 6, 3, 3])];

#[test]
fn convolutions_take_over_what_follows() {
    for groups in [1, 6] {
        let nodes = vec![convolution("x", groups, "c"), node("Relu", &["c"], &["y"])];
        assert_eq!(joined(nodes, &[X], &WEIGHTS, "y"), ["Conv"]);
        let nodes = vec![convolution("x", groups, "c"), node("Clip", &["c", "least", "most"], &["y"])];
        assert_eq!(joined(nodes, &[X], &WEIGHTS, "y"), ["Conv"]);
        let nodes = vec![
            convolution("x", groups, "c"),
            convolution("x", 1, "d"),
            node("Add", &["d", "c"], &["s"]),
            node("Relu", &["s"], &["y"]),
        ];
        assert_eq!(joined(nodes, &[X], &WEIGHTS, "y"), ["Conv", "Conv"]);
    }
    // Of another shape, than which the sum may be larger.
    for other in [&[2, 6, 7, 5][..], &[6, 1, 5], &[3, 2, 6, 7, 5]] {
        let nodes = vec![convolution("x", 1, "c"), node("Add", &["o", "c"], &["s"]), node("Relu", &["s"], &["y"])];
        assert_eq!(joined(nodes.clone(), &[X, ("o", other)], &WEIGHTS, "y"), ["Conv"]);
        assert_eq!(joined_in(Precision::Bf16, 2e-2, nodes, &[X, ("o", other)], &WEIGHTS, "y"), ["Conv"]);
    }
}

#[test]
fn what_others_read_too_is_left() {
    let twice = vec![convolution("x", 1, "c"), node("Add", &["c", "c"], &["y"])];
    assert_eq!(joined(twice, &[X], &WEIGHTS, "y"), ["Conv", "Add"]);
    let before = vec![convolution("x", 1, "c"), node("Relu", &["c"], &["r"]), node("Add", &["r", "c"], &["y"])];
    assert_eq!(joined(before, &[X], &WEIGHTS, "y"), ["Conv", "Relu", "Add"]);
    // What has limits adds nothing any more.
    let after = vec![convolution("x", 1, "c"), node("Relu", &["c"], &["r"]), node("Add", &["r", "x"], &["y"])];
    assert_eq!(joined(after, &[X], &WEIGHTS, "y"), ["Conv", "Add"]);
    let again = vec![convolution("x", 1, "c"), node("Relu", &["c"], &["r"]), node("Clip", &["r", "", "most"], &["y"])];
    assert_eq!(joined(again, &[X], &WEIGHTS, "y"), ["Conv", "Clip"]);
    let unlike = vec![convolution("x", 1, "c"), node("Clip", &["c", "n"], &["y"])];
    let weights = [WEIGHTS.as_slice(), &[("n", &[])]].concat();
    assert_eq!(joined(unlike.clone(), &[X], &weights, "y"), ["Conv"]);
    assert_eq!(joined(unlike, &[X, ("n", &[])], &WEIGHTS, "y"), ["Conv", "Clip"]);
}

/// GELU of a value as graphs write it out.
fn gelu(of: &str) -> Vec<NodeProto> {
    vec![
        node("Div", &[of, "root"], &["quotient"]),
        node("Erf", &["quotient"], &["erf"]),
        node("Add", &["one", "erf"], &["sum"]),
        node("Mul", &[of, "sum"], &["product"]),
        node("Mul", &["product", "half"], &["gelu"]),
    ]
}

const ROWS: (&str, &[i64]) = ("x", &[2, 5, 24]);
const DENSE: [(&str, &[i64]); 3] = [("w", &[24, 40]), ("b", &[40]), ("u", &[40, 24])];

#[test]
fn products_are_packed_with_bias_and_gelu() {
    let dense = "a dense layer";
    let of = |nodes: Vec<NodeProto>, output: &str| {
        joined_in(Precision::Bf16, 3e-2, nodes.clone(), &[ROWS], &DENSE, output);
        joined_in(Precision::F16, 3e-3, nodes.clone(), &[ROWS], &DENSE, output);
        joined(nodes, &[ROWS], &DENSE, output)
    };
    let plain = vec![node("MatMul", &["x", "w"], &["p"])];
    assert_eq!(of(plain.clone(), "p"), [dense]);
    let biased = [plain.clone(), vec![node("Add", &["b", "p"], &["h"])]].concat();
    assert_eq!(of(biased.clone(), "h"), [dense]);
    assert_eq!(of([biased.clone(), gelu("h")].concat(), "gelu"), [dense]);
    let whole = vec![node("Gelu", &["h"], &["y"])];
    assert_eq!(of([biased.clone(), whole.clone()].concat(), "y"), [dense]);
    // A bias behind the function is none.
    let late = [plain, vec![node("Gelu", &["p"], &["h"])], vec![node("Add", &["b", "h"], &["y"])]].concat();
    assert_eq!(of(late, "y"), [dense, "Add"]);
    let residual =
        [biased, whole, vec![node("MatMul", &["y", "u"], &["d"]), node("Add", &["d", "x"], &["z"])]].concat();
    assert_eq!(of(residual, "z"), [dense, dense, "Add"]);
    // A weight that two read is not held twice, and one that only the graph's input has is not known.
    let shared = vec![
        node("MatMul", &["x", "w"], &["p"]),
        node("MatMul", &["x", "w"], &["q"]),
        node("Add", &["p", "q"], &["y"]),
    ];
    assert_eq!(joined(shared, &[ROWS], &DENSE, "y"), ["MatMul", "MatMul", "Add"]);
    let given = vec![node("MatMul", &["x", "v"], &["y"])];
    assert_eq!(joined(given, &[ROWS, ("v", &[24, 40])], &DENSE, "y"), ["MatMul"]);
}

#[test]
fn general_products_are_packed_where_nothing_is_scaled() {
    let rows = ("x", &[5, 24][..]);
    let gemm =
        |weight: &str, transposed: i64| with(node("Gemm", &["x", weight, "b"], &["y"]), int("transB", transposed));
    let weights = [DENSE.as_slice(), &[("t", &[40, 24])]].concat();
    assert_eq!(joined(vec![gemm("w", 0)], &[rows], &weights, "y"), ["a dense layer"]);
    assert_eq!(joined(vec![gemm("t", 1)], &[rows], &weights, "y"), ["a dense layer"]);
    let float = AttributeProto { name: "alpha".into(), r#type: Kind::Float.into(), f: 2.0, ..Default::default() };
    assert_eq!(joined(vec![with(gemm("w", 0), float)], &[rows], &weights, "y"), ["Gemm"]);
}

#[test]
fn a_gelu_alone_is_one_node_and_one_of_other_numbers_is_none() {
    assert_eq!(joined(gelu("x"), &[ROWS], &[], "gelu"), ["Gelu"]);
    let mut other = gelu("x");
    other[0].input[1] = "half".into();
    assert_eq!(joined(other, &[ROWS], &[], "gelu").len(), 5);
    let mut swapped = gelu("x");
    swapped[0].input.swap(0, 1);
    assert_eq!(joined(swapped, &[ROWS], &[], "gelu").len(), 5);
}

/// A graph of these nodes over a convolution's weight, and `y` of one input.
fn only(nodes: Vec<NodeProto>, weights: Vec<TensorProto>) -> super::super::evaluator::Evaluator {
    let (input, output) = (vec![value("x", 1, &[])], vec![value("y", 1, &[])]);
    let graph = GraphProto { node: nodes, input, output, initializer: weights, ..Default::default() };
    evaluator(model(graph), Precision::F32).unwrap()
}

#[test]
fn what_is_no_number_stays_none_within_limits() {
    let weights =
        || vec![weight("w", &[1, 1, 1, 1], &[1.0]), weight("least", &[], &[0.0]), weight("most", &[], &[6.0])];
    for last in [node("Clip", &["c", "least", "most"], &["y"]), node("Relu", &["c"], &["y"])] {
        let graph = only(vec![node("Conv", &["x", "w"], &["c"]), last], weights());
        let x = Tensor::from_vec(vec![f32::NAN, -1.0, 3.0], (1, 1, 1, 3), &Device::Cpu).unwrap();
        let y = graph.run(vec![x]).unwrap()[0].flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(graph.graph.block.nodes.len() == 1 && y[0].is_nan() && y[1..] == [0.0, 3.0], "{y:?}");
    }
}

#[test]
fn nodes_that_are_not_as_they_must_be_are_left_to_refuse_it() {
    // A second output of a convolution, which has none; a flag that is no whole number.
    let second = vec![
        node("Conv", &["x", "w"], &["c", "d"]),
        node("Relu", &["c"], &["r"]),
        node("Clip", &["r", "", "d"], &["y"]),
    ];
    let graph = only(second, vec![weight("w", &[1, 1, 1, 1], &[1.0])]);
    let error =
        graph.run(vec![Tensor::zeros((1, 1, 2, 2), candle_core::DType::F32, &Device::Cpu).unwrap()]).unwrap_err();
    assert!(error.message.contains("it gives 1 outputs, 2 are used"), "{error}");
    let float = AttributeProto { name: "transB".into(), r#type: Kind::Float.into(), f: 0.0, ..Default::default() };
    let graph = only(vec![with(node("Gemm", &["x", "w"], &["y"]), float)], vec![weight("w", &[32, 32], &[0.5; 1024])]);
    let error = graph.run(vec![Tensor::zeros((1, 32), candle_core::DType::F32, &Device::Cpu).unwrap()]).unwrap_err();
    assert!(error.message.contains("attribute 'transB' must be a whole number"), "{error}");
}
