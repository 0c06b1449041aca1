//! `orion bench sched`: the scheduler's own decisions against simulated devices in virtual time. No server takes part.

mod figures;

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use orion_scheduler::simulate::{ManyModels, Report, UnequalReplicas, scale::Scale};

use crate::{Failure, progress, table::Format};
use figures::{Figures, Run};

/// Measure the scheduler's decisions against simulated devices
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  orion bench sched --workers 1000
  orion bench sched --workload scale --models 10000 --workers 500 --devices 4 --load 0.9
  python3 scripts/sched_sim.py a --seed 1 --dump /tmp/t && orion bench sched --workload a --trace /tmp/t-a-0.8-1.json
  orion bench sched --workload b --trace one.json --trace two.json -o json

Workload a: many models on few devices whose memory holds a part of them, each request to be answered within an objective. \
Workload b: one model on many unequal replicas, some slowed now and then. Both replay traces of scripts/sched_sim.py --dump; \
scale makes its own. Devices and time are simulated, the scheduler and the time that its decisions take are real.")]
pub(super) struct SchedArguments {
    /// What to run [default: scale, where one of its own options is given]
    #[arg(long, value_enum, required_unless_present_any = ["models", "workers", "devices", "load", "requests", "seed"])]
    workload: Option<Workload>,
    /// Trace of workload a or b; may be given again: a line each, and the mean
    #[arg(long, value_name = "FILE", requires = "workload",
          conflicts_with_all = ["models", "workers", "devices", "load", "requests", "seed"])]
    trace: Vec<PathBuf>,
    /// Workload a: sigma of a log-normal factor on each service time that the scheduler does not know
    #[arg(long, value_name = "SIGMA", value_parser = at_least_zero)]
    noise: Option<f64>,
    /// Workload scale: models
    #[arg(long, value_name = "N", default_value = "1000", value_parser = one_to_a_million)]
    models: usize,
    /// Workload scale: workers
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u16).range(1..=16_384))]
    workers: u16,
    /// Workload scale: devices of each worker
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u8).range(1..=64))]
    devices: u8,
    /// Workload scale: offered load as a share of what the devices can do
    #[arg(long, value_name = "SHARE", default_value = "0.8", value_parser = above_zero)]
    load: f64,
    /// Workload scale: requests
    #[arg(long, value_name = "N", default_value = "100000", value_parser = clap::value_parser!(u32).range(1..))]
    requests: u32,
    /// Workload scale: seed of models and arrivals
    #[arg(long, value_name = "N", default_value = "1")]
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Workload {
    /// Many models, few devices
    A,
    /// Unequal replicas
    B,
    /// A made-up cluster of any size
    Scale,
}

pub(super) fn run(arguments: &SchedArguments, format: Format, out: &mut dyn Write) -> Result<(), Failure> {
    let spinner = progress::spinner("simulating");
    let runs = runs(arguments, &spinner);
    spinner.finish_and_clear();
    let figures = Figures::of(runs?)?;
    match format {
        Format::Json => figures.write_as_json(out),
        Format::Table => figures.write_as_table(out),
    }
}

fn runs(arguments: &SchedArguments, spinner: &indicatif::ProgressBar) -> Result<Vec<Run>, Failure> {
    let workload = arguments.workload.unwrap_or(Workload::Scale);
    if arguments.noise.is_some() && workload != Workload::A {
        return Err(Failure::new("--noise is for workload a, the others have none"));
    }
    match (workload, arguments.trace.is_empty()) {
        (Workload::Scale, true) => Ok(vec![Run { trace: None, report: scale(arguments).run()? }]),
        (Workload::Scale, false) => Err(Failure::new("workload scale takes no --trace, it makes its own requests")),
        (_, true) => Err(Failure::new("workloads a and b replay a trace, give one with --trace FILE")
            .hint("make traces with: python3 scripts/sched_sim.py a --dump PREFIX")),
        (_, false) => arguments
            .trace
            .iter()
            .map(|path| {
                spinner.set_message(format!("simulating {}", path.display()));
                Ok(Run { trace: Some(path.display().to_string()), report: replay(workload, path, arguments.noise)? })
            })
            .collect(),
    }
}

fn scale(arguments: &SchedArguments) -> Scale {
    Scale {
        models: arguments.models,
        workers: arguments.workers.into(),
        devices: arguments.devices.into(),
        load: arguments.load,
        requests: arguments.requests as usize,
        seed: arguments.seed,
    }
}

fn replay(workload: Workload, path: &Path, noise: Option<f64>) -> Result<Report, Failure> {
    let shown = path.display();
    let json = std::fs::read(path).map_err(|error| Failure::new(format!("trace '{shown}' cannot be read: {error}")))?;
    let report = match workload {
        Workload::B => UnequalReplicas::parse(&json).and_then(|trace| trace.run()),
        _ => ManyModels::parse(&json).and_then(|trace| trace.run(noise.unwrap_or(0.0))),
    };
    report.map_err(|error| Failure::new(format!("trace '{shown}': {}", error.message)))
}

fn one_to_a_million(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=1_000_000).contains(count));
    count.ok_or_else(|| "it must be a whole number, 1 to 1000000".into())
}

fn above_zero(text: &str) -> Result<f64, String> {
    let value = text.parse().ok().filter(|value: &f64| value.is_finite() && *value > 0.0);
    value.ok_or_else(|| "it must be a number above 0, such as 0.8".into())
}

fn at_least_zero(text: &str) -> Result<f64, String> {
    let value = text.parse().ok().filter(|value| (0.0..=10.0).contains(value));
    value.ok_or_else(|| "it must be a number, 0 to 10".into())
}
