//! `orion jobs logs`: what happened to a job.

use std::io::Write;

use orion_proto::jobs::{JobLogsRequest, LogLine};
use orion_scheduler::jobs::logs::json;

use crate::{
    Failure,
    client::Client,
    table::{Format, write},
    units::utc,
};

/// Prints the lines, each as it comes.
pub(super) async fn logs(
    client: &mut Client,
    id: u64,
    follow: bool,
    format: Format,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let mut lines = client.jobs.logs(JobLogsRequest { id, follow }).await?.into_inner();
    while let Some(line) = lines.message().await? {
        let shown = match format {
            Format::Json => json(&line).to_string(),
            Format::Table => in_words(&line),
        };
        write(out, &format!("{shown}\n"))?;
    }
    Ok(())
}

fn in_words(line: &LogLine) -> String {
    let of = if line.attempt == 0 { String::new() } else { format!("attempt {}: ", line.attempt) };
    format!("{} {:<5} {of}{}", utc(line.unix_ms), line.level, line.text)
}
