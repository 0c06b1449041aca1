//! `orion jobs watch`: a job until it has ended.

use std::{io::Write, time::Duration};

use orion_proto::jobs::{GetJobRequest, Job, Progress};
use tonic::{Code, Status};

use super::show;
use crate::{Failure, client::Client, progress, table::Format, train};

/// How often a scheduler that is gone is looked for, and for how long.
const PAUSE: Duration = Duration::from_millis(200);
const LOOKS: u32 = 300;

/// A job once it has ended; `seen` is told of each change before. A scheduler that is started anew is found again.
pub(crate) async fn to_its_end(client: &mut Client, id: u64, seen: &mut dyn FnMut(&Job)) -> Result<Job, Failure> {
    let mut looks = 0;
    loop {
        match follow(client, id, seen).await {
            Ok(job) if job.ended_unix_ms > 0 => return Ok(job),
            // It went without a word.
            Ok(_) => {}
            Err(status) if is_gone(&status) && looks < LOOKS => {}
            Err(status) => return Err(status.into()),
        }
        looks += 1;
        tokio::time::sleep(PAUSE).await;
    }
}

fn far(job: &Job) -> String {
    match (&job.progress, &job.training) {
        (Some(progress), _) => format!("job {}: {}", job.id, show::far(progress)),
        (None, Some(course)) => format!("job {}: {}", job.id, train::far(course)),
        (None, None) => format!("job {} is {}, attempt {}", job.id, job.state, job.attempt),
    }
}

/// Follows a job; a failure says that it did not succeed.
pub(super) async fn watch(client: &mut Client, id: u64, format: Format, out: &mut dyn Write) -> Result<(), Failure> {
    let spinner = progress::spinner(format!("job {id}"));
    let job = to_its_end(client, id, &mut |job| spinner.set_message(far(job))).await?;
    spinner.finish_and_clear();
    let (state, reason, progress) = (job.state.clone(), job.reason.clone(), job.progress);
    show::one(job, format, out)?;
    match state.as_str() {
        "succeeded" => match progress.filter(|progress| progress.failed > 0) {
            None => Ok(()),
            Some(Progress { rows, failed, .. }) => {
                let failure = Failure::new(format!("{failed} of {rows} lines of job {id} did not succeed"));
                Err(failure.hint(format!("why: orion jobs result {id} --errors")))
            }
        },
        _ => Err(Failure::new(format!(
            "job {id} {}: {reason}",
            if state == "failed" { "failed" } else { "was cancelled" }
        ))),
    }
}

/// Whether the connection broke, or nobody is there.
fn is_gone(status: &Status) -> bool {
    status.code() == Code::Unavailable || std::error::Error::source(status).is_some()
}

async fn follow(client: &mut Client, id: u64, seen: &mut dyn FnMut(&Job)) -> Result<Job, Status> {
    let mut last = Job::default();
    let mut jobs = client.jobs.watch(GetJobRequest { id, ..Default::default() }).await?.into_inner();
    while let Some(job) = jobs.message().await? {
        seen(&job);
        last = job;
    }
    Ok(last)
}
