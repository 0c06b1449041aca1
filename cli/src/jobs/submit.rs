//! `orion jobs submit`: a request that is run whatever dies.

use std::{io::Write, time::Duration};

use clap::Args;
use orion_proto::jobs::{JobSpec, RetryPolicy, SubmitJobRequest, job_spec::Work};
use serde_json::json;

use super::watch;
use crate::{
    Failure,
    client::Client,
    infer::{RequestArguments, positive_seconds},
    table::{Format, write, write_json},
};

/// Submit a request as a job; prints its number once it is on the scheduler's disk
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  orion jobs submit minilm --text 'a sentence'
  orion jobs submit minilm --text 'a sentence' --key letter-17 --label run=7 --watch
  orion jobs submit smollm2 --input 'text_input=BYTES[1]:[\"Once\"]' --attempts 5 --deadline 3600")]
pub(super) struct SubmitArguments {
    #[command(flatten)]
    request: RequestArguments,
    /// A second submission with the same key is the first job
    #[arg(long)]
    key: Option<String>,
    /// How urgent it is
    #[arg(long, value_parser = ["realtime", "critical", "high", "normal", "low"], default_value = "normal")]
    priority: String,
    /// Seconds from now by which it must have ended
    #[arg(long, value_name = "SECONDS", value_parser = positive_seconds)]
    deadline: Option<Duration>,
    /// How often it is tried
    #[arg(long, value_name = "NUMBER", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    attempts: u32,
    /// Seconds before the second attempt, doubled before each later one
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = positive_seconds)]
    back_off: Duration,
    /// Seconds for which its result is kept [default: a week]
    #[arg(long, value_name = "SECONDS", value_parser = positive_seconds)]
    keep: Option<Duration>,
    /// A job that must have succeeded before; may be given again
    #[arg(long, value_name = "ID")]
    after: Vec<u64>,
    /// NAME=VALUE to find it by; may be given again
    #[arg(long, value_name = "LABEL", value_parser = label)]
    label: Vec<(String, String)>,
    /// Wait until it has ended
    #[arg(long)]
    watch: bool,
}

/// NAME=VALUE.
pub(super) fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it must be NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}

impl SubmitArguments {
    /// The texts that the request names, which may be lines of standard input.
    pub(super) fn texts(&self) -> Result<Vec<String>, Failure> {
        self.request.texts()
    }
}

/// Submits it, prints its number, and with `--watch` follows it.
pub(super) async fn submit(
    client: &mut Client,
    arguments: &SubmitArguments,
    texts: &[String],
    format: Format,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let request = arguments.request.wire(texts, client).await?;
    let (attempts, back_off_ms) = (arguments.attempts, milliseconds(arguments.back_off));
    let spec = JobSpec {
        work: Some(Work::Inference(request)),
        idempotency_key: arguments.key.clone().unwrap_or_default(),
        priority: arguments.priority.clone(),
        deadline_ms: arguments.deadline.map_or(0, milliseconds),
        retry: Some(RetryPolicy { attempts, back_off_ms, codes: Vec::new() }),
        keep_ms: arguments.keep.map_or(0, milliseconds),
        after: arguments.after.clone(),
        labels: arguments.label.iter().cloned().collect(),
    };
    let id = client.jobs.submit(SubmitJobRequest { spec: Some(spec) }).await?.into_inner().id;
    if arguments.watch {
        return watch::watch(client, id, format, out).await;
    }
    match format {
        Format::Json => write_json(out, &json!({ "id": id })),
        Format::Table => write(out, &format!("{id}\n")),
    }
}
