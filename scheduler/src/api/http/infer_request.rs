//! The body of `infer`: JSON, and behind it the bytes of the inputs that travel in binary.

use std::{borrow::Cow, collections::HashSet};

use bytes::Bytes;
use orion_proto::{Datatype, Error, InferRequest, Parameters, Payload, Result, Tensor, element_count};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{at_most::AtMost, element_json, parameters::ParameterList, reply::excerpt};

/// Inputs or outputs of one request.
const MOST_TENSORS: usize = 1024;
/// Dimensions of one shape.
const MOST_DIMENSIONS: usize = 64;
/// Bytes of a tensor's name, which messages repeat.
const LONGEST_NAME: usize = 256;

/// Which outputs the client wants as binary data.
#[derive(Debug, Default)]
pub(super) struct OutputForms {
    binary_by_default: bool,
    /// Outputs that are to be in the other form.
    exceptions: Vec<String>,
}

impl OutputForms {
    pub(super) fn all_binary() -> Self {
        Self { binary_by_default: true, exceptions: Vec::new() }
    }

    pub(super) fn binary(&self, output: &str) -> bool {
        self.binary_by_default != self.exceptions.iter().any(|name| name == output)
    }
}

#[derive(Deserialize)]
#[serde(expecting = "an inference request")]
struct Head<'a> {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    parameters: Option<ParameterList>,
    #[serde(borrow)]
    inputs: AtMost<Input<'a>, MOST_TENSORS>,
    #[serde(default)]
    outputs: Option<AtMost<Output, MOST_TENSORS>>,
}

#[derive(Deserialize)]
#[serde(expecting = "an input tensor")]
struct Input<'a> {
    name: String,
    shape: AtMost<i64, MOST_DIMENSIONS>,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    #[serde(default)]
    parameters: Option<ParameterList>,
    #[serde(default, borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(expecting = "a requested output")]
struct Output {
    name: String,
    #[serde(default)]
    parameters: Option<ParameterList>,
}

/// Reads a body whose first `header_length` bytes are JSON; all of it when that is `None`.
///
/// # Errors
/// INVALID_ARGUMENT naming what is wrong; UNIMPLEMENTED for shared memory and classification.
pub(super) fn parse(
    model: String,
    version: String,
    header_length: Option<usize>,
    mut body: Bytes,
) -> Result<(InferRequest, OutputForms)> {
    let whole = body.len();
    let binary = match header_length {
        Some(length) if length > whole => {
            return Err(Error::invalid(format!(
                "inference-header-content-length is {length}, the body has only {whole} bytes"
            )));
        }
        Some(length) => Some(body.split_off(length)),
        None => None,
    };
    let head: Head<'_> = serde_json::from_slice(&body).map_err(|error| not_a_request(&error))?;
    let (outputs, forms) = outputs(head.outputs.unwrap_or_default().0, head.parameters.as_ref())?;
    let mut parameters = Parameters::default();
    if let Some(list) = &head.parameters {
        list.iter().try_for_each(|(name, value)| parameters.set(name, value))?;
    }
    let inputs = inputs(head.inputs.0, binary)?;
    Ok((
        InferRequest {
            model,
            version,
            id: head.id.unwrap_or_default(),
            inputs,
            outputs,
            parameters,
            generation: None,
            fused: None,
        },
        forms,
    ))
}

pub(super) fn not_a_request(error: &serde_json::Error) -> Error {
    Error::invalid(format!("the request body is not what it must be: {}", excerpt(&error.to_string())))
}

fn inputs(given: Vec<Input<'_>>, mut binary: Option<Bytes>) -> Result<Vec<Tensor>> {
    let inputs = given.into_iter().map(|input| tensor(input, binary.as_mut())).collect::<Result<_>>()?;
    match binary.map_or(0, |rest| rest.len()) {
        0 => Ok(inputs),
        left => Err(Error::invalid(format!("the body has {left} bytes more than the inputs' binary_data_size say"))),
    }
}

fn tensor(input: Input<'_>, binary: Option<&mut Bytes>) -> Result<Tensor> {
    let Input { name, shape: AtMost(shape), datatype, parameters, data } = input;
    if name.len() > LONGEST_NAME {
        return Err(Error::invalid(format!("an input's name has {} bytes, the most is {LONGEST_NAME}", name.len())));
    }
    let datatype = Datatype::from_name(&datatype)?;
    let parameters = parameters.unwrap_or_default();
    parameters.refuse_unserved()?;
    let data = match (parameters.size("binary_data_size")?, data) {
        (Some(_), Some(_)) => {
            return Err(Error::invalid(format!("input '{name}' has data and binary_data_size, it must have one")));
        }
        (Some(size), None) => cut(&name, size, binary)?,
        (None, Some(json)) => element_json::parse(&name, datatype, element_count(&name, &shape)?, json.get())?,
        (None, None) => {
            return Err(Error::invalid(format!("input '{name}' has no data, give data or binary_data_size")));
        }
    };
    Tensor::new(name, datatype, shape, Payload::from(data))
}

fn cut(name: &str, size: usize, binary: Option<&mut Bytes>) -> Result<Bytes> {
    let Some(binary) = binary else {
        return Err(Error::invalid(format!(
            "input '{name}' has binary_data_size, the header inference-header-content-length must say where it starts"
        )));
    };
    match size <= binary.len() {
        true => Ok(binary.split_to(size)),
        false => Err(Error::invalid(format!(
            "input '{name}' has binary_data_size {size}, the body has only {} bytes left for it",
            binary.len()
        ))),
    }
}

fn outputs(wanted: Vec<Output>, parameters: Option<&ParameterList>) -> Result<(Vec<String>, OutputForms)> {
    let by_default = parameters.map_or(Ok(None), |list| list.boolean("binary_data_output"))?.unwrap_or(false);
    let mut forms = OutputForms { binary_by_default: by_default, exceptions: Vec::new() };
    let mut seen = HashSet::new();
    for Output { name, parameters } in &wanted {
        if !seen.insert(name.as_str()) {
            return Err(Error::invalid(format!("output '{}' is asked for twice", excerpt(name))));
        }
        let Some(parameters) = parameters else { continue };
        parameters.refuse_unserved()?;
        if parameters.boolean("binary_data")?.is_some_and(|binary| binary != by_default) {
            forms.exceptions.push(name.clone());
        }
    }
    Ok((wanted.into_iter().map(|output| output.name).collect(), forms))
}

#[cfg(test)]
mod tests;
