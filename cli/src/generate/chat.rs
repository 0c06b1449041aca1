//! `orion chat`: a conversation in the terminal.

use std::io::{BufRead, IsTerminal, Write};

use clap::Args;
use orion_proto::inference::{InferParameter, infer_parameter::ParameterChoice};
use serde_json::{Value, json};

use super::{
    SamplingArguments,
    stream::{self, Asked, Told},
};
use crate::{
    Failure,
    client::{ServerArguments, block_on},
};

/// Talk with a model; each line is a message, an empty one or Ctrl-D ends it
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  orion chat smollm2
  orion chat smollm2 --system 'You answer in one word.' --temperature 0.7
  echo 'What is the capital of France?' | orion chat smollm2 --max-tokens 32")]
pub(crate) struct ChatArguments {
    /// The model's name
    model: String,
    /// What the model is told before the conversation
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    #[command(flatten)]
    sampling: SamplingArguments,
    #[command(flatten)]
    server: ServerArguments,
}

pub(crate) fn run_chat(arguments: &ChatArguments, out: &mut dyn Write) -> Result<(), Failure> {
    let mut messages: Vec<Value> = Vec::new();
    messages.extend(arguments.system.as_ref().map(|system| json!({"role": "system", "content": system})));
    let shows_prompt = std::io::stdin().is_terminal();
    block_on(async {
        let mut client = arguments.server.connect().await?;
        loop {
            if shows_prompt {
                say(out, "> ")?;
            }
            let mut line = String::new();
            let unread = |error| Failure::new(format!("standard input cannot be read: {error}"));
            std::io::stdin().lock().read_line(&mut line).map_err(unread)?;
            if line.trim().is_empty() {
                return Ok(());
            }
            messages.push(json!({"role": "user", "content": line.trim()}));
            let mut parameters = arguments.sampling.parameters();
            let conversation = ParameterChoice::StringParam(Value::Array(messages.clone()).to_string());
            parameters.push(("messages", InferParameter { parameter_choice: Some(conversation) }));
            let asked = Asked { model: &arguments.model, text: String::new(), parameters };
            let said = stream::answer(&mut client, asked, |Told { piece, last }| {
                write!(out, "{piece}{}", if last { "\n" } else { "" }).and_then(|()| out.flush())
            });
            messages.push(json!({"role": "assistant", "content": said.await?}));
        }
    })
}

fn say(out: &mut dyn Write, text: &str) -> Result<(), Failure> {
    let unwritten = |error| Failure::new(format!("cannot write: {error}"));
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(unwritten)
}
