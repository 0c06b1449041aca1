//! `orion jobs`: work that is submitted once and run until it has ended, whoever dies meanwhile.

mod file;
mod logs;
mod show;
mod submit;
pub(crate) mod watch;

use std::io::Write;

use clap::{Args, Subcommand};
use orion_proto::jobs::{GetJobRequest, ListJobsRequest, job_result::Outcome};
use orion_scheduler::jobs::shown::{answer_ids, json};

use crate::{
    Failure,
    client::{Client, ServerArguments, block_on},
    infer::Answer,
    table::{Format, write, write_json, write_table},
    train,
};

/// Submit jobs, which survive whatever dies, look at them, and fetch their results
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  orion jobs submit minilm --text 'a sentence' --watch
  orion jobs batch requests.jsonl --watch
  orion jobs ls --state failed
  orion jobs result 12 -o json")]
pub(crate) struct JobsArguments {
    #[command(subcommand)]
    command: JobsCommand,
    #[command(flatten)]
    server: ServerArguments,
}

#[derive(Subcommand, Debug)]
enum JobsCommand {
    Submit(Box<submit::SubmitArguments>),
    Batch(Box<submit::BatchArguments>),
    /// List jobs, the newest first
    #[command(after_help = "Examples:\n  orion jobs ls\n  orion jobs ls --state failed --label run=7 -o json")]
    Ls {
        /// waiting, queued, running, succeeded, failed or cancelled
        #[arg(long)]
        state: Option<String>,
        /// NAME=VALUE that they bear; may be given again
        #[arg(long, value_name = "LABEL", value_parser = submit::label)]
        label: Vec<(String, String)>,
        /// How many, 1,000 at most
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Only those whose number is below this: the page after the last
        #[arg(long, value_name = "ID", default_value_t = 0, hide_default_value = true)]
        before: u64,
        /// The lines of this job's file
        #[arg(long, value_name = "ID", default_value_t = 0, hide_default_value = true)]
        of: u64,
    },
    /// Show a job and each attempt that failed
    #[command(after_help = "Examples:\n  orion jobs show 12")]
    Show {
        /// The job's number
        id: u64,
    },
    /// Follow a job until it has ended; the exit status says how
    #[command(after_help = "Examples:\n  orion jobs watch 12\n\nThe exit status is 0 where it succeeded, 1 where not.")]
    Watch {
        /// The job's number
        id: u64,
    },
    /// Print what happened to a job: its attempts, what it waits for, how it ended
    #[command(after_help = "Examples:\n  orion jobs logs 12\n  orion jobs logs 12 --follow")]
    Logs {
        /// The job's number
        id: u64,
        /// Go on until it has ended
        #[arg(long, short)]
        follow: bool,
    },
    /// End a job that has not ended, and those that wait for it
    #[command(after_help = "Examples:\n  orion jobs cancel 12")]
    Cancel {
        /// The job's number
        id: u64,
    },
    /// Give a job that failed or was cancelled its attempts anew
    #[command(after_help = "Examples:\n  orion jobs retry 12")]
    Retry {
        /// The job's number
        id: u64,
    },
    /// Print what a job has to show; of a file, a line for each that succeeded
    #[command(after_help = "\
Examples:
  orion jobs result 12
  orion jobs result 12 -o json
  orion jobs result 13 > answers.jsonl
  orion jobs result 13 --errors

What came of a file's lines can be read while the job runs.")]
    Result {
        /// The job's number
        id: u64,
        /// Of a file: the lines that did not succeed, and why
        #[arg(long)]
        errors: bool,
    },
}

pub(crate) fn run(arguments: &JobsArguments, out: &mut dyn Write) -> Result<(), Failure> {
    let texts = match &arguments.command {
        JobsCommand::Submit(submit) => submit.texts()?,
        _ => Vec::new(),
    };
    block_on(async {
        let mut client = arguments.server.connect().await?;
        let (client, format) = (&mut client, arguments.server.output);
        let asked = |id: &u64| GetJobRequest { id: *id, ..Default::default() };
        match &arguments.command {
            JobsCommand::Submit(submit) => submit::submit(client, submit, &texts, format, out).await,
            JobsCommand::Batch(batch) => submit::batch(client, batch, format, out).await,
            JobsCommand::Ls { state, label, limit, before, of } => {
                let (state, labels) = (state.clone().unwrap_or_default(), label.iter().cloned().collect());
                let (before, limit, of_job, kind) = (*before, *limit, *of, String::new());
                let asked = ListJobsRequest { state, labels, before, limit, of_job, kind };
                list(client, asked, format, out).await
            }
            JobsCommand::Show { id } => show::one(client.jobs.get(asked(id)).await?.into_inner(), format, out),
            JobsCommand::Watch { id } => watch::watch(client, *id, format, out).await,
            JobsCommand::Logs { id, follow } => logs::logs(client, *id, *follow, format, out).await,
            JobsCommand::Cancel { id } => show::one(client.jobs.cancel(asked(id)).await?.into_inner(), format, out),
            JobsCommand::Retry { id } => show::one(client.jobs.retry(asked(id)).await?.into_inner(), format, out),
            JobsCommand::Result { id, errors } => result(client, *id, *errors, format, out).await,
        }
    })
}

async fn list(client: &mut Client, asked: ListJobsRequest, format: Format, out: &mut dyn Write) -> Result<(), Failure> {
    let answer = client.jobs.list(asked).await?.into_inner();
    match format {
        Format::Json => {
            let jobs: Vec<_> = answer.jobs.iter().map(json).collect();
            write_json(out, &serde_json::json!({ "jobs": jobs, "before": answer.before }))
        }
        Format::Table => {
            write_table(out, show::rows(&answer.jobs))?;
            match answer.before {
                0 => Ok(()),
                before => write(out, &format!("there are more: --before {before}\n")),
            }
        }
    }
}

async fn result(
    client: &mut Client,
    id: u64,
    errors: bool,
    format: Format,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let job = client.jobs.get(GetJobRequest { id, ..Default::default() }).await?.into_inner();
    if job.progress.is_some() {
        let (succeeded, others) = answer_ids(id);
        return file::read(client, if errors { others } else { succeeded }, out).await;
    }
    if errors {
        return Err(Failure::new(format!("job {id} is no file, its error is in: orion jobs show {id}")));
    }
    match client.jobs.result(GetJobRequest { id, ..Default::default() }).await?.into_inner().outcome {
        Some(Outcome::Inference(response)) => {
            let answer = Answer::read(response)?;
            match format {
                Format::Json => write_json(out, &answer),
                Format::Table => write(out, &answer.as_tables(&[])),
            }
        }
        Some(Outcome::Trained(model)) => train::result(&model, format, out),
        Some(Outcome::Call(answer)) => write(out, &format!("{}\n", String::from_utf8_lossy(&answer.body))),
        _ => Err(Failure::new(format!("the result of job {id} is of a kind that this command does not know"))),
    }
}
