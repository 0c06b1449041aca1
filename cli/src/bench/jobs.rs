//! `orion bench jobs`: how many jobs a second a running server writes down and runs, beside what its disk does.

use std::{
    fs::File,
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::Args;
use futures::stream;
use hdrhistogram::Histogram;
use orion_proto::{
    inference::{ModelInferRequest, model_infer_request::InferInputTensor},
    jobs::{GetJobRequest, JobSpec, ListJobsRequest, SubmitJobRequest, job_spec::Work},
};
use serde::Serialize;

use crate::{
    Failure,
    client::{Client, ServerArguments, block_on},
    infer::positive_seconds,
    table::{Format, figure, table, write_json, write_table},
    units,
};

/// What one write of the disk is measured with.
const BLOCK: usize = 4096;
/// Nanoseconds that are told apart from longer ones: a minute.
const LONGEST: u64 = 60_000_000_000;
/// Pages of jobs that are listed, and jobs a page.
const PAGES: usize = 50;
const PAGE: u32 = 100;

/// Measure how many jobs a second a server writes down, beside its disk
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  orion bench jobs
  orion bench jobs --disk /var/lib/orion --seconds 10 -o json

Jobs of `identity`, 16 floats each. `disk`: 4 KiB appended and synced, one after the other, in the folder of --disk, which is to be \
on the scheduler's disk. `unary`: Submit, so many in flight; `stream`: one SubmitStream; both answered when the job is on disk. \
`to its end`: one job after the other from its submission until Watch says that it has ended. `list`: a page of 100.")]
pub(super) struct JobsArguments {
    /// A folder on the disk of the scheduler's data folder
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    disk: PathBuf,
    /// Submissions in flight
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    in_flight: u32,
    /// Seconds of each part
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = positive_seconds)]
    seconds: Duration,
}

#[derive(Debug, Serialize)]
struct Part {
    part: &'static str,
    a_second: f64,
    p50_ms: f64,
    p99_ms: f64,
}

pub(super) fn run(arguments: &JobsArguments, server: &ServerArguments, out: &mut dyn Write) -> Result<(), Failure> {
    let disk = disk(&arguments.disk, arguments.seconds)?;
    let parts = block_on(async {
        let mut client = server.connect().await?;
        let unary = unary(&client, arguments.in_flight, arguments.seconds).await?;
        let stream = stream(&mut client, arguments.seconds).await?;
        settle(&mut client).await?;
        let ended = to_its_end(&mut client, arguments.seconds).await?;
        Ok(vec![disk, unary, stream, ended, list(&mut client).await?])
    })?;
    match server.output {
        Format::Json => write_json(out, &parts),
        Format::Table => {
            let mut shown = table(&["", "a second", "p50", "p99"]);
            for part in &parts {
                let time = |ms: f64| figure(units::seconds(ms / 1e3));
                shown.add_row([
                    part.part.into(),
                    figure(format!("{:.0}", part.a_second)),
                    time(part.p50_ms),
                    time(part.p99_ms),
                ]);
            }
            write_table(out, shown)
        }
    }
}

fn histogram() -> Result<Histogram<u64>, Failure> {
    Histogram::new_with_bounds(1, LONGEST, 3).map_err(|error| Failure::new(error.to_string()))
}

fn part(part: &'static str, count: u64, seconds: f64, times: &Histogram<u64>) -> Part {
    let ms = |quantile| times.value_at_quantile(quantile) as f64 / 1e6;
    Part { part, a_second: count as f64 / seconds, p50_ms: ms(0.5), p99_ms: ms(0.99) }
}

fn nanoseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn disk(folder: &Path, seconds: Duration) -> Result<Part, Failure> {
    let failed = |error| Failure::new(format!("folder '{}' cannot be written: {error}", folder.display()));
    let path = folder.join(format!(".orion-bench-{}", std::process::id()));
    let mut file = File::create(&path).map_err(failed)?;
    let measured = append(&mut file, seconds);
    std::fs::remove_file(&path).map_err(failed)?;
    measured?.map_err(failed)
}

