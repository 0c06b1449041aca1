//! `orion infer`: one request and its answer.

mod answer;
mod input;
mod npy;

use std::{collections::HashMap, io::Write, path::PathBuf, time::Duration};

use clap::{ArgGroup, Args};
use orion_proto::inference::{InferParameter, ModelConfigRequest, ModelInferRequest, infer_parameter::ParameterChoice};
use tonic::Request;

pub(crate) use input::{Input, InputMetadata, fill_rows};

use crate::{
    Failure,
    client::{Client, ServerArguments, block_on},
    table::{Format, write, write_json},
};

/// What the server's own answer to a missed deadline may take on top of the deadline.
const GRACE: Duration = Duration::from_secs(1);

/// Send one request to a model and print its answer
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("values").required(true).args(["text", "file", "data", "input"]), after_help = "\
Examples:
  orion infer minilm --text 'a cat on a mat' --text 'a dog in a bog'
  sort sentences.txt | orion infer minilm --text - -o json
  orion infer efficientnet-lite0 --file cat.jpg --file dog.png
  orion infer identity --data 1,2,3,4 --shape 2,2
  orion infer identity --input 'INPUT0=FP32[1,3]:1,2,3'
  orion infer identity --input INPUT0=@array.npy
  orion infer minilm --input 'text=BYTES[2]:[\"hello, world\",\"bye\"]' --timeout 0.5
  orion infer reranker --input 'query=BYTES[1]:[\"who?\"]' --input 'text=BYTES[1]:[\"nobody\"]'")]
pub(crate) struct InferArguments {
    /// The model's name
    model: String,
    /// Text for the model's BYTES input; may be given again; '-' reads lines from standard input
    #[arg(long, value_name = "TEXT")]
    text: Vec<String>,
    /// A file as it is, for the model's BYTES input: an image, a recording; may be given again
    #[arg(long, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// Values for the model's only numeric input
    #[arg(long, value_name = "VALUES", allow_hyphen_values = true)]
    data: Option<String>,
    /// Shape of --data
    #[arg(long, value_name = "DIMS", requires = "data", value_delimiter = ',')]
    shape: Vec<i64>,
    /// An input in full: NAME=DTYPE[SHAPE]:VALUES, BYTES also as a JSON array of strings, or NAME=@FILE.npy; may be given again
    #[arg(long, value_name = "INPUT")]
    input: Vec<Input>,
    /// Cut text beyond the model's limit instead of refusing it
    #[arg(long)]
    truncate: bool,
    /// Seconds to wait for the answer
    #[arg(long, value_name = "SECONDS", value_parser = positive_seconds)]
    timeout: Option<Duration>,
    /// 1 realtime, 2 critical, 3 high, 4 normal, 5 low
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..=5))]
    priority: Option<u64>,
    /// A mark that the answer repeats
    #[arg(long)]
    id: Option<String>,
    #[command(flatten)]
    server: ServerArguments,
}

pub(crate) fn run(arguments: &InferArguments, out: &mut dyn Write) -> Result<(), Failure> {
    let texts = input::read_texts(&arguments.text)?;
    let files: Vec<String> = arguments.file.iter().map(|path| path.display().to_string()).collect();
    let labels = if files.is_empty() { &texts } else { &files };
    block_on(async {
        let mut client = arguments.server.connect().await?;
        let inputs = inputs(arguments, &texts, &mut client).await?;
        let request = Request::new(request(arguments, inputs));
        let call = client.inference.model_infer(request);
        let answered = match arguments.timeout {
            None => call.await,
            Some(limit) => tokio::time::timeout(limit + GRACE, call).await.unwrap_or_else(|_| {
                Err(tonic::Status::deadline_exceeded(format!("no answer within {} s", limit.as_secs_f64())))
            }),
        };
        let answer = answer::Answer::read(answered?.into_inner())?;
        match arguments.server.output {
            Format::Json => write_json(out, &answer),
            Format::Table => write(out, &answer.as_tables(labels)),
        }
    })
}

/// What the model says it takes. Its metadata would not say which inputs may be left out.
pub(crate) async fn declared_inputs(client: &mut Client, model: &str) -> Result<Vec<InputMetadata>, Failure> {
    let request = ModelConfigRequest { name: model.to_owned(), version: String::new() };
    let config = client.inference.model_config(request).await?.into_inner().config.unwrap_or_default();
    config.input.into_iter().map(InputMetadata::try_from).collect()
}

async fn inputs(arguments: &InferArguments, texts: &[String], client: &mut Client) -> Result<Vec<Input>, Failure> {
    if !arguments.input.is_empty() {
        return Ok(arguments.input.clone());
    }
    let declared = declared_inputs(client, &arguments.model).await?;
    if !arguments.file.is_empty() {
        return Ok(vec![input::from_files(&arguments.model, &declared, &arguments.file)?]);
    }
    match &arguments.data {
        Some(values) => Ok(vec![input::from_data(&arguments.model, &declared, values, &arguments.shape)?]),
        None => Ok(vec![input::from_texts(&arguments.model, &declared, texts)?]),
    }
}

fn request(arguments: &InferArguments, inputs: Vec<Input>) -> ModelInferRequest {
    let mut parameters = HashMap::new();
    let mut set = |name: &str, choice| {
        parameters.insert(name.to_owned(), InferParameter { parameter_choice: Some(choice) });
    };
    if arguments.truncate {
        set("truncate", ParameterChoice::BoolParam(true));
    }
    if let Some(timeout) = arguments.timeout {
        let microseconds = u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX);
        set("timeout", ParameterChoice::Uint64Param(microseconds));
    }
    if let Some(priority) = arguments.priority {
        set("priority", ParameterChoice::Uint64Param(priority));
    }
    let (inputs, raw_input_contents) = inputs.into_iter().map(Input::into_wire).unzip();
    ModelInferRequest {
        model_name: arguments.model.clone(),
        id: arguments.id.clone().unwrap_or_default(),
        parameters,
        inputs,
        raw_input_contents,
        ..Default::default()
    }
}

/// A duration given in seconds, at least a microsecond, which is the wire's unit.
pub(crate) fn positive_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let seconds = seconds.filter(|duration| (1..=u128::from(u32::MAX) * 1000).contains(&duration.as_micros()));
    seconds.ok_or_else(|| "it must be a number of seconds above 0, such as 0.5".into())
}
