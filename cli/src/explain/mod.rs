//! `orion explain`: why a request took as long as it did, or where a model may run and at what cost.

mod model;
mod request;

use std::io::Write;

use clap::Args;
use orion_proto::cluster::{Cost, ExplainModelRequest, ExplainRequestRequest, ModelExplanation, RequestExplanation};
use orion_scheduler::api::explanation;
use serde_json::Value;
use tonic::Code;

use crate::{
    Failure,
    client::{Client, ServerArguments, block_on},
    table::{Format, write, write_json},
    units::seconds,
};

/// Show why a request took its time, or where a model may run
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  orion explain minilm
  orion infer minilm --text 'a sentence' --id 7 && orion explain 7
  orion explain --request minilm -o json

Of a request: its stages, its device with each term of the predicted cost, the next best device, and why. It is named by its \
id: the Open Inference Protocol's id, or the header x-request-id. The server remembers the last that were answered. \
Of a model: each device's predicted seconds for one row, max(work, load, carriage) + prefill + service + answer, or why it takes none.")]
pub(crate) struct ExplainArguments {
    /// A model's name or a request's id; a name that is both is the model's
    #[arg(value_name = "REQUEST|MODEL")]
    name: String,
    /// The name is a request's id
    #[arg(long, conflicts_with = "model")]
    request: bool,
    /// The name is a model's
    #[arg(long)]
    model: bool,
    #[command(flatten)]
    server: ServerArguments,
}

enum Explanation {
    Model(ModelExplanation),
    Request(Box<RequestExplanation>),
}

pub(crate) fn run(arguments: &ExplainArguments, out: &mut dyn Write) -> Result<(), Failure> {
    block_on(async {
        let mut client = arguments.server.connect().await?;
        let found = find(arguments, &mut client).await?;
        match arguments.server.output {
            Format::Json => write_json(out, &found.as_json()),
            Format::Table => write(out, &found.as_text()),
        }
    })
}

async fn find(arguments: &ExplainArguments, client: &mut Client) -> Result<Explanation, Failure> {
    let name = &arguments.name;
    if !arguments.request {
        match client.cluster.explain_model(ExplainModelRequest { name: name.clone() }).await {
            Ok(found) => return Ok(Explanation::Model(found.into_inner())),
            // What no model can be called may well be a request's id.
            Err(status) if !arguments.model && matches!(status.code(), Code::NotFound | Code::InvalidArgument) => {}
            Err(status) => return Err(status.into()),
        }
    }
    match client.cluster.explain_request(ExplainRequestRequest { id: name.clone() }).await {
        Ok(found) => Ok(Explanation::Request(Box::new(found.into_inner()))),
        Err(status) if status.code() == Code::NotFound && !arguments.request => {
            let message = format!("'{name}' is no model that the server knows, and {}", status.message());
            Err(Failure::new(message)
                .hint("list the models with: orion models; name a request with: orion infer --id ID"))
        }
        Err(status) => Err(status.into()),
    }
}

impl Explanation {
    fn as_json(&self) -> Value {
        match self {
            Self::Model(found) => explanation::model(found),
            Self::Request(found) => explanation::request(found),
        }
    }

    fn as_text(&self) -> String {
        match self {
            Self::Model(found) => model::text(found),
            Self::Request(found) => request::text(found),
        }
    }
}

/// A cost's terms by their headings. Only a generation has a prefill.
fn terms(cost: &Cost, generation: bool) -> Vec<(&'static str, String)> {
    let all = [
        ("work", cost.work_seconds),
        ("load", cost.load_seconds),
        ("carriage", cost.carriage_seconds),
        (PREFILL, cost.prefill_seconds),
        ("service", cost.service_seconds),
        ("answer", cost.answer_seconds),
        ("total", cost.total_seconds),
    ];
    let text = |term: f64| if term == 0.0 { "0".to_owned() } else { seconds(term) };
    let shown = all.into_iter().filter(|(name, _)| generation || *name != PREFILL);
    shown.map(|(name, term)| (name, text(term))).collect()
}

const PREFILL: &str = "prefill";

/// Columns of a table of places: what names each, then the terms of its cost.
fn columns(names: &[&'static str], generation: bool) -> Vec<&'static str> {
    let terms = terms(&Cost::default(), generation);
    names.iter().copied().chain(terms.into_iter().map(|(name, _)| name)).collect()
}
