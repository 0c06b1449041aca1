//! Graphs made by hand, and what all tests build on.

use std::path::Path;

use bytes::Bytes;
use candle_core::Device;
use prost::Message;

use super::{
    evaluator::{Evaluator, Limits},
    file::OnnxFile,
    graph::Graph,
    schema::{
        AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
        TypeProto, ValueInfoProto, attribute_proto::Kind, tensor_shape_proto, type_proto,
    },
};
use crate::Precision;

mod family;
mod fuse;
mod hostile;
mod operators;

const LIMITS: Limits = Limits { tensor: 1 << 24, together: 1 << 26 };

fn graph(model: Bytes) -> Result<Graph, String> {
    let file = OnnxFile::decode(model).map_err(|error| error.message)?;
    Graph::read(&file.model, Path::new(""))
}

fn evaluator(model: Bytes, precision: Precision) -> Result<Evaluator, String> {
    Evaluator::load(graph(model)?, &Device::Cpu, precision, LIMITS, &|_| {}).map_err(|error| error.to_string())
}

/// A node without attributes.
fn node(operator: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    NodeProto { op_type: operator.into(), input: names(inputs), output: names(outputs), ..Default::default() }
}

fn with(mut node: NodeProto, attribute: AttributeProto) -> NodeProto {
    node.attribute.push(attribute);
    node
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: Kind::Int.into(), i: value, ..Default::default() }
}

fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: Kind::Ints.into(), ints: values.to_vec(), ..Default::default() }
}

/// A declared tensor; a dimension of 0 is open.
fn value(name: &str, element: i32, dims: &[i64]) -> ValueInfoProto {
    let dimension = |&size: &i64| tensor_shape_proto::Dimension {
        value: (size > 0).then_some(tensor_shape_proto::dimension::Value::DimValue(size)),
    };
    let shape = TensorShapeProto { dim: dims.iter().map(dimension).collect() };
    let tensor = type_proto::Tensor { elem_type: element, shape: Some(shape) };
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { tensor_type: Some(tensor) }) }
}

fn weight(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    let float_data = values.to_vec();
    TensorProto { name: name.into(), dims: dims.to_vec(), data_type: 1, float_data, ..Default::default() }
}

fn numbers(name: &str, values: &[i64]) -> TensorProto {
    let (dims, int64_data) = (vec![values.len() as i64], values.to_vec());
    TensorProto { name: name.into(), dims, data_type: 7, int64_data, ..Default::default() }
}

fn model(graph: GraphProto) -> Bytes {
    let opset_import = vec![OperatorSetIdProto { version: 17, ..Default::default() }];
    let model = ModelProto { graph: Some(graph), opset_import, ..Default::default() };
    model.encode_to_vec().into()
}
