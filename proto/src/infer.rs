//! An inference request and its answer, checked in itself: what needs no knowledge of the model.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use crate::{
    Datatype, Delta, Error, Fused, Generation, Payload, Result, Tensor,
    datatype::shortened,
    encode_bytes_elements,
    inference::{
        InferParameter, InferTensorContents, ModelInferRequest, infer_parameter::ParameterChoice,
        model_infer_request::InferInputTensor,
    },
    sequence::{self, Sequence},
    tensor::element_count,
};

/// How urgent a request is. On the wire 1 is realtime and 5 is low; 0 or none is normal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // the names say it
pub enum Priority {
    Realtime,
    Critical,
    High,
    #[default]
    Normal,
    Low,
}

/// The parameters of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameters {
    /// How urgent it is.
    pub priority: Priority,
    /// How long the client waits, from arrival.
    pub timeout: Option<Duration>,
    /// Whether text beyond the model's limit is cut instead of refused.
    pub truncate: bool,
    /// Whose share of the cluster it takes; none: everybody's who says nothing.
    pub tenant: Option<Arc<str>>,
    /// Requests of one key go to one replica where the model's balancer hashes.
    pub routing_key: Option<u64>,
    /// Whether it may run twice. One that may not, such as one of a sequence, is not tried again after its execution began.
    pub idempotent: bool,
    /// Its place in a sequence.
    pub sequence: Option<Sequence>,
    /// Parameters that only some models know.
    pub others: Vec<(String, InferParameter)>,
    /// The attempt at a job that it is; clients cannot say so.
    pub job: Option<JobAttempt>,
    /// Whether a job asks: where this process ends it is asked again.
    pub of_job: bool,
}

/// The name of an attempt at a job, which outlives the scheduler that gave it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobAttempt {
    /// The job's number.
    pub job: u64,
    /// Its attempts are counted from 1.
    pub attempt: u32,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            priority: Priority::default(),
            timeout: None,
            truncate: false,
            tenant: None,
            routing_key: None,
            idempotent: true,
            sequence: None,
            others: Vec::new(),
            job: None,
            of_job: false,
        }
    }
}

/// A request whose tensors' byte counts agree with their shapes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InferRequest {
    /// The model's name as the client wrote it.
    pub model: String,
    /// The version asked for; empty: the newest.
    pub version: String,
    /// The client's own mark, echoed.
    pub id: String,
    /// The tensors.
    pub inputs: Vec<Tensor>,
    /// Outputs asked for; empty: all.
    pub outputs: Vec<String>,
    /// Known parameters.
    pub parameters: Parameters,
    /// Of a generator, instead of tensors: what to generate.
    pub generation: Option<Generation>,
    /// Steps that run where the model does; the tensors are theirs then.
    pub fused: Option<Arc<Fused>>,
}

/// What a model answered to one request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InferAnswer {
    /// The tensors.
    pub outputs: Vec<Tensor>,
    /// Tokens that the model read, where it counts them.
    pub usage_tokens: u64,
    /// Of a generation, instead of tensors: its last step.
    pub delta: Option<Delta>,
}

impl InferRequest {
    /// Bytes that it holds: of its tensors, or of what it generates from, and of its parameters.
    pub fn bytes(&self) -> usize {
        let tensors = self.inputs.iter().map(|tensor| tensor.data.len());
        let parameters = self.parameters.others.iter().map(|(name, value)| name.len() + value.encoded_len());
        let generation = self.generation.as_ref().map_or(0, Generation::bytes);
        tensors.chain(parameters).fold(generation, usize::saturating_add)
    }
}

impl Priority {
    /// All, the most urgent first.
    pub const ALL: [Self; 5] = [Self::Realtime, Self::Critical, Self::High, Self::Normal, Self::Low];

    /// The protocol's number.
    pub fn number(self) -> u32 {
        self as u32 + 1
    }

