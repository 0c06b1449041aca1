//! `orion infer`: one request and its answer.

mod answer;
mod input;
mod npy;

use std::{io::Write, path::PathBuf, time::Duration};

use clap::{ArgGroup, Args};
use orion_proto::inference::{InferParameter, ModelConfigRequest, ModelInferRequest, infer_parameter::ParameterChoice};
use tonic::Request;

pub(crate) use answer::Answer;
pub(crate) use input::{Input, InputMetadata, fill_rows};

use crate::{
    Failure,
    client::{Client, ServerArguments, block_on},
    table::{Format, write, write_json},
};

/// What the server's own answer to a missed deadline may take on top of the deadline.
const GRACE: Duration = Duration::from_secs(1);

/// A request's model and what it is given.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("values").required(true).args(["text", "file", "data", "input"]))]
pub(crate) struct RequestArguments {
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
}

/// Send one request to a model and print its answer
#[derive(Args, Debug)]
#[command(after_help = "\
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
    #[command(flatten)]
    request: RequestArguments,
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
    let texts = arguments.request.texts()?;
    let files: Vec<String> = arguments.request.file.iter().map(|path| path.display().to_string()).collect();
    let labels = if files.is_empty() { &texts } else { &files };
    block_on(async {
        let mut client = arguments.server.connect().await?;
        let request = Request::new(request(arguments, arguments.request.wire(&texts, &mut client).await?));
        let call = client.inference.model_infer(request);
        let answered = match arguments.timeout {
            None => call.await,
            Some(limit) => tokio::time::timeout(limit + GRACE, call).await.unwrap_or_else(|_| {
                Err(tonic::Status::deadline_exceeded(format!("no answer within {} s", limit.as_secs_f64())))
            }),
        };
        let answer = Answer::read(answered?.into_inner())?;
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

impl RequestArguments {
    /// The texts that it names, which may be lines of standard input.
    pub(crate) fn texts(&self) -> Result<Vec<String>, Failure> {
        input::read_texts(&self.text)
    }

    async fn inputs(&self, texts: &[String], client: &mut Client) -> Result<Vec<Input>, Failure> {
        if !self.input.is_empty() {
            return Ok(self.input.clone());
        }
        let declared = declared_inputs(client, &self.model).await?;
        if !self.file.is_empty() {
            return Ok(vec![input::from_files(&self.model, &declared, &self.file)?]);
        }
        match &self.data {
            Some(values) => Ok(vec![input::from_data(&self.model, &declared, values, &self.shape)?]),
            None => Ok(vec![input::from_texts(&self.model, &declared, texts)?]),
        }
    }

    /// The request, as the model at this server declares what it takes.
    pub(crate) async fn wire(&self, texts: &[String], client: &mut Client) -> Result<ModelInferRequest, Failure> {
        let inputs = self.inputs(texts, client).await?;
        let (inputs, raw_input_contents) = inputs.into_iter().map(Input::into_wire).unzip();
        let mut request =
            ModelInferRequest { model_name: self.model.clone(), inputs, raw_input_contents, ..Default::default() };
        if self.truncate {
            set(&mut request, "truncate", ParameterChoice::BoolParam(true));
        }
        Ok(request)
    }
}

fn set(request: &mut ModelInferRequest, name: &str, choice: ParameterChoice) {
    request.parameters.insert(name.to_owned(), InferParameter { parameter_choice: Some(choice) });
}

fn request(arguments: &InferArguments, mut request: ModelInferRequest) -> ModelInferRequest {
    if let Some(timeout) = arguments.timeout {
        let microseconds = u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX);
        set(&mut request, "timeout", ParameterChoice::Uint64Param(microseconds));
    }
    if let Some(priority) = arguments.priority {
        set(&mut request, "priority", ParameterChoice::Uint64Param(priority));
    }
    request.id = arguments.id.clone().unwrap_or_default();
    request
}

/// A duration given in seconds, at least a microsecond, which is the wire's unit.
pub(crate) fn positive_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let seconds = seconds.filter(|duration| (1..=u128::from(u32::MAX) * 1000).contains(&duration.as_micros()));
    seconds.ok_or_else(|| "it must be a number of seconds above 0, such as 0.5".into())
}
