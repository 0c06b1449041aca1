//! `orion bench replay`: an open loop. A trace's requests are sent to a running server when they are due, whatever was
//! answered, and what came back is held against the trace's objective.

mod figures;
mod send;
mod trace;

use std::{io::Write, path::PathBuf};

use clap::Args;

use crate::{
    Failure,
    client::{ServerArguments, block_on},
    table::{Format, write, write_json},
};
use figures::Figures;
use trace::Trace;

/// Send a trace's requests to a running server when they are due
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  orion bench replay trace.json
  orion bench replay trace.json --slow 4 -o json

The trace is JSON as scripts/sched_sim.py a --dump writes it: `slo_ms`, the objective; `warm_ms`, from when on arrivals count; \
`models`, a list; `arrivals`, pairs of milliseconds and a place in that list, in the order of time. The model at place 3 \
is served as `m3` (--prefix) and takes `INPUT0`, FP32 [-1]. Each request's deadline is the objective from when it was due; \
scripts/replay-trace starts such a cluster with emulated devices.")]
pub(super) struct ReplayArguments {
    /// The trace
    #[arg(value_name = "TRACE")]
    trace: PathBuf,
    /// How many times slower than the trace says, its objective too
    #[arg(long, value_name = "TIMES", default_value = "1", value_parser = times)]
    slow: f64,
    /// What the models' names begin with
    #[arg(long, value_name = "TEXT", default_value = "m")]
    prefix: String,
    /// HTTP/2 connections
    #[arg(long, value_name = "N", default_value = "8", value_parser = clap::value_parser!(u8).range(1..=64))]
    connections: u8,
}

pub(super) fn run(arguments: &ReplayArguments, server: &ServerArguments, out: &mut dyn Write) -> Result<(), Failure> {
    let shown = arguments.trace.display();
    let json = std::fs::read(&arguments.trace)
        .map_err(|error| Failure::new(format!("trace '{shown}' cannot be read: {error}")))?;
    let trace = Trace::parse(&json).map_err(|error| Failure::new(format!("trace '{shown}': {error}")))?;
    let sent = block_on(send::replay(&trace, arguments, server))?;
    let figures = Figures::of(&trace, arguments.slow, &sent);
    match server.output {
        Format::Json => write_json(out, &figures),
        Format::Table => write(out, &figures.to_string()),
    }?;
    figures.must_have_answers()
}

fn times(text: &str) -> Result<f64, String> {
    let value = text.parse().ok().filter(|value| (1e-3..=1e3).contains(value));
    value.ok_or_else(|| "it must be a number, 0.001 to 1000".into())
}
