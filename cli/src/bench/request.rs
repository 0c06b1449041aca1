//! The request that every slot sends, made once from the model's declaration.

use bytes::Bytes;
use orion_proto::{
    Datatype,
    inference::{InferParameter, ModelInferRequest, infer_parameter::ParameterChoice},
};
use prost::Message;

use super::BenchArguments;
use crate::{
    Failure,
    client::Client,
    infer::{Input, InputMetadata, declared_inputs, fill_rows},
};

/// The text of a row when none is given: a sentence of ordinary length.
pub(crate) const DEFAULT_TEXT: &str = "The quick brown fox jumps over the lazy dog";
/// The input of models that generate text which says how much.
const MAX_TOKENS: &str = "max_tokens";
/// Columns where the declaration leaves them open.
const COLUMNS: usize = 16;

/// An encoded request that the server has answered once.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The encoded `ModelInferRequest`.
    pub(crate) message: Bytes,
    /// Rows that it holds.
    pub(crate) rows: u64,
    /// Tokens of each answer, where the model generates text.
    pub(crate) tokens: Option<u64>,
}

/// Builds the request and sends it once, so that a mistake is named before any load.
pub(crate) async fn build(arguments: &BenchArguments, client: &mut Client) -> Result<Prepared, Failure> {
    let model_name = arguments.model.clone().unwrap_or_default();
    let declared = declared_inputs(client, &model_name).await?;
    let needed = declared.iter().filter(|input| !input.optional || input.name == MAX_TOKENS);
    let inputs = needed.map(|input| fill(input, arguments)).collect::<Result<Vec<_>, _>>()?;
    let rows = inputs.first().map_or(1, Input::rows);
    let (inputs, raw_input_contents) = inputs.into_iter().map(Input::into_wire).unzip();
    let tokens = declared.iter().any(|input| input.name == MAX_TOKENS).then_some(u64::from(arguments.max_tokens));
    // Answers of one length: their texts' ends would make each run another.
    let whole = InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) };
    let parameters = tokens.map(|_| ("ignore_eos".to_owned(), whole)).into_iter().collect();
    let request = ModelInferRequest { model_name, inputs, raw_input_contents, parameters, ..Default::default() };
    let message = Bytes::from(request.encode_to_vec());
    client.inference.model_infer(request).await?;
    Ok(Prepared { message, rows, tokens })
}

fn fill(declared: &InputMetadata, arguments: &BenchArguments) -> Result<Input, Failure> {
    let rows = arguments.rows.get();
    let columns = i64::try_from(COLUMNS).unwrap_or(i64::MAX);
    let shape = match declared.datatype {
        Datatype::Bytes => fill_rows(&declared.shape, rows, 1),
        _ if !arguments.shape.is_empty() => arguments.shape.clone(),
        _ if declared.shape.is_empty() => fill_rows(&[-1, -1], rows, columns),
        _ => fill_rows(&declared.shape, rows, columns),
    };
    let count = orion_proto::element_count(&declared.name, &shape)?;
    let (limit, bytes) =
        (arguments.server.max_message_bytes(), declared.datatype.size().unwrap_or(4 + arguments.text.len()));
    if count.checked_mul(bytes).is_none_or(|bytes| bytes > limit) {
        let limit = arguments.server.max_message_mb;
        return Err(Failure::new(format!(
            "input '{}' of shape {shape:?} passes --max-message-mb {limit}",
            declared.name
        )));
    }
    let most = arguments.max_tokens.to_string();
    let fields: Vec<&str> = match declared.datatype {
        _ if declared.name == MAX_TOKENS => vec![&most; count],
        Datatype::Bytes => vec![arguments.text.as_str(); count],
        Datatype::Bool => vec!["true"; count],
        // Small whole numbers, which every numeric datatype holds.
        _ => ["0", "1", "2", "3", "4", "5", "6", "7"].into_iter().cycle().take(count).collect(),
    };
    Input::new(&declared.name, declared.datatype, shape, &fields)
}