    /// From the protocol's number.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for a number above 5.
    pub fn from_number(number: u64) -> Result<Self> {
        Ok(match number {
            1 => Self::Realtime,
            2 => Self::Critical,
            3 => Self::High,
            0 | 4 => Self::Normal,
            5 => Self::Low,
            _ => {
                return Err(Error::invalid(format!(
                    "parameter 'priority' is {number}, it must be 1 (realtime), 2 (critical), 3 (high), 4 (normal) or \
                     5 (low); 0 means normal"
                )));
            }
        })
    }
}

impl Parameters {
    /// Reads one parameter; one that is not known is kept for the model.
    ///
    /// # Errors
    /// INVALID_ARGUMENT naming the parameter whose value is of the wrong type or out of range.
    pub fn set(&mut self, name: &str, value: &InferParameter) -> Result<()> {
        match name {
            "priority" => self.priority = Priority::from_number(number(name, value)?)?,
            "timeout" => match number(name, value)? {
                0 => {}
                microseconds => self.timeout = Some(Duration::from_micros(microseconds)),
            },
            "truncate" => self.truncate = boolean(name, value)?,
            // Running twice would advance the sequence twice.
            "idempotent" => self.idempotent = boolean(name, value)? && self.sequence.is_none(),
            "routing_key" => self.routing_key = Some(routing_key(&text(name, value)?)),
            "sequence_id" => {
                if let Some(key) = sequence::key(name, value)? {
                    self.sequence().key = key;
                }
            }
            "sequence_start" | "sequence_end" => {
                // A flag that is not set says nothing.
                if boolean(name, value)? {
                    let sequence = self.sequence();
                    let flag = if name == "sequence_start" { &mut sequence.start } else { &mut sequence.end };
                    *flag = true;
                }
            }
            _ => self.others.push((name.to_owned(), value.clone())),
        }
        Ok(())
    }

    fn sequence(&mut self) -> &mut Sequence {
        self.idempotent = false;
        self.sequence.get_or_insert_default()
    }

    fn from_wire(map: &HashMap<String, InferParameter>) -> Result<Self> {
        let mut parameters = Self::default();
        map.iter().try_for_each(|(name, value)| parameters.set(name, value))?;
        Ok(parameters)
    }
}

pub(crate) fn number(name: &str, value: &InferParameter) -> Result<u64> {
    let number = match &value.parameter_choice {
        Some(ParameterChoice::Uint64Param(n)) => Some(*n),
        Some(ParameterChoice::Int64Param(n)) => u64::try_from(*n).ok(),
        Some(ParameterChoice::StringParam(text)) => text.parse().ok(),
        _ => None,
    };
    number.ok_or_else(|| Error::invalid(format!("parameter '{name}' must be a whole number, 0 or more")))
}