fn append(file: &mut File, seconds: Duration) -> Result<std::io::Result<Part>, Failure> {
    let (mut times, begun, mut count) = (histogram()?, Instant::now(), 0);
    while begun.elapsed() < seconds {
        let one = Instant::now();
        let written =
            file.seek(SeekFrom::End(0)).and_then(|_| file.write_all(&[7; BLOCK])).and_then(|()| file.sync_data());
        if let Err(error) = written {
            return Ok(Err(error));
        }
        times.saturating_record(nanoseconds(one));
        count += 1;
    }
    Ok(Ok(part("disk", count, begun.elapsed().as_secs_f64(), &times)))
}

fn job() -> SubmitJobRequest {
    let input =
        InferInputTensor { name: "INPUT0".into(), datatype: "FP32".into(), shape: vec![1, 16], ..Default::default() };
    let request = ModelInferRequest {
        model_name: "identity".into(),
        inputs: vec![input],
        raw_input_contents: vec![bytes::Bytes::from_static(&[0; 64])],
        ..Default::default()
    };
    SubmitJobRequest { spec: Some(JobSpec { work: Some(Work::Inference(request)), ..Default::default() }) }
}

async fn unary(client: &Client, in_flight: u32, seconds: Duration) -> Result<Part, Failure> {
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..in_flight {
        let mut client = client.clone();
        let mut times = histogram()?;
        tasks.spawn(async move {
            while begun.elapsed() < seconds {
                let one = Instant::now();
                client.jobs.submit(job()).await?;
                times.saturating_record(nanoseconds(one));
            }
            Ok::<_, tonic::Status>(times)
        });
    }
    let mut times = histogram()?;
    while let Some(done) = tasks.join_next().await {
        let done = done.map_err(|error| Failure::new(error.to_string()))?;
        times.add(done?).map_err(|error| Failure::new(error.to_string()))?;
    }
    Ok(part("unary", times.len(), begun.elapsed().as_secs_f64(), &times))
}

async fn stream(client: &mut Client, seconds: Duration) -> Result<Part, Failure> {
    let begun = Instant::now();
    let (noted, sent) = std::sync::mpsc::channel();
    let jobs = std::iter::from_fn(move || {
        let goes_on = begun.elapsed() < seconds && noted.send(Instant::now()).is_ok();
        goes_on.then(job)
    });
    let mut answers = client.jobs.submit_stream(stream::iter(jobs)).await?.into_inner();
    let mut times = histogram()?;
    while let Some(answer) = answers.message().await? {
        if answer.id == 0 {
            return Err(Failure::new(format!("the server refused a job of the stream: {}", answer.message)));
        }
        // They are answered in their order.
        if let Ok(at) = sent.recv() {
            times.saturating_record(nanoseconds(at));
        }
    }
    match sent.try_iter().count() {
        0 => Ok(part("stream", times.len(), begun.elapsed().as_secs_f64(), &times)),
        lost => Err(Failure::new(format!("{lost} jobs of the stream were not answered"))),
    }
}

/// Waits until nothing of before is left to run.
async fn settle(client: &mut Client) -> Result<(), Failure> {
    for state in ["queued", "running"] {
        let asked = || ListJobsRequest { state: state.into(), limit: 1, ..Default::default() };
        while !client.jobs.list(asked()).await?.into_inner().jobs.is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

async fn to_its_end(client: &mut Client, seconds: Duration) -> Result<Part, Failure> {
    let (mut times, begun) = (histogram()?, Instant::now());
    while begun.elapsed() < seconds {
        let one = Instant::now();
        let id = client.jobs.submit(job()).await?.into_inner().id;
        let mut seen = client.jobs.watch(GetJobRequest { id, ..Default::default() }).await?.into_inner();
        while seen.message().await?.is_some() {}
        times.saturating_record(nanoseconds(one));
    }
    Ok(part("to its end", times.len(), begun.elapsed().as_secs_f64(), &times))
}

async fn list(client: &mut Client) -> Result<Part, Failure> {
    let (mut times, begun, mut before) = (histogram()?, Instant::now(), 0);
    for _ in 0..PAGES {
        let one = Instant::now();
        let asked = ListJobsRequest { before, limit: PAGE, ..Default::default() };
        before = client.jobs.list(asked).await?.into_inner().before;
        times.saturating_record(nanoseconds(one));
    }
    Ok(part("list", times.len(), begun.elapsed().as_secs_f64(), &times))
}
