//! The memory that a file's messages would take once decoded, found by walking over them without decoding.
//!
//! An empty message takes two bytes of a file and two hundred in memory, so a file is measured before it is believed.

use std::mem::size_of;

use prost::{
    bytes::Buf,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};

use super::schema::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, SparseTensorProto, StringStringEntryProto,
    TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, tensor_shape_proto::Dimension, type_proto,
};

/// Messages inside each other; prost stops at the same depth.
const MOST_DEPTH: usize = 100;

/// What a kind of message holds that takes memory: by field number.
struct Kind {
    bytes: usize,
    fields: &'static [(u32, Field)],
}

enum Field {
    Message(&'static Kind),
    Text,
    /// Slices of the file.
    Bytes,
    /// Numbers of so many bytes each in memory, packed or not, at least so many each in the file.
    Numbers(usize, usize),
}

use Field::{Bytes, Message, Numbers, Text};

const fn kind<T>(fields: &'static [(u32, Field)]) -> Kind {
    Kind { bytes: size_of::<T>(), fields }
}

static MODEL: Kind = kind::<ModelProto>(&[(2, Text), (7, Message(&GRAPH)), (8, Message(&OPSET))]);
static OPSET: Kind = kind::<OperatorSetIdProto>(&[(1, Text)]);
static GRAPH: Kind = kind::<GraphProto>(&[
    (1, Message(&NODE)),
    (2, Text),
    (5, Message(&TENSOR)),
    (11, Message(&VALUE)),
    (12, Message(&VALUE)),
    (15, Message(&SPARSE)),
]);
static NODE: Kind =
    kind::<NodeProto>(&[(1, Text), (2, Text), (3, Text), (4, Text), (5, Message(&ATTRIBUTE)), (7, Text)]);
static ATTRIBUTE: Kind = kind::<AttributeProto>(&[
    (1, Text),
    (4, Bytes),
    (5, Message(&TENSOR)),
    (6, Message(&GRAPH)),
    (7, Numbers(4, 4)),
    (8, Numbers(8, 1)),
    (9, Bytes),
]);
static TENSOR: Kind = kind::<TensorProto>(&[
    (1, Numbers(8, 1)),
    (4, Numbers(4, 4)),
    (5, Numbers(4, 1)),
    (7, Numbers(8, 1)),
    (8, Text),
    (9, Bytes),
    (10, Numbers(8, 8)),
    (11, Numbers(8, 1)),
    (13, Message(&ENTRY)),
]);
static SPARSE: Kind = kind::<SparseTensorProto>(&[]);
static ENTRY: Kind = kind::<StringStringEntryProto>(&[(1, Text), (2, Text)]);
static VALUE: Kind = kind::<ValueInfoProto>(&[(1, Text), (2, Message(&TYPE))]);
static TYPE: Kind = kind::<TypeProto>(&[(1, Message(&TENSOR_TYPE))]);
static TENSOR_TYPE: Kind = kind::<type_proto::Tensor>(&[(2, Message(&SHAPE))]);
static SHAPE: Kind = kind::<TensorShapeProto>(&[(1, Message(&DIMENSION))]);
static DIMENSION: Kind = kind::<Dimension>(&[(2, Text)]);

/// Bytes that the file would take once decoded.
///
/// # Errors
/// What is wrong with the file, where a length passes its end or messages are nested too deeply.
pub(super) fn decoded_bytes(file: &[u8]) -> Result<u64, String> {
    walk(&MODEL, file, 0)
}

fn walk(kind: &Kind, mut rest: &[u8], depth: usize) -> Result<u64, String> {
    if depth > MOST_DEPTH {
        return Err(format!("its messages are nested deeper than {MOST_DEPTH}"));
    }
    let mut total = kind.bytes as u64;
    while rest.has_remaining() {
        let (number, wire) = decode_key(&mut rest).map_err(broken)?;
        let field = kind.fields.iter().find(|(known, _)| *known == number).map(|(_, field)| field);
        let (Some(field), WireType::LengthDelimited) = (field, wire) else {
            skip_field(wire, number, &mut rest, DecodeContext::default()).map_err(broken)?;
            // One number of a list that is not packed.
            total += if matches!(field, Some(Numbers(..))) { 8 } else { 0 };
            continue;
        };
        let length = decode_varint(&mut rest).map_err(broken)?;
        let left = rest.len();
        let cut = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
        let (inside, after) = cut.ok_or_else(|| format!("a field declares {length} bytes, {left} are left"))?;
        rest = after;
        total = total.saturating_add(match field {
            Message(kind) => walk(kind, inside, depth + 1)?,
            Text => (size_of::<String>() + inside.len()) as u64,
            Bytes => size_of::<prost::bytes::Bytes>() as u64,
            Numbers(memory, file) => (inside.len() / file * memory) as u64,
        });
    }
    Ok(total)
}

fn broken(error: prost::DecodeError) -> String {
    error.to_string().to_lowercase()
}
