//! `orion status`: the scheduler itself.

use std::io::Write;

use clap::Args;
use orion_proto::cluster::{StatusRequest, StatusResponse};
use serde_json::{Value, json};

use crate::{
    Failure,
    client::{ServerArguments, block_on},
    table::{Format, facts, write, write_json},
    units::{bytes, seconds},
};

/// Show the scheduler's state, requests and CPU
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  orion status
  orion status --server 10.0.0.5:8001 -o json")]
pub(crate) struct StatusArguments {
    #[command(flatten)]
    server: ServerArguments,
}

pub(crate) fn run(arguments: &StatusArguments, out: &mut dyn Write) -> Result<(), Failure> {
    block_on(async {
        let mut client = arguments.server.connect().await?;
        let status = client.cluster.status(StatusRequest {}).await?.into_inner();
        match arguments.server.output {
            Format::Json => write_json(out, &as_json(&status)),
            Format::Table => write(out, &as_text(&status)),
        }
    })
}

fn as_json(status: &StatusResponse) -> Value {
    json!({
        "version": status.version,
        "state": status.state,
        "uptime_seconds": status.uptime_seconds,
        "epoch": status.epoch,
        "cpu_seconds": status.cpu_seconds,
        "resident_bytes": status.resident_bytes,
        "requests_succeeded": status.requests_succeeded,
        "requests_failed": status.requests_failed,
        "requests_queued": status.requests_queued,
        "requests_running": status.requests_running,
        "attempts_retried": status.attempts_retried,
        "results_dropped": status.results_dropped,
        "batches_bisected": status.batches_bisected,
        "batches_hedged": status.batches_hedged,
    })
}

fn as_text(status: &StatusResponse) -> String {
    facts([
        ("version", status.version.clone()),
        ("state", status.state.clone()),
        ("uptime", seconds(status.uptime_seconds)),
        ("epoch", status.epoch.to_string()),
        ("CPU time", seconds(status.cpu_seconds)),
        ("resident memory", bytes(status.resident_bytes)),
        (
            "requests",
            format!(
                "{} succeeded, {} failed, {} running, {} queued",
                status.requests_succeeded, status.requests_failed, status.requests_running, status.requests_queued
            ),
        ),
        ("attempts retried", status.attempts_retried.to_string()),
        ("results dropped", status.results_dropped.to_string()),
        ("batches", format!("{} bisected, {} hedged", status.batches_bisected, status.batches_hedged)),
    ])
}
