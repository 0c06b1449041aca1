//! `orion journal`: what is in a journal of jobs.

use std::{io::Write, path::Path};

use clap::{Args, Subcommand, ValueEnum};
use orion_proto::journal::{Record, record::Event};
use orion_scheduler::{
    jobs::{shown::kind, verify::verify},
    journal::{Embedded, Journal, Postgres},
};
use serde_json::{Value, json};

use crate::{
    Failure,
    table::{facts, write, write_json},
};

/// Records that are read at once.
const AT_ONCE: usize = 1000;

/// Check or print a journal of jobs, in a file while no scheduler has it open
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  orion journal verify data/jobs.redb
  orion journal dump data/jobs.redb | tail
  orion journal verify postgres://orion@10.0.0.9/orion")]
pub(crate) struct JournalArguments {
    #[command(subcommand)]
    command: JournalCommand,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Form {
    #[default]
    Table,
    Json,
}

#[derive(Subcommand, Debug)]
enum JournalCommand {
    /// Follow all records and look at each job; status 1 where one is not as it must be
    #[command(after_help = "Examples:\n  orion journal verify data/jobs.redb")]
    Verify {
        /// The journal: jobs.redb in the scheduler's data folder, or postgres://…
        file: String,
        /// How to print what was found
        #[arg(short, long, value_enum, default_value_t)]
        output: Form,
    },
    /// Print each record as a line of JSON, without what is in tensors
    #[command(
        after_help = "Examples:\n  orion journal dump data/jobs.redb\n  orion journal dump data/jobs.redb --from 1000"
    )]
    Dump {
        /// The journal: jobs.redb in the scheduler's data folder, or postgres://…
        file: String,
        /// The place of the first record
        #[arg(long, value_name = "NUMBER", default_value_t = 0)]
        from: u64,
    },
}

pub(crate) fn run(arguments: &JournalArguments, out: &mut dyn Write) -> Result<(), Failure> {
    match &arguments.command {
        JournalCommand::Verify { file, output } => {
            let found = of(file, |journal| Ok(verify(journal)?))?;
            match output {
                Form::Json => write_json(
                    out,
                    &json!({
                        "next": found.next, "epoch": found.epoch, "unfinished": found.unfinished, "ended": found.ended,
                    }),
                ),
                Form::Table => {
                    let ended = found.ended.iter().map(|(state, count)| (state.as_str(), count.to_string()));
                    let head = [
                        ("next record", found.next.to_string()),
                        ("epoch", found.epoch.to_string()),
                        ("unfinished", found.unfinished.to_string()),
                    ];
                    write(out, &facts(head.into_iter().chain(ended)))
                }
            }
        }
        JournalCommand::Dump { file, from } => of(file, |journal| dump(journal, *from, out)),
    }
}

/// Does something with the journal of this name.
fn of<T>(name: &str, act: impl FnOnce(&dyn Journal) -> Result<T, Failure>) -> Result<T, Failure> {
    if !name.contains("://") {
        return act(&Embedded::existing(Path::new(name))?);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(format!("threads cannot be started: {error}")))?;
    let journal = {
        let _inside = runtime.enter();
        Postgres::new(name)?
    };
    act(&journal)
}

fn dump(journal: &dyn Journal, from: u64, out: &mut dyn Write) -> Result<(), Failure> {
    let mut from = from;
    loop {
        let records = journal.read(from, AT_ONCE)?;
        let Some((last, _)) = records.last() else { return Ok(()) };
        from = last + 1;
        for (place, record) in records {
            write(out, &format!("{}\n", line(place, &record)))?;
        }
    }
}

fn line(place: u64, record: &Record) -> Value {
    let mut line = json!({ "record": place, "unix_ms": record.unix_ms });
    let (event, more) = match &record.event {
        None => ("nothing", json!({})),
        Some(Event::Epoch(epoch)) => ("epoch", json!({ "epoch": epoch })),
        Some(Event::Submitted(submitted)) => {
            let spec = submitted.spec.clone().unwrap_or_default();
            let more = json!({
                "job": place, "kind": kind(Some(&spec)), "key": spec.idempotency_key, "priority": spec.priority,
                "after": spec.after, "labels": spec.labels, "of": submitted.row.as_ref().map(|row| row.job),
                "line": submitted.row.as_ref().map(|row| row.line),
            });
            ("submitted", more)
        }
        Some(Event::Begun(begun)) => ("begun", json!({ "job": begun.job, "attempt": begun.attempt })),
        Some(Event::Failed(failed)) => (
            "failed",
            json!({
                "job": failed.job, "attempt": failed.attempt, "code": failed.code, "message": failed.message,
                "again_unix_ms": failed.again_unix_ms,
            }),
        ),
        Some(Event::Ended(ended)) => (
            "ended",
            json!({ "job": ended.job, "attempt": ended.attempt, "code": ended.code, "message": ended.message }),
        ),
        Some(Event::Released(gone)) => ("released", json!({ "job": gone.job, "attempt": gone.attempt })),
        Some(Event::Joined(joined)) => ("joined", json!({ "worker": joined.worker })),
        Some(Event::Left(left)) => ("left", json!({ "worker": left.worker })),
        Some(Event::Retried(retried)) => ("retried", json!({ "job": retried.job.as_ref().map(|job| job.id) })),
        Some(Event::Expanded(read)) => {
            ("expanded", json!({ "job": read.job, "read_bytes": read.read_bytes, "lines": read.lines }))
        }
        Some(Event::Filed(file)) => ("filed", json!({ "file": file.id, "name": file.name, "bytes": file.bytes })),
        Some(Event::Published(made)) => {
            ("published", json!({ "job": made.job, "model": made.name, "path": made.path }))
        }
        Some(Event::Forgotten(forgotten)) => ("forgotten", json!({ "job": forgotten.job })),
    };
    line["event"] = event.into();
    if let (Some(line), Value::Object(more)) = (line.as_object_mut(), more) {
        line.extend(more);
    }
    line
}
