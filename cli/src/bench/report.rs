//! What a run measured, as a row of a table or an object of an array.

use std::{collections::BTreeMap, io::Write, time::Duration};

use comfy_table::Cell;
use serde::Serialize;

use super::{load::Tally, server_cpu::CpuUsed};
use crate::{
    Failure,
    table::{figure, table, write_json, write_table},
    units::seconds,
};

/// One run.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Requests in flight.
    pub(crate) concurrency: usize,
    /// HTTP/2 connections.
    pub(crate) connections: usize,
    /// Rows a request.
    pub(crate) rows: u64,
    /// Tokens of each answer, where the model generates text.
    pub(crate) tokens: Option<u64>,
    /// How long was measured.
    pub(crate) seconds: Duration,
    /// What came back in that time.
    pub(crate) tally: Tally,
    /// What the server used, where it says so.
    pub(crate) cpu: Option<CpuUsed>,
}

/// The form of `-o json`.
#[derive(Serialize)]
struct Row<'a> {
    concurrency: usize,
    connections: usize,
    seconds: f64,
    requests: u64,
    errors: u64,
    errors_by_status: &'a BTreeMap<String, u64>,
    rate: f64,
    rows_per_second: f64,
    tokens_per_second: Option<f64>,
    p50_us: Option<f64>,
    p95_us: Option<f64>,
    p99_us: Option<f64>,
    max_us: Option<f64>,
    server_cpu_us_per_request: Option<f64>,
}

impl Measured {
    fn requests(&self) -> u64 {
        self.tally.latencies.len()
    }

    fn errors(&self) -> u64 {
        self.tally.errors.values().sum()
    }

    fn rate(&self) -> f64 {
        self.requests() as f64 / self.seconds.as_secs_f64()
    }

    /// Nanoseconds below which this share of the answers came; `None` without answers.
    fn latency(&self, quantile: f64) -> Option<f64> {
        let latencies = &self.tally.latencies;
        // The upper end of the last bucket lies above the largest value: the maximum is exact without it.
        let nanoseconds = latencies.value_at_quantile(quantile).min(latencies.max());
        (!latencies.is_empty()).then_some(nanoseconds as f64)
    }

    /// CPU seconds of the server for each answer or refusal that it gave.
    fn cpu_seconds_per_request(&self) -> Option<f64> {
        let handled = self.requests() + self.errors();
        self.cpu.filter(|_| handled > 0).map(|cpu| cpu.seconds / handled as f64)
    }

    /// A run without any answer is a failure, whose reason is the first error.
    pub(crate) fn must_have_answers(&self) -> Result<(), Failure> {
        if self.requests() > 0 {
            return Ok(());
        }
        match &self.tally.first_error {
            Some(status) => Err(Failure::from(status.clone())),
            None => {
                let seconds = self.seconds.as_secs_f64();
                Err(Failure::new(format!("no request was answered within {seconds} s, give more --seconds")))
            }
        }
    }

    fn row(&self) -> Row<'_> {
        let microseconds = |quantile| self.latency(quantile).map(|nanoseconds| nanoseconds / 1e3);
        Row {
            concurrency: self.concurrency,
            connections: self.connections,
            seconds: self.seconds.as_secs_f64(),
            requests: self.requests(),
            errors: self.errors(),
            errors_by_status: &self.tally.errors,
            rate: self.rate(),
            rows_per_second: self.rate() * self.rows as f64,
            tokens_per_second: self.tokens.map(|tokens| self.rate() * tokens as f64),
            p50_us: microseconds(0.5),
            p95_us: microseconds(0.95),
            p99_us: microseconds(0.99),
            max_us: microseconds(1.0),
            server_cpu_us_per_request: self.cpu_seconds_per_request().map(|seconds| seconds * 1e6),
        }
    }
}

/// An array with an object for each run.
pub(crate) fn write_as_json(out: &mut dyn Write, runs: &[Measured]) -> Result<(), Failure> {
    write_json(out, &runs.iter().map(Measured::row).collect::<Vec<_>>())
}

/// A table with a row for each run.
pub(crate) fn write_as_table(out: &mut dyn Write, runs: &[Measured]) -> Result<(), Failure> {
    let per_second = if runs.iter().any(|run| run.tokens.is_some()) { "tokens/s" } else { "rows/s" };
    let headings =
        ["in flight", "requests/s", per_second, "p50", "p95", "p99", "max", "errors", "server CPU / request"];
    let mut table = table(&headings);
    for run in runs {
        let latency = |quantile| {
            figure(run.latency(quantile).map_or_else(|| "-".into(), |nanoseconds| seconds(nanoseconds / 1e9)))
        };
        let errors: Vec<String> = run.tally.errors.iter().map(|(status, count)| format!("{count} {status}")).collect();
        table.add_row([
            figure(run.concurrency),
            figure(rounded(run.rate())),
            figure(rounded(run.rate() * run.tokens.unwrap_or(run.rows) as f64)),
            latency(0.5),
            latency(0.95),
            latency(0.99),
            latency(1.0),
            if errors.is_empty() { figure("0") } else { Cell::new(errors.join(", ")) },
            figure(run.cpu_seconds_per_request().map_or_else(|| "unknown".into(), seconds)),
        ]);
    }
    write_table(out, table)
}

fn rounded(rate: f64) -> String {
    if rate < 100.0 { format!("{rate:.1}") } else { format!("{rate:.0}") }
}
