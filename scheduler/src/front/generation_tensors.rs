//! Generations in the Open Inference Protocol's clothes: `text_input`, `max_tokens` and `stream` in, `text_output` out, and
//! sampling as parameters.

use orion_proto::{
    Code, Datatype, Delta, Error, Generation, InferAnswer, InferRequest, Payload, Prompt, Result, Tensor,
    bytes_elements, encode_bytes_elements,
    inference::{InferParameter, infer_parameter::ParameterChoice},
};

use crate::response_format::ResponseFormat;

const TEXT_INPUT: &str = "text_input";
const MAX_TOKENS: &str = "max_tokens";
const STREAM: &str = "stream";
const TEXT_OUTPUT: &str = "text_output";

/// Turns a request's tensors and parameters into its generation. Says whether it is to be streamed.
///
/// # Errors
/// INVALID_ARGUMENT naming the tensor or parameter that is missing, unknown or wrong.
pub(super) fn read(request: &mut InferRequest) -> Result<bool> {
    let (mut generation, mut streamed) = (None, false);
    for tensor in std::mem::take(&mut request.inputs) {
        match tensor.name.as_str() {
            TEXT_INPUT => generation = Some(Generation::new(Prompt::Text(text(&tensor)?))),
            MAX_TOKENS => {
                let bytes = one(&tensor, Datatype::Int32)?;
                let number = bytes.first_chunk::<4>().map(|bytes| i32::from_le_bytes(*bytes)).unwrap_or_default();
                request.parameters.others.push((MAX_TOKENS.into(), integer(i64::from(number))));
            }
            STREAM => streamed = one(&tensor, Datatype::Bool)?.first().is_some_and(|byte| *byte != 0),
            other => {
                let text = format!(
                    "input '{other}' is unknown to a generator, its inputs are: text_input, max_tokens, stream"
                );
                return Err(Error::invalid(text));
            }
        }
    }
    let text = |name: &str| {
        let value = request.parameters.others.iter().find(|(known, _)| known == name);
        match value.and_then(|(_, value)| value.parameter_choice.as_ref()) {
            Some(ParameterChoice::StringParam(text)) => Some(text.clone()),
            _ => None,
        }
    };
    // A conversation instead of a text, as OpenAI's API has it.
    if let Some(messages) = text("messages") {
        generation = Some(Generation::new(Prompt::Chat { messages, tools: text("tools") }));
    }
    let mut generation = generation.ok_or_else(|| Error::invalid("input 'text_input' is missing"))?;
    for (name, value) in &request.parameters.others {
        set(&mut generation, name, value)?;
    }
    generation.check()?;
    request.generation = Some(generation);
    Ok(streamed)
}

fn integer(number: i64) -> InferParameter {
    InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(number)) }
}

/// The only element of a tensor of one element.
fn one(tensor: &Tensor, datatype: Datatype) -> Result<bytes::Bytes> {
    if tensor.datatype == datatype && tensor.shape.iter().product::<i64>() == 1 {
        return Ok(tensor.data.contiguous());
    }
    let (name, got, shape) = (&tensor.name, tensor.datatype, &tensor.shape);
    Err(Error::invalid(format!("input '{name}' is {got} of shape {shape:?}, it must be one {datatype}")))
}

fn text(tensor: &Tensor) -> Result<String> {
    let data = one(tensor, Datatype::Bytes)?;
    let element = bytes_elements(&tensor.name, &data, 1)?.pop().unwrap_or_default();
    let not_text = |_| Error::invalid(format!("input '{}' is not UTF-8", tensor.name));
    String::from_utf8(element.to_vec()).map_err(not_text)
}

/// Reads a parameter; a name that is not known is left alone.
fn set(generation: &mut Generation, name: &str, value: &InferParameter) -> Result<()> {
    let s = &mut generation.sampling;
    match name {
        MAX_TOKENS => {
            let wrong = || Error::invalid("'max_tokens' must be a whole number, 1 or more");
            generation.max_tokens = Some(u32::try_from(whole(name, value)?).map_err(|_| wrong())?);
        }
        "temperature" => s.temperature = number(name, value)?,
        "top_p" => s.top_p = number(name, value)?,
        "min_p" => s.min_p = number(name, value)?,
        "top_k" => {
            // Others write -1 for all.
            s.top_k = u32::try_from(whole(name, value)?.max(0)).unwrap_or(u32::MAX);
        }
        "repetition_penalty" => s.repetition_penalty = number(name, value)?,
        "presence_penalty" => s.presence_penalty = number(name, value)?,
        "frequency_penalty" => s.frequency_penalty = number(name, value)?,
        "seed" | "random_seed" => s.seed = whole(name, value)?.cast_unsigned(),
        "stop" | "stop_words" => match &value.parameter_choice {
            Some(ParameterChoice::StringParam(stop)) => generation.stop.push(stop.clone()),
            _ => return Err(Error::invalid(format!("parameter '{name}' must be a string"))),
        },
        "response_format" => match &value.parameter_choice {
            Some(ParameterChoice::StringParam(text)) => {
                generation.format = ResponseFormat::from_json(text)?.format()?;
            }
            _ => {
                return Err(Error::invalid(
                    "parameter 'response_format' must be a string: JSON as OpenAI's API has it",
                ));
            }
        },
        "ignore_eos" => match &value.parameter_choice {
            Some(ParameterChoice::BoolParam(flag)) => generation.ignore_end = *flag,
            _ => return Err(Error::invalid(format!("parameter '{name}' must be a boolean"))),
        },
        _ => {}
    }
    Ok(())
}

fn whole(name: &str, value: &InferParameter) -> Result<i64> {
    let number = match &value.parameter_choice {
        Some(ParameterChoice::Int64Param(number)) => Some(*number),
        Some(ParameterChoice::Uint64Param(number)) => i64::try_from(*number).ok(),
        Some(ParameterChoice::StringParam(text)) => text.parse().ok(),
        _ => None,
    };
    number.ok_or_else(|| Error::invalid(format!("parameter '{name}' must be a whole number")))
}

fn number(name: &str, value: &InferParameter) -> Result<f32> {
    let number = match &value.parameter_choice {
        Some(ParameterChoice::DoubleParam(number)) => Some(*number),
        Some(ParameterChoice::Int64Param(number)) => Some(*number as f64),
        Some(ParameterChoice::Uint64Param(number)) => Some(*number as f64),
        Some(ParameterChoice::StringParam(text)) => text.parse().ok(),
        _ => None,
    };
    number.map(|number| number as f32).ok_or_else(|| Error::invalid(format!("parameter '{name}' must be a number")))
}

/// A text as the protocol's answer.
pub(super) fn answer(text: &str, usage_tokens: u64) -> InferAnswer {
    let data = Payload::from(encode_bytes_elements(&[text]));
    let output = Tensor { name: TEXT_OUTPUT.into(), datatype: Datatype::Bytes, shape: vec![1], data };
    InferAnswer { outputs: vec![output], usage_tokens, ..InferAnswer::default() }
}

/// A step as the protocol's answer.
pub(super) fn step(delta: &Delta) -> InferAnswer {
    InferAnswer { delta: Some(delta.clone()), ..answer(&delta.text, u64::from(delta.prompt_tokens)) }
}

/// A worker's answer that has no last step.
pub(super) fn unended() -> Error {
    Error::new(Code::Internal, "the generation ended without a last step")
}
