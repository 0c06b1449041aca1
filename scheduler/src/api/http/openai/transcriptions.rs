//! `POST /v1/audio/transcriptions`: a file of speech to text, on any model that takes `audio` and gives `text`.

mod form;
mod format;

use axum::{body::Body, extract::State, http::HeaderMap, response::Response};
use bytes::Bytes;
use orion_proto::{
    Code, Datatype, Error, InferRequest, ModelSpec, Parameters, Payload, Result, Tensor, TensorSpec,
    inference::{InferParameter, infer_parameter::ParameterChoice},
};

use super::{Refusal, settings::about};
use crate::{
    api::http::{Api, body, request_id},
    api::terms::{Arrival, Terms},
    front::Answered,
};
use form::Form;
use format::Format;

const AUDIO: &str = "audio";
const TEXT: &str = "text";
/// JSON with the times, from models that have them.
const SEGMENTS: &str = "segments";

pub(in crate::api::http) async fn transcriptions(
    State(api): State<Api>,
    arrival: Arrival,
    headers: HeaderMap,
    body: Body,
) -> Response {
    request_id::echo(&headers, answer(api, arrival, &headers, body)).await
}

async fn answer(api: Api, arrival: Arrival, headers: &HeaderMap, body: Body) -> std::result::Result<Response, Refusal> {
    let api = &api.0;
    let terms = Terms::of_http(headers, arrival)?;
    let body = body::read(headers, body, api.max_message_bytes, api.budget.hold()).await?;
    let form = Form::read(headers, body).await?;
    let spec = api.front.model_spec(&form.model, "").map_err(|error| Refusal::from(error).about("model"))?;
    let outputs = outputs(&spec, form.format)?;
    let format = form.format;
    let mut wanted = infer_request(form, outputs)?;
    terms.apply(&mut wanted, arrival.at);
    let answered = api.front.infer(wanted).await.map_err(named)?;
    Ok(format::render(format, &element(&answered, TEXT)?, element(&answered, SEGMENTS).ok().as_deref())?)
}

/// Checks that the model transcribes, with times where the format shows them; the outputs that it is asked for.
fn outputs(spec: &ModelSpec, format: Format) -> std::result::Result<Vec<String>, Refusal> {
    let is = |tensor: &TensorSpec, name| tensor.name == name && tensor.datatype == Datatype::Bytes;
    let takes_audio = spec.inputs.len() == 1 && spec.inputs.iter().all(|tensor| is(tensor, AUDIO));
    let gives = |name| spec.outputs.iter().any(|tensor| is(tensor, name));
    if !takes_audio || !gives(TEXT) {
        return Err(about("model", format!("model '{}' does not transcribe audio", spec.name)));
    }
    match (gives(SEGMENTS), format) {
        (true, _) => Ok(vec![TEXT.to_owned(), SEGMENTS.to_owned()]),
        (false, Format::Json | Format::Text) => Ok(vec![TEXT.to_owned()]),
        (false, _) => {
            let text = format!("model '{}' gives no times: response_format must be json or text", spec.name);
            Err(about("response_format", text))
        }
    }
}

/// What the model reads beside the audio is its own affair: it gets the form's fields as parameters.
fn infer_request(form: Form, outputs: Vec<String>) -> std::result::Result<InferRequest, Refusal> {
    let mut parameters = Parameters::default();
    for (name, value) in form.parameters {
        // A form has texts alone.
        let choice = match (name, value.as_str()) {
            ("idempotent", "true" | "false") => ParameterChoice::BoolParam(value == "true"),
            _ => ParameterChoice::StringParam(value),
        };
        let value = InferParameter { parameter_choice: Some(choice) };
        parameters.set(name, &value).map_err(|error| Refusal::from(error).about(name))?;
    }
    let tensor = Tensor::new(AUDIO, Datatype::Bytes, vec![1], one_element(form.file)?)?;
    Ok(InferRequest { model: form.model, inputs: vec![tensor], outputs, parameters, ..InferRequest::default() })
}

/// A file as the only element of a BYTES tensor, without copying it.
fn one_element(file: Bytes) -> Result<Payload> {
    let length = u32::try_from(file.len()).map_err(|_| Error::invalid("the file is longer than 4 GiB"))?;
    let mut data = Payload::from(length.to_le_bytes().to_vec());
    data.push(file);
    Ok(data)
}

/// The refusal of a model, with the field that it is about.
fn named(error: Error) -> Refusal {
    let is_about = |field: &&&str| error.message.contains(&format!("parameter '{field}'"));
    let field = match error.code {
        Code::InvalidArgument => form::MODEL_PARAMETERS.iter().find(is_about).copied().unwrap_or("file"),
        _ => return error.into(),
    };
    Refusal::from(error).about(field)
}

fn element(answered: &Answered, name: &str) -> Result<String> {
    let wrong = || Error::new(Code::Internal, format!("the model's answer has no text as its output '{name}'"));
    let tensor = answered.answer.outputs.iter().find(|tensor| tensor.name == name).ok_or_else(wrong)?;
    let mut elements = orion_proto::bytes_elements(name, &tensor.data.contiguous(), tensor.rows())?;
    let only = elements.pop().filter(|_| elements.is_empty()).ok_or_else(wrong)?;
    String::from_utf8(only.to_vec()).map_err(|_| wrong())
}

#[cfg(test)]
mod tests;
