//! `orion bench`: drives a running server in a closed loop and reports rate, latency and the server's CPU, or in an open loop
//! after a trace; and, without a server, the scheduler's decisions in virtual time and the codecs of transfers.

mod codec;
mod jobs;
mod load;
mod replay;
mod report;
mod request;
mod sched;
mod server_cpu;
mod transfer;
mod window;

use std::{io::Write, num::NonZeroUsize, time::Duration};

use clap::{Args, Subcommand};

use crate::{
    Failure,
    client::{Client, ServerArguments, block_on},
    infer::positive_seconds,
    table::Format,
};
use load::Load;
use report::Measured;
use server_cpu::ServerCpu;

/// Requests that share a connection share its writes: more connections than this cost one server more than they bring.
const MOST_CONNECTIONS: usize = 4;
/// Below this a worker's CPU, reported once a second, makes the figure rough.
const STEADY: Duration = Duration::from_secs(5);

/// Drive a running server and print rate, latency and its CPU a request
#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Examples:
  orion bench identity --concurrency 1,16,64 --shape 1,16
  orion bench minilm --concurrency 8 --text 'a sentence' --rows 4
  orion bench smollm2 --concurrency 1,16 --max-tokens 128
  orion bench identity --concurrency 64 --seconds 10 -o json
  orion bench replay trace.json --slow 4
  orion bench sched --workers 1000
  orion bench transfer model.safetensors
  orion bench jobs
  orion bench -- sched

Each request in flight waits for its answer before the next is sent. The server's CPU is that of the scheduler \
and of the workers outside its process; those report it once a second, so it is rough in runs under 5 s. \
`replay` sends a trace's requests when they are due, `sched` measures the scheduler alone, `transfer` the codecs of a file, `jobs` what a server writes down; a model of such a name is \
reached behind `--`, with the options before it."
)]
pub(crate) struct BenchArguments {
    #[command(subcommand)]
    command: Option<BenchCommand>,
    /// The model's name
    #[arg(required = true)]
    model: Option<String>,
    /// Requests in flight; several: one run each
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,16,64",
          value_parser = clap::value_parser!(u32).range(1..=65536))]
    concurrency: Vec<u32>,
    /// Seconds measured in each run
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = positive_seconds)]
    seconds: Duration,
    /// Seconds of load before that
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = positive_seconds)]
    warmup: Duration,
    /// Shape of the numeric inputs
    #[arg(long, value_name = "DIMS", value_delimiter = ',', conflicts_with = "rows")]
    shape: Vec<i64>,
    /// Text in each row of the BYTES inputs
    #[arg(long, value_name = "TEXT", default_value = request::DEFAULT_TEXT)]
    text: String,
    /// Tokens of each answer of a model that generates text
    #[arg(long, value_name = "N", default_value = "64", value_parser = clap::value_parser!(u32).range(1..=65536))]
    max_tokens: u32,
    /// Rows a request
    #[arg(long, value_name = "N", default_value = "1")]
    rows: NonZeroUsize,
    /// HTTP/2 connections [default: the concurrency, at most 4]
    #[arg(long, value_name = "N")]
    connections: Option<NonZeroUsize>,
    /// Threads that send [default: half of the cores, at most one a connection]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    #[command(flatten)]
    server: ServerArguments,
}

#[derive(Subcommand, Debug)]
enum BenchCommand {
    Jobs(jobs::JobsArguments),
    Replay(replay::ReplayArguments),
    Sched(sched::SchedArguments),
    Transfer(transfer::TransferArguments),
}

pub(crate) fn run(arguments: &BenchArguments, out: &mut dyn Write) -> Result<(), Failure> {
    match &arguments.command {
        Some(BenchCommand::Jobs(jobs)) => return jobs::run(jobs, &arguments.server, out),
        Some(BenchCommand::Replay(replay)) => return replay::run(replay, &arguments.server, out),
        Some(BenchCommand::Sched(sched)) => return sched::run(sched, arguments.server.output, out),
        Some(BenchCommand::Transfer(transfer)) => return transfer::run(transfer, arguments.server.output, out),
        None => {}
    }
    block_on(async {
        let mut client = arguments.server.connect().await?;
        let request = request::build(arguments, &mut client).await?;
        let mut runs = Vec::with_capacity(arguments.concurrency.len());
        for &concurrency in &arguments.concurrency {
            runs.push(measure(arguments, concurrency as usize, &request, &mut client).await?);
        }
        match arguments.server.output {
            Format::Json => report::write_as_json(out, &runs)?,
            Format::Table => report::write_as_table(out, &runs)?,
        }
        let rough = |run: &Measured| run.seconds < STEADY && run.cpu.is_some_and(|cpu| cpu.from_workers);
        if runs.iter().any(rough) {
            eprintln!("note: workers report their CPU once a second: the server's is rough in runs under 5 s");
        }
        runs.iter().try_for_each(Measured::must_have_answers)
    })
}

/// One run, with the server's CPU read at both ends of what is measured.
async fn measure(
    arguments: &BenchArguments,
    concurrency: usize,
    request: &request::Prepared,
    client: &mut Client,
) -> Result<Measured, Failure> {
    let connections =
        arguments.connections.map_or(concurrency.min(MOST_CONNECTIONS), |count| count.get().min(concurrency));
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let threads = arguments.threads.map_or((cores / 2).max(1), NonZeroUsize::get).min(connections);
    let load = Load::start(&arguments.server, &request.message, concurrency, connections, threads).await?;
    let window = load.open(arguments.warmup, arguments.seconds);

    let bar = crate::progress::bar(100, format!("{concurrency} in flight"));
    window.wait_for_begin(&bar).await;
    let before = ServerCpu::read(client).await?;
    window.wait_for_end(&bar).await;
    let after = ServerCpu::read(client).await?;
    bar.finish_and_clear();
    let tally = load.finish()?;

    let cpu = before.zip(after).map(|(before, after)| after.since(&before));
    Ok(Measured {
        concurrency,
        connections,
        rows: request.rows,
        tokens: request.tokens,
        seconds: arguments.seconds,
        tally,
        cpu,
    })
}
