//! The jobs of one life of a scheduler, for simulations that run them on workers.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use orion_proto::{
    Code, Error, JobAttempt, Result,
    inference::ModelInferRequest,
    jobs::{HttpAnswer, JobResult, JobSpec, RetryPolicy, job_result::Outcome, job_spec::Work},
    journal::record::Event,
};
use prost::Message;
use tokio::sync::{mpsc, oneshot};

use super::{Ask, Attempt, Told, View, Writer, load, verify};
use crate::journal::{Embedded, Journal, power::Disk};

/// The writer of one life, whose rounds the simulation makes.
pub(crate) struct Life {
    writer: Writer,
    told: mpsc::UnboundedReceiver<Told>,
}

/// What is asked of it.
pub(crate) enum Wish {
    /// A job of this key for this model.
    Submit(String, &'static str),
    /// An attempt ended with this result.
    Settle(Attempt, Vec<u8>),
    /// An attempt failed, as others may.
    Fail(Attempt),
    /// An attempt is nowhere.
    Release(Attempt),
    /// These workers are here.
    Workers(BTreeSet<String>),
}

/// What the runner is told.
pub(crate) enum Heard {
    Begin(Attempt),
    Resume(Attempt),
}

impl Life {
    /// None where the power fails before it has begun.
    pub(crate) fn start(disk: &Disk, now: u64, places: usize) -> Option<Self> {
        let journal: Arc<dyn Journal> = Arc::new(Embedded::on(disk.clone()).ok()?);
        let (runner, told) = mpsc::unbounded_channel();
        let view = Arc::new(View::new(journal.clone()));
        let writer = Writer::new(now, journal.clone(), load(&*journal).ok()?, view, runner, places).ok()?;
        Some(Self { writer, told })
    }

    pub(crate) fn workers(&self) -> BTreeSet<String> {
        self.writer.table().workers().clone()
    }

    pub(crate) fn under_way(&self) -> Vec<JobAttempt> {
        self.writer.under_way()
    }

    pub(crate) fn unfinished(&self) -> usize {
        self.writer.table().unfinished().len()
    }

    /// One round: of each wish, whether it was acknowledged, and the job that it made. None where the power has failed.
    pub(crate) fn round(&mut self, now: u64, wishes: Vec<Wish>) -> Option<Vec<Option<u64>>> {
        let (mut asks, mut answers) = (vec![Ask::Tick], Vec::new());
        for wish in wishes {
            let (number, answer) = oneshot::channel();
            let (done, _) = oneshot::channel();
            asks.push(match wish {
                Wish::Submit(key, model) => Ask::Submit(Box::new(spec(key, model)), None, None, number),
                Wish::Settle(attempt, result) => Ask::Settle(
                    attempt,
                    Ok(crate::jobs::ask::Outcome { row: result.into(), ..Default::default() }),
                    done,
                ),
                Wish::Fail(attempt) => {
                    Ask::Settle(attempt, Err(Error::new(Code::Unavailable, "a worker was lost")), done)
                }
                Wish::Release(attempt) => Ask::Release(attempt, done),
                Wish::Workers(workers) => Ask::Workers(workers),
            });
            answers.push(answer);
        }
        self.writer.round(now, asks);
        let acknowledged = |mut answer: oneshot::Receiver<Result<u64>>| answer.try_recv().ok()?.ok();
        let acknowledged = answers.into_iter().map(acknowledged).collect();
        (!self.writer.is_broken()).then_some(acknowledged)
    }

    pub(crate) fn heard(&mut self) -> Vec<Heard> {
        let told = std::iter::from_fn(|| self.told.try_recv().ok());
        let heard = told.filter_map(|told| match told {
            Told::Begin(attempt, ..) => Some(Heard::Begin(attempt)),
            Told::Resume(attempt, ..) => Some(Heard::Resume(attempt)),
            Told::Stop(_) => None,
        });
        heard.collect()
    }
}

fn spec(key: String, model: &str) -> JobSpec {
    let request = ModelInferRequest { model_name: model.into(), ..Default::default() };
    let retry = Some(RetryPolicy { attempts: 100, back_off_ms: 1, codes: Vec::new() });
    JobSpec { work: Some(Work::Inference(request)), idempotency_key: key, retry, ..Default::default() }
}

/// What a disk holds in the end: of each job its result, and how often it was said to have ended.
pub(crate) fn found(disk: &Disk) -> Vec<(u64, Option<Vec<u8>>, usize)> {
    let journal = Embedded::on(disk.clone()).unwrap();
    verify(&journal).unwrap();
    let (mut jobs, mut ends, mut from) = (Vec::new(), BTreeMap::<u64, usize>::new(), 0);
    loop {
        let records = journal.read(from, 1000).unwrap();
        let Some((last, _)) = records.last() else { break };
        from = last + 1;
        for (place, record) in records {
            match record.event {
                Some(Event::Submitted(_)) => jobs.push(place),
                Some(Event::Ended(ended)) => *ends.entry(ended.job).or_default() += 1,
                _ => {}
            }
        }
    }
    let result = |job: u64| journal.result(job).unwrap().map(|bytes| bytes.to_vec());
    jobs.into_iter().map(|job| (job, result(job), ends.get(&job).copied().unwrap_or(0))).collect()
}

/// What a job of a simulation has to show.
pub(crate) fn result_of(job: u64) -> Vec<u8> {
    let body = format!("result of {job}").into();
    let answer = HttpAnswer { status: 200, body, ..HttpAnswer::default() };
    JobResult { outcome: Some(Outcome::Call(answer)) }.encode_to_vec()
}