/// What a balancer hashes of a key's text: the same on every machine.
pub fn routing_key(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

fn text(name: &str, value: &InferParameter) -> Result<String> {
    match &value.parameter_choice {
        Some(ParameterChoice::StringParam(text)) => Ok(text.clone()),
        Some(ParameterChoice::Int64Param(number)) => Ok(number.to_string()),
        Some(ParameterChoice::Uint64Param(number)) => Ok(number.to_string()),
        _ => Err(Error::invalid(format!("parameter '{name}' must be a string"))),
    }
}

fn boolean(name: &str, value: &InferParameter) -> Result<bool> {
    match &value.parameter_choice {
        Some(ParameterChoice::BoolParam(flag)) => Ok(*flag),
        _ => Err(Error::invalid(format!("parameter '{name}' must be a boolean"))),
    }
}

impl TryFrom<ModelInferRequest> for InferRequest {
    type Error = Error;

    fn try_from(wire: ModelInferRequest) -> Result<Self> {
        let (given, raw) = (wire.inputs.len(), wire.raw_input_contents.len());
        if raw != 0 && raw != given {
            return Err(Error::invalid(format!(
                "raw_input_contents has {raw} entries for {given} inputs, it must have one for each or none"
            )));
        }
        let parameters = Parameters::from_wire(&wire.parameters)?;
        let mut raw = wire.raw_input_contents.into_iter();
        let inputs = wire.inputs.into_iter().map(|input| input_tensor(input, raw.next())).collect::<Result<_>>()?;
        let outputs =
            wire.outputs.into_iter().map(|output| refuse_shared_memory(&output.parameters).map(|()| output.name));
        Ok(Self {
            outputs: outputs.collect::<Result<_>>()?,
            model: wire.model_name,
            version: wire.model_version,
            id: wire.id,
            inputs,
            parameters,
            generation: None,
            fused: None,
        })
    }
}

fn refuse_shared_memory(parameters: &HashMap<String, InferParameter>) -> Result<()> {
    match parameters.contains_key("shared_memory_region") {
        false => Ok(()),
        true => Err(Error::new(crate::Code::Unimplemented, "shared memory is not served, send the tensor's bytes")),
    }
}

fn input_tensor(input: InferInputTensor, raw: Option<Bytes>) -> Result<Tensor> {
    refuse_shared_memory(&input.parameters)?;
    let datatype = Datatype::from_name(&input.datatype)?;
    let name = shortened(&input.name);
    let data = match (raw, input.contents) {
        (Some(_), Some(_)) => {
            return Err(Error::invalid(format!("input '{name}' has raw and typed contents, it must have one")));
        }
        (Some(bytes), None) => bytes,
        (None, Some(contents)) => typed_contents(&input.name, datatype, &input.shape, contents)?,
        (None, None) if element_count(&input.name, &input.shape)? == 0 => Bytes::new(),
        (None, None) => return Err(Error::invalid(format!("input '{name}' has no contents"))),
    };
    Tensor::new(input.name, datatype, input.shape, Payload::from(data))
}

/// Typed contents as the bytes that raw contents would have been.
fn typed_contents(name: &str, datatype: Datatype, shape: &[i64], contents: InferTensorContents) -> Result<Bytes> {
    let expected = element_count(name, shape)?;
    let name = shortened(name);
    let mut out = BytesMut::new();
    let narrow = |value: i64, low: i64, high: i64| match (low..=high).contains(&value) {
        true => Ok(value),
        false => Err(Error::invalid(format!("input '{name}' holds {value}, which is no {datatype}"))),
    };
    let (ints, uints) = (&contents.int_contents, &contents.uint_contents);
    let got = match datatype {
        Datatype::Bool => put(&contents.bool_contents, |v| out.put_u8(u8::from(*v))),
        Datatype::Int8 => try_put(ints, |v| narrow((*v).into(), -128, 127).map(|v| out.put_i8(v as i8)))?,
        Datatype::Int16 => try_put(ints, |v| narrow((*v).into(), -32768, 32767).map(|v| out.put_i16_le(v as i16)))?,
        Datatype::Int32 => put(ints, |v| out.put_i32_le(*v)),
        Datatype::Int64 => put(&contents.int64_contents, |v| out.put_i64_le(*v)),
        Datatype::Uint8 => try_put(uints, |v| narrow((*v).into(), 0, 255).map(|v| out.put_u8(v as u8)))?,
        Datatype::Uint16 => try_put(uints, |v| narrow((*v).into(), 0, 65535).map(|v| out.put_u16_le(v as u16)))?,
        Datatype::Uint32 => put(uints, |v| out.put_u32_le(*v)),
        Datatype::Uint64 => put(&contents.uint64_contents, |v| out.put_u64_le(*v)),
        Datatype::Fp32 => put(&contents.fp32_contents, |v| out.put_f32_le(*v)),
        Datatype::Fp64 => put(&contents.fp64_contents, |v| out.put_f64_le(*v)),
        Datatype::Bytes => {
            out.extend_from_slice(&encode_bytes_elements(&contents.bytes_contents));
            contents.bytes_contents.len()
        }
        Datatype::Fp16 | Datatype::Bf16 => {
            return Err(Error::invalid(format!("input '{name}' is {datatype}, which travels as raw contents only")));
        }
    };
    match got == expected {
        true => Ok(out.freeze()),
        false => Err(Error::invalid(format!(
            "input '{name}' of shape {shape:?} and datatype {datatype} holds {expected} elements, got {got}"
        ))),
    }
}

fn put<T>(values: &[T], each: impl FnMut(&T)) -> usize {
    values.iter().for_each(each);
    values.len()
}

fn try_put<T>(values: &[T], each: impl FnMut(&T) -> Result<()>) -> Result<usize> {
    values.iter().try_for_each(each).map(|()| values.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(datatype: &str, shape: Vec<i64>, contents: InferTensorContents) -> Result<InferRequest> {
        let input = InferInputTensor {
            name: "x".into(),
            datatype: datatype.into(),
            shape,
            contents: Some(contents),
            ..Default::default()
        };
        InferRequest::try_from(ModelInferRequest { inputs: vec![input], ..Default::default() })
    }

    #[test]
    fn typed_contents_become_raw_bytes() {
        let ints = InferTensorContents { int_contents: vec![1, -2], ..Default::default() };
        let tensor = &request("INT16", vec![2], ints.clone()).unwrap().inputs[0];
        assert_eq!(tensor.data.contiguous().as_ref(), [1, 0, 254, 255]);
        assert_eq!(request("INT16", vec![3], ints).unwrap_err().code, crate::Code::InvalidArgument);
        let large = InferTensorContents { int_contents: vec![300], ..Default::default() };
        assert_eq!(request("INT8", vec![1], large).unwrap_err().message, "input 'x' holds 300, which is no INT8");
        let text = InferTensorContents { bytes_contents: vec![Bytes::from_static(b"hi")], ..Default::default() };
        assert_eq!(request("BYTES", vec![1], text).unwrap().inputs[0].data.contiguous().as_ref(), b"\x02\0\0\0hi");
    }

    #[test]
    fn raw_contents_must_be_one_for_each_input() {
        let wire = ModelInferRequest {
            inputs: vec![InferInputTensor::default(); 2],
            raw_input_contents: vec![Bytes::new()],
            ..Default::default()
        };
        assert!(InferRequest::try_from(wire).is_err_and(|e| e.message.starts_with("raw_input_contents has 1 entries")));
    }

    #[test]
    fn known_parameters_are_read_and_bad_ones_named() {
        let value = |choice| InferParameter { parameter_choice: Some(choice) };
        let mut parameters = Parameters::default();
        parameters.set("priority", &value(ParameterChoice::Uint64Param(2))).unwrap();
        parameters.set("timeout", &value(ParameterChoice::Int64Param(1500))).unwrap();
        parameters.set("correlation_id", &value(ParameterChoice::StringParam("s".into()))).unwrap();
        assert_eq!(parameters.priority, Priority::Critical);
        assert_eq!(parameters.timeout, Some(Duration::from_micros(1500)));
        for (name, choice) in [
            ("priority", ParameterChoice::Uint64Param(6)),
            ("timeout", ParameterChoice::Int64Param(-1)),
            ("truncate", ParameterChoice::StringParam("yes".into())),
            ("idempotent", ParameterChoice::Uint64Param(1)),
            ("routing_key", ParameterChoice::BoolParam(true)),
            ("sequence_id", ParameterChoice::BoolParam(true)),
            ("sequence_id", ParameterChoice::Int64Param(-1)),
            ("sequence_start", ParameterChoice::Int64Param(1)),
            ("sequence_end", ParameterChoice::StringParam("true".into())),
        ] {
            assert!(parameters.set(name, &value(choice)).is_err_and(|e| e.message.contains(name)));
        }
    }
}
