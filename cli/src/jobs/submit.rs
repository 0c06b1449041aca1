//! `orion jobs submit`: a request that is run whatever dies.

use std::{io::Write, path::PathBuf, time::Duration};

use clap::Args;
use orion_proto::{
    files::FileRequest,
    jobs::{FileCalls, JobSpec, RetryPolicy, SubmitJobRequest, job_spec::Work},
};
use serde_json::json;

use super::{file, watch};
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
    #[command(flatten)]
    terms: TermsArguments,
}

/// Submit a file as a job: each line is a call of the HTTP API
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  orion jobs batch requests.jsonl
  orion jobs batch texts.jsonl --path /v1/embeddings --model minilm --watch
  orion jobs result 12 > answers.jsonl
  orion jobs batch texts.csv --path /v1/embeddings --model minilm
  orion jobs batch rows.parquet --path /v2/models/iris/infer

A line is an object as OpenAI's batches have it (custom_id, method, url, body), or a body for --path. A column of CSV or Parquet is
a field of the body, or an input of the model that infers.")]
pub(super) struct BatchArguments {
    /// The file; '-' reads standard input
    file: PathBuf,
    /// What lines that do not say it call, such as /v1/embeddings
    #[arg(long, value_name = "PATH", default_value = "", hide_default_value = true)]
    path: String,
    /// The model of bodies that name none
    #[arg(long, default_value = "", hide_default_value = true)]
    model: String,
    /// jsonl, csv or parquet [default: what the file's name says]
    #[arg(long, value_parser = ["", "jsonl", "csv", "parquet"], default_value = "", hide_default_value = true, hide_possible_values = true)]
    format: String,
    #[command(flatten)]
    terms: TermsArguments,
}

/// What is said of a job beside its work.
#[derive(Args, Debug)]
struct TermsArguments {
    /// A second submission with the same key is the first job
    #[arg(long)]
    key: Option<String>,
    /// How urgent it is [default: normal, of a file low]
    #[arg(long, value_parser = ["realtime", "critical", "high", "normal", "low"])]
    priority: Option<String>,
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

impl TermsArguments {
    fn spec(&self, work: Work) -> JobSpec {
        let (attempts, back_off_ms) = (self.attempts, milliseconds(self.back_off));
        JobSpec {
            work: Some(work),
            idempotency_key: self.key.clone().unwrap_or_default(),
            priority: self.priority.clone().unwrap_or_default(),
            deadline_ms: self.deadline.map_or(0, milliseconds),
            retry: Some(RetryPolicy { attempts, back_off_ms, codes: Vec::new() }),
            keep_ms: self.keep.map_or(0, milliseconds),
            after: self.after.clone(),
            labels: self.label.iter().cloned().collect(),
        }
    }

    /// Submits this work, prints its number, and with `--watch` follows it.
    async fn submit(
        &self,
        client: &mut Client,
        work: Work,
        format: Format,
        out: &mut dyn Write,
    ) -> Result<(), Failure> {
        let spec = Some(self.spec(work));
        let id = client.jobs.submit(SubmitJobRequest { spec }).await?.into_inner().id;
        if self.watch {
            return watch::watch(client, id, format, out).await;
        }
        match format {
            Format::Json => write_json(out, &json!({ "id": id })),
            Format::Table => write(out, &format!("{id}\n")),
        }
    }
}

/// Submits a request.
pub(super) async fn submit(
    client: &mut Client,
    arguments: &SubmitArguments,
    texts: &[String],
    format: Format,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let request = arguments.request.wire(texts, client).await?;
    arguments.terms.submit(client, Work::Inference(request), format, out).await
}

/// Sends a file and submits it.
pub(super) async fn batch(
    client: &mut Client,
    arguments: &BatchArguments,
    format: Format,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let file_id = file::put(client, &arguments.file).await?.id;
    let (path, model, format_of) = (arguments.path.clone(), arguments.model.clone(), arguments.format.clone());
    let submitted = arguments.terms.submit(
        client,
        Work::File(FileCalls { file_id: file_id.clone(), path, model, format: format_of }),
        format,
        out,
    );
    let submitted = submitted.await;
    // The job keeps what it needs of it.
    let deleted = client.files.delete(FileRequest { id: file_id }).await;
    submitted.and(deleted.map(|_| ()).map_err(Failure::from))
}
