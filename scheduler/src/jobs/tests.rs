//! Histories of jobs: what the fold keeps, and what a loss of power leaves.

mod filing;
pub(crate) mod life;

use std::{collections::BTreeMap, sync::Arc};

use orion_proto::{
    Code, Error,
    inference::ModelInferRequest,
    jobs::{JobSpec, RetryPolicy, job_spec::Work},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::sync::{broadcast::error::RecvError, mpsc, oneshot};

use super::{
    ask::{Ask, Told},
    decide::Attempt,
    snapshot::load,
    table::Table,
    verify::verify,
    view::{Changed, View},
    writer::Writer,
};
use crate::journal::{Embedded, Journal, Postgres, postgres, power::Disk};

fn spec(random: &mut StdRng, jobs: u64) -> JobSpec {
    let model = ["identity", "double", "half"][random.random_range(0..3)];
    let request = ModelInferRequest { model_name: model.into(), ..Default::default() };
    let mut spec = JobSpec { work: Some(Work::Inference(request)), ..Default::default() };
    spec.retry = Some(RetryPolicy { attempts: random.random_range(1..4), back_off_ms: 1, codes: Vec::new() });
    spec.priority = ["", "realtime", "low", "high"][random.random_range(0..4)].into();
    if random.random_bool(0.3) {
        let key = random.random_range(0..20);
        spec.idempotency_key = format!("key {key}");
        // The same of each key: it may be the job of an earlier submission that nobody was told of.
        spec.keep_ms = u64::from(key % 3 == 0);
    } else if random.random_bool(0.3) {
        spec.keep_ms = 1;
    }
    if random.random_bool(0.2) && jobs > 0 {
        spec.after = vec![random.random_range(0..jobs)];
    }
    if random.random_bool(0.05) {
        spec.deadline_ms = random.random_range(1..20);
    }
    spec.labels.insert("round".into(), random.random_range(0..3).to_string());
    spec
}

/// What was acknowledged.
#[derive(Debug, Default)]
struct Acknowledged {
    submitted: BTreeMap<u64, JobSpec>,
    /// How jobs ended, by what their runner or client was told.
    succeeded: BTreeMap<u64, Vec<u8>>,
    cancelled: Vec<u64>,
    files: Vec<String>,
    keys: BTreeMap<String, u64>,
}

/// A writer whose rounds the test makes itself, with what its runner was told.
struct Machine {
    writer: Writer,
    view: Arc<View>,
    told: mpsc::UnboundedReceiver<Told>,
    running: Vec<Attempt>,
    /// Under way when it came to lead, and nowhere any more.
    gone: Vec<Attempt>,
    /// Files whose lines are being taken up.
    reading: Vec<(Attempt, JobSpec)>,
    now: u64,
}

impl Machine {
    fn start(disk: &Disk, now: u64) -> orion_proto::Result<Self> {
        Self::on(Arc::new(Embedded::on(disk.clone())?), now)
    }

    fn on(journal: Arc<dyn Journal>, now: u64) -> orion_proto::Result<Self> {
        let (runner, told) = mpsc::unbounded_channel();
        let view = Arc::new(View::new(journal.clone()));
        Ok(Self {
            writer: Writer::new(now, journal.clone(), load(&*journal)?, view.clone(), runner, 8)?,
            view,
            told,
            running: Vec::new(),
            gone: Vec::new(),
            reading: Vec::new(),
            now,
        })
    }

    /// One round of some commands; false where the disk is gone.
    fn round(&mut self, random: &mut StdRng, known: &mut Acknowledged) -> bool {
        let jobs = known.submitted.keys().next_back().map_or(0, |last| last + 1);
        let mut asks = vec![Ask::Tick];
        if random.random_bool(0.1) {
            let workers = (0..3).filter(|_| random.random_bool(0.5)).map(|worker| format!("w{worker}"));
            asks.push(Ask::Workers(workers.collect()));
        }
        let gone = self.gone.drain(..).map(|attempt| Ask::Release(attempt, oneshot::channel().0));
        asks.extend(gone);
        let filed = self.files(random, &mut asks);
        let (mut submits, mut settles, mut stops) = (Vec::new(), Vec::new(), Vec::new());
        let retries = random.random_bool(0.2);
        for _ in 0..random.random_range(0..6) {
            match random.random_range(0..10) {
                0..=5 => {
                    let (mut spec, (reply, answer)) = (spec(random, jobs), oneshot::channel());
                    if random.random_bool(0.1) && !known.files.is_empty() {
                        spec.work = filing::work(random, &known.files);
                    }
                    submits.push((spec.clone(), answer));
                    asks.push(Ask::Submit(Box::new(spec), None, None, reply));
                }
                6..=8 if !self.running.is_empty() => {
                    let attempt = self.running.swap_remove(random.random_range(0..self.running.len()));
                    let (reply, answer) = oneshot::channel();
                    let result = life::result_of(attempt.job);
                    let outcome = match random.random_range(0..3) {
                        0 => Err(Error::new(Code::Internal, "it failed")),
                        _ => Ok(super::ask::Outcome { row: result.clone().into(), ..Default::default() }),
                    };
                    settles.push((attempt.job, outcome.is_ok().then_some(result), answer));
                    asks.push(Ask::Settle(attempt, outcome, reply));
                }
                _ if jobs > 0 && retries => {
                    let id = random.random_range(0..jobs);
                    asks.push(Ask::Retry(id, None, oneshot::channel().0));
                    // Whether it is one again that has not ended may not be known.
                    known.cancelled.retain(|cancelled| *cancelled != id);
                }
                _ if jobs > 0 => {
                    let (id, (reply, answer)) = (random.random_range(0..jobs), oneshot::channel());
                    stops.push((id, answer));
                    asks.push(Ask::Stop(id, Error::new(Code::Cancelled, "it was cancelled"), reply));
                }
                _ => {}
            }
        }
        self.now += random.random_range(0..10);
        self.writer.round(self.now, asks);
        while let Ok(told) = self.told.try_recv() {
            match told {
                Told::Begin(attempt, task) | Told::Resume(attempt, task)
                    if matches!(task.spec.work, Some(Work::File(_))) =>
                {
                    self.reading.push((attempt, task.spec));
                }
                Told::Begin(attempt, ..) => self.running.push(attempt),
                // Its worker has it still, or nobody has.
                Told::Resume(attempt, ..) if random.random_bool(0.5) => self.running.push(attempt),
                Told::Resume(attempt, ..) => self.gone.push(attempt),
                Told::Stop(id) => {
                    self.running.retain(|attempt| attempt.job != id);
                    self.reading.retain(|(attempt, _)| attempt.job != id);
                }
            }
        }
        let kept = filed.and_then(|mut answer| answer.try_recv().unwrap().ok());
        known.files.extend(kept.map(|file| file.id));
        for (spec, mut answer) in submits {
            if let Ok(id) = answer.try_recv().unwrap() {
                if !spec.idempotency_key.is_empty() {
                    let first = *known.keys.entry(spec.idempotency_key.clone()).or_insert(id);
                    assert!(first == id || known.submitted[&first].keep_ms == 1, "two jobs of one key");
                    known.keys.insert(spec.idempotency_key.clone(), id);
                }
                known.submitted.entry(id).or_insert(spec);
            }
        }
        for (id, result, mut answer) in settles {
            if let (Ok(()), Some(result)) = (answer.try_recv().unwrap(), result) {
                assert!(known.succeeded.insert(id, result).is_none(), "job {id} succeeded twice");
                assert!(!known.cancelled.contains(&id), "job {id} succeeded after it was cancelled");
            }
        }
        for (id, mut answer) in stops {
            if answer.try_recv().unwrap().is_ok() {
                known.cancelled.push(id);
            }
        }
        !self.writer.is_broken()
    }
}

/// Every acknowledged job is there, and is what was acknowledged of it.
fn check(journal: &Arc<dyn Journal>, known: &Acknowledged) {
    let table = load(&**journal).unwrap();
    let verified = verify(&**journal).unwrap();
    assert_eq!(verified.unfinished, table.unfinished().count());
    for (id, spec) in &known.submitted {
        let (open, ended) = (table.get(*id), journal.ended(*id).unwrap());
        if spec.keep_ms == 1 && open.is_none() && ended.is_none() {
            continue;
        }
        assert!(open.is_some() || ended.is_some(), "job {id} is lost");
        // Of a key the first counts, which may have reached the disk without an answer.
        let found = super::snapshot::submission(&**journal, *id).unwrap().and_then(|submitted| submitted.spec);
        assert!(found.as_ref() == Some(spec) || !spec.idempotency_key.is_empty(), "job {id} is another: {found:?}");
        if let Some(result) = known.succeeded.get(id) {
            assert!(open.is_none(), "job {id} succeeded and is open");
            assert_eq!(journal.result(*id).unwrap().as_deref(), Some(&result[..]), "result of {id}");
        }
        if known.cancelled.contains(id) {
            assert_eq!(ended.map(|job| job.state).as_deref(), Some("cancelled"), "job {id} was cancelled");
        }
    }
}

/// Runs a history over so many losses of power; how many were acknowledged.
fn history(seed: u64, losses: u32, lies: u64) -> usize {
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (mut disk, mut known) = (Disk::new(random.random_range(50..4000), lies), Acknowledged::default());
    let mut now = 1;
    for _ in 0..losses {
        if let Ok(mut machine) = Machine::start(&disk, now) {
            while machine.round(&mut random, &mut known) {}
            // What is kept for a moment is forgotten in the next life.
            now = machine.now + 20_000;
        }
        assert!(disk.is_dead(), "seed {seed}: it stopped though the power had not failed");
        disk = disk.after_loss(random.random(), random.random_range(50..4000));
    }
    let disk = disk.after_loss(0, u64::MAX);
    let journal: Arc<dyn Journal> = Arc::new(Embedded::on(disk.clone()).unwrap());
    check(&journal, &known);
    known.submitted.len() + known.succeeded.len() + known.cancelled.len()
}

#[test]
fn nothing_that_was_acknowledged_is_lost_when_the_power_fails() {
    let (runs, losses) =
        if std::env::var("ORION_TEST_LONG").is_ok_and(|long| long == "1") { (5000, 20) } else { (30, 10) };
    let acknowledged: usize = (0..runs).map(|seed| history(seed, losses, 0)).sum();
    println!("{} losses of power, {acknowledged} acknowledged, none lost, seeds 0 to {runs}", runs * u64::from(losses));
    assert!(acknowledged > 100);
}

/// A check that cannot fail proves nothing.
#[test]
fn a_disk_that_lies_is_noticed() {
    let lies = |seed| std::panic::catch_unwind(|| history(seed, 10, 7)).is_err();
    assert!((0..20).any(lies), "no history of a lying disk lost anything");
}

/// The fold that the writer has is the one that its journal gives. Whether files were among it.
fn is_read_again(mut machine: Machine, seed: u64) -> bool {
    let (mut random, mut known) = (StdRng::seed_from_u64(seed), Acknowledged::default());
    for _ in 0..100 {
        machine.now += if random.random_bool(0.05) { 20_000 } else { 0 };
        assert!(machine.round(&mut random, &mut known), "seed {seed}: {:?}", machine.view.ended());
        let again: Table = load(machine.writer.journal()).unwrap();
        assert_eq!(&again, machine.writer.table(), "seed {seed}");
    }
    assert!(known.succeeded.len() > 20, "{known:?}");
    // What is kept for a moment is forgotten, and nothing is left that is due.
    machine.now += 20_000;
    assert!(machine.round(&mut random, &mut known));
    assert_eq!(machine.writer.journal().due(machine.now, 10).unwrap(), [], "seed {seed}");
    let has_files = filing::is_kept_while_needed(machine.writer.journal(), machine.writer.table());
    let listed = machine.writer.journal().found("", u64::MAX, 10_000).unwrap();
    assert!(listed.len() < known.submitted.len(), "seed {seed}: nothing was forgotten");
    let verified = verify(machine.writer.journal()).unwrap();
    assert_eq!(verified.unfinished, machine.writer.table().unfinished().len());
    has_files
}

#[test]
fn a_journal_read_again_gives_the_same_table() {
    let read = |seed| is_read_again(Machine::start(&Disk::new(u64::MAX, 0), 1).unwrap(), seed);
    assert!((0..20).filter(|seed| read(*seed)).count() > 5, "there were hardly any files");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_s_journal_read_again_gives_the_same_table() {
    let Some(journal) = postgres::tests::empty().await else { return };
    assert!(journal.lead("here").await.unwrap());
    // The lease may end meanwhile: nobody else asks for it.
    let all = move || is_read_again(Machine::on(Arc::new(journal), 1).unwrap(), 1);
    let _ = tokio::task::spawn_blocking(all).await.unwrap();
}

/// Schedulers take over from each other, each while the one before still writes.
#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_that_was_replaced_acknowledges_nothing() {
    let Some(journal) = postgres::tests::empty().await else { return };
    let runtime = tokio::runtime::Handle::current();
    let all = move || {
        let (mut random, mut known) = (StdRng::seed_from_u64(7), Acknowledged::default());
        let mut last: Option<(Postgres, Machine)> = None;
        for life in 0..20 {
            let next = journal.anew();
            if let Some((before, _)) = &last {
                runtime.block_on(before.resign()).unwrap();
            }
            assert!(runtime.block_on(next.lead("here")).unwrap());
            let before = last.take().map(|(_, machine)| machine);
            let mut machine = Machine::on(Arc::new(next.clone()), before.as_ref().map_or(1, |old| old.now)).unwrap();
            if let Some(mut old) = before {
                let acknowledged = format!("{known:?}");
                // A round of it may ask for nothing.
                while old.round(&mut random, &mut known) {}
                let why = old.view.ended().unwrap();
                assert!(
                    why.code == Code::Unavailable && why.message.contains("the lead has gone"),
                    "life {life}: {why}"
                );
                assert_eq!(format!("{known:?}"), acknowledged, "life {life}: one that was replaced acknowledged");
            }
            for _ in 0..10 {
                assert!(machine.round(&mut random, &mut known), "{:?}", machine.view.ended());
            }
            last = Some((next, machine));
        }
        assert!(known.submitted.len() > 50, "{known:?}");
        let journal: Arc<dyn Journal> = Arc::new(journal);
        check(&journal, &known);
    };
    tokio::task::spawn_blocking(all).await.unwrap();
}

/// Whoever watches is told where the disk is gone, and nothing is acknowledged after.
#[tokio::test]
async fn a_journal_that_broke_ends_what_is_watched() {
    let disk = Disk::new(2000, 0);
    let mut machine = Machine::start(&disk, 1).unwrap();
    let mut changes = machine.view.changes();
    let (mut random, mut known) = (StdRng::seed_from_u64(1), Acknowledged::default());
    while machine.round(&mut random, &mut known) {}
    assert_eq!(machine.view.ended().unwrap().code, Code::Unavailable);
    let last = loop {
        match changes.recv().await {
            Ok(Changed::Job(_)) | Err(RecvError::Lagged(_)) => {}
            other => break other,
        }
    };
    assert_eq!(last, Ok(Changed::Ended));
}
