//! Every operator against what onnxruntime gives; `tests/data/onnx/operators.py` makes the cases.

use std::path::Path;

use bytes::{Buf, Bytes};
use candle_core::{DType, Tensor};
use prost::Message;

use super::{
    super::{schema::TensorProto, weight::Weight},
    evaluator,
};
use crate::Precision;

const CASES: &[u8] = include_bytes!("../../../../tests/data/onnx/operators.bin");

/// A model, its inputs and what comes out.
pub(super) struct Case {
    pub(super) name: String,
    pub(super) model: Bytes,
    pub(super) inputs: Vec<Weight>,
    outputs: Vec<Weight>,
}

pub(super) fn cases() -> Vec<Case> {
    let mut rest = Bytes::from_static(CASES);
    let chunk = |rest: &mut Bytes| {
        let length = rest.get_u32_le() as usize;
        rest.split_to(length)
    };
    let tensors = |rest: &mut Bytes| -> Vec<Weight> {
        let count = rest.get_u32_le();
        (0..count).map(|_| Weight::read(&TensorProto::decode(chunk(rest)).unwrap(), Path::new("")).unwrap()).collect()
    };
    let mut cases = Vec::new();
    while rest.has_remaining() {
        let name = String::from_utf8(chunk(&mut rest).to_vec()).unwrap();
        let model = chunk(&mut rest);
        cases.push(Case { name, model, inputs: tensors(&mut rest), outputs: tensors(&mut rest) });
    }
    cases
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

/// The greatest difference of two tensors, in units of what is allowed; infinite where shapes or types differ.
fn difference(got: &Tensor, expected: &Tensor, allowed: f64) -> f64 {
    if got.dims() != expected.dims() || got.dtype() != expected.dtype() {
        return f64::INFINITY;
    }
    let pairs = values(got).into_iter().zip(values(expected));
    let apart =
        |(a, b): (f64, f64)| if a == b || (a.is_nan() && b.is_nan()) { 0.0 } else { (a - b).abs() / (1.0 + b.abs()) };
    // A NaN on one side only must not vanish in a maximum.
    pairs.map(apart).fold(0.0, |most: f64, one| if one.is_nan() { f64::INFINITY } else { most.max(one) }) / allowed
}

fn outcome(case: &Case) -> Result<f64, String> {
    let evaluator = evaluator(case.model.clone(), Precision::F32)?;
    let tensors =
        |weights: &[Weight]| weights.iter().map(|weight| weight.tensor(Precision::F32).unwrap()).collect::<Vec<_>>();
    let outputs = evaluator.run(tensors(&case.inputs)).map_err(|error| error.message)?;
    let expected = tensors(&case.outputs);
    if outputs.len() != expected.len() {
        return Err(format!("{} outputs instead of {}", outputs.len(), expected.len()));
    }
    let allowed = |tensor: &Tensor| if tensor.dtype() == DType::F16 { 2e-3 } else { 2e-6 };
    let worst = outputs.iter().zip(&expected).map(|(got, expected)| difference(got, expected, allowed(expected)));
    let worst = worst.fold(0.0, f64::max);
    match worst <= 1.0 {
        true => Ok(worst),
        false => Err(format!("{worst} times as far as allowed: {outputs:?} {expected:?}")),
    }
}

#[test]
fn every_operator_gives_what_onnxruntime_gives() {
    let cases = cases();
    let failed = |case: &Case| outcome(case).err().map(|problem| format!("{}: {problem}", case.name));
    let failures: Vec<String> = cases.iter().filter_map(failed).collect();
    println!("{} of {} cases agree", cases.len() - failures.len(), cases.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn shapes_are_inferred_as_they_come_out() {
    use super::super::inference::infer;
    let mut known = 0;
    for case in cases() {
        let dims: Vec<Vec<usize>> = case.inputs.iter().map(|weight| weight.dims.clone()).collect();
        let graph = super::graph(case.model.clone()).unwrap();
        let inferred =
            infer(&graph, &dims, Precision::F32).unwrap_or_else(|problem| panic!("{}: {problem}", case.name));
        for (found, output) in inferred.outputs.iter().zip(&case.outputs) {
            known += usize::from(found.is_some());
            assert!(
                found.as_ref().is_none_or(|found| *found == output.dims),
                "{}: {found:?} {:?}",
                case.name,
                output.dims
            );
        }
    }
    println!("{known} shapes were known");
    assert!(known > 700, "{known}");
}
