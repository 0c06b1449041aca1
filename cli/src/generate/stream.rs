//! One generation over the Open Inference Protocol's stream.

use futures::stream;
use orion_proto::{
    bytes_elements, encode_bytes_elements,
    inference::{
        InferParameter, ModelInferRequest, infer_parameter::ParameterChoice, model_infer_request::InferInputTensor,
    },
};

use crate::{Failure, client::Client};

/// What to generate.
pub(super) struct Asked<'a> {
    pub(super) model: &'a str,
    pub(super) text: String,
    pub(super) parameters: Vec<(&'static str, InferParameter)>,
}

/// A piece of the text.
pub(super) struct Told<'a> {
    pub(super) piece: &'a str,
    pub(super) last: bool,
}

impl Asked<'_> {
    fn wire(self) -> ModelInferRequest {
        let input = |name: &str, datatype: &str| InferInputTensor {
            name: name.into(),
            datatype: datatype.into(),
            shape: vec![1],
            ..Default::default()
        };
        ModelInferRequest {
            model_name: self.model.to_owned(),
            parameters: self.parameters.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            inputs: vec![input("text_input", "BYTES"), input("stream", "BOOL")],
            raw_input_contents: vec![encode_bytes_elements(&[self.text]), vec![1].into()],
            ..Default::default()
        }
    }
}

/// Asks, and tells each piece as it comes; gives the whole text.
pub(super) async fn answer(
    client: &mut Client,
    asked: Asked<'_>,
    mut tell: impl FnMut(Told<'_>) -> std::io::Result<()>,
) -> Result<String, Failure> {
    let mut answers = client.inference.model_stream_infer(stream::iter([asked.wire()])).await?.into_inner();
    let mut text = String::new();
    while let Some(answer) = answers.message().await? {
        if !answer.error_message.is_empty() {
            return Err(Failure::new(answer.error_message));
        }
        let Some(response) = answer.infer_response else { continue };
        let last = response.head.parameters.get("triton_final_response").and_then(|p| p.parameter_choice.as_ref());
        let last = last == Some(&ParameterChoice::BoolParam(true));
        let raw = response.raw_output_contents.first().map(|tensor| tensor.contiguous()).unwrap_or_default();
        let piece = bytes_elements("text_output", &raw, 1)?
            .pop()
            .map(|piece| String::from_utf8_lossy(piece.as_ref()).into_owned());
        let piece = piece.unwrap_or_default();
        tell(Told { piece: &piece, last }).map_err(|error| Failure::new(format!("cannot write: {error}")))?;
        text.push_str(&piece);
    }
    Ok(text)
}
