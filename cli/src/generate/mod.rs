//! `orion generate` and `orion chat`: text as it is generated.

mod chat;
mod stream;

use std::io::{Read, Write};

use clap::Args;
use orion_proto::inference::{InferParameter, infer_parameter::ParameterChoice};
use serde::Serialize;
use serde_json::{Value, json};

pub(crate) use chat::{ChatArguments, run_chat};
use stream::{Asked, Told};

use crate::{
    Failure,
    client::{ServerArguments, block_on},
    table::{Format, write_json},
};

/// How the next token is drawn.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingArguments {
    /// Tokens to generate at most; as many as fit unless given
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: Option<u32>,
    /// 0 takes the likeliest token, always
    #[arg(long, value_name = "NUMBER", default_value_t = 0.0)]
    temperature: f64,
    /// Draw among so many likeliest tokens; 0: among all
    #[arg(long, value_name = "TOKENS", default_value_t = 0)]
    top_k: u32,
    /// Draw among the likeliest tokens that together have this probability
    #[arg(long, value_name = "NUMBER", default_value_t = 1.0)]
    top_p: f64,
    /// Seed of the draws: the same seed gives the same text
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    seed: u64,
    /// Text before which the answer ends
    #[arg(long, value_name = "TEXT")]
    stop: Option<String>,
    /// The answer is one JSON object
    #[arg(long, conflicts_with = "schema")]
    json: bool,
    /// The answer is JSON that the JSON Schema in this file describes
    #[arg(long, value_name = "FILE", value_parser = schema)]
    schema: Option<Value>,
}

fn schema(path: &str) -> Result<Value, String> {
    let text = std::fs::read(path).map_err(|error| error.to_string())?;
    serde_json::from_slice(&text).map_err(|error| format!("it is no JSON: {error}"))
}

impl SamplingArguments {
    fn parameters(&self) -> Vec<(&'static str, InferParameter)> {
        let parameter = |choice| InferParameter { parameter_choice: Some(choice) };
        let mut list = vec![
            ("temperature", parameter(ParameterChoice::DoubleParam(self.temperature))),
            ("top_k", parameter(ParameterChoice::Uint64Param(self.top_k.into()))),
            ("top_p", parameter(ParameterChoice::DoubleParam(self.top_p))),
            ("seed", parameter(ParameterChoice::Uint64Param(self.seed))),
        ];
        if let Some(stop) = &self.stop {
            list.push(("stop", parameter(ParameterChoice::StringParam(stop.clone()))));
        }
        if let Some(most) = self.max_tokens {
            list.push(("max_tokens", parameter(ParameterChoice::Uint64Param(most.into()))));
        }
        let format = match &self.schema {
            Some(schema) => Some(json!({"type": "json_schema", "json_schema": {"schema": schema}})),
            None => self.json.then(|| json!({"type": "json_object"})),
        };
        list.extend(
            format.map(|format| ("response_format", parameter(ParameterChoice::StringParam(format.to_string())))),
        );
        list
    }
}

/// Go on from a text
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  orion generate stories15m 'Once upon a time' --max-tokens 64
  orion generate smollm2 'The capital of France is' --max-tokens 8 -o json
  cat prompt.txt | orion generate smollm2 - --temperature 0.8 --seed 7
  orion generate smollm2 'A person as JSON: ' --schema person.json --max-tokens 64")]
pub(crate) struct GenerateArguments {
    /// The model's name
    model: String,
    /// The text to go on from; '-' reads it from standard input
    prompt: String,
    #[command(flatten)]
    sampling: SamplingArguments,
    #[command(flatten)]
    server: ServerArguments,
}

/// What `-o json` prints.
#[derive(Serialize)]
struct Generated {
    model: String,
    text: String,
}

pub(crate) fn run(arguments: &GenerateArguments, out: &mut dyn Write) -> Result<(), Failure> {
    let mut prompt = arguments.prompt.clone();
    if prompt == "-" {
        prompt.clear();
        let unread = |error| Failure::new(format!("standard input cannot be read: {error}"));
        std::io::stdin().read_to_string(&mut prompt).map_err(unread)?;
    }
    let asked = Asked { model: &arguments.model, text: prompt, parameters: arguments.sampling.parameters() };
    block_on(async {
        let mut client = arguments.server.connect().await?;
        let shows = arguments.server.output == Format::Table;
        let mut text = String::new();
        stream::answer(&mut client, asked, |Told { piece, last }| {
            text.push_str(piece);
            if shows {
                let end = if last { "\n" } else { "" };
                write!(out, "{piece}{end}").and_then(|()| out.flush())?;
            }
            Ok(())
        })
        .await?;
        match shows {
            true => Ok(()),
            false => write_json(out, &Generated { model: arguments.model.clone(), text }),
        }
    })
}
