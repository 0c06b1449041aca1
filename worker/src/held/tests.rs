//! What is held over the end of a session, and of a scheduler.

use super::*;
use orion_net::Attempt;
use orion_proto::{Code, Error};

fn batch(number: u64, attempts: &[u64]) -> Batch {
    let attempt = |&attempt: &u64| Attempt { attempt, request: Arc::default() };
    let attempts = attempts.iter().map(attempt).collect();
    Batch { batch: number, epoch: 9, model: "m".into(), device: "d".into(), attempts }
}

fn check(result: Option<BatchResult>, attempts: &[u64]) {
    let result = result.unwrap();
    assert_eq!((result.epoch, result.rows), (9, 0));
    assert_eq!(result.results.iter().map(|done| done.attempt).collect::<Vec<_>>(), attempts);
    let cancelled = |code: &Error| code.code == Code::Cancelled;
    assert!(result.results.iter().all(|done| done.not_started && done.outcome.as_ref().is_err_and(cancelled)));
}

#[test]
fn a_batch_that_nobody_waits_for_is_answered_at_once_and_never_begun() {
    let mut held = Held::default();
    assert!(held.take(&batch(1, &[10, 11])).is_none());
    assert!(held.cancel(1, vec![10]).is_none());
    let result = held.cancel(1, vec![11]);
    check(result.clone(), &[10, 11]);
    assert!(held.settle(result.unwrap()).is_none(), "there is no session");
    assert!(held.begin(1).is_none() && held.numbers() == [1]);
    assert_eq!(held.attach(Arc::new(Nowhere), 9, &[]).len(), 1);
    assert!(held.is_idle());
}

#[test]
fn cancels_may_come_before_their_batch() {
    let mut held = Held::default();
    assert!(held.cancel(2, vec![20, 21]).is_none());
    assert!(held.cancel(3, vec![30]).is_none());
    check(held.take(&batch(2, &[20, 21])), &[20, 21]);
    assert!(held.take(&batch(3, &[30, 31])).is_none());
    let marks: Vec<bool> = held.begin(3).unwrap().iter().map(GivenUp::is_set).collect();
    assert_eq!(marks, [true, false]);
}

#[test]
fn what_has_begun_is_answered_by_its_device() {
    let mut held = Held::default();
    assert!(held.take(&batch(4, &[40])).is_none());
    let marks = held.begin(4).unwrap();
    assert!(!marks[0].is_set());
    assert!(held.cancel(4, vec![40]).is_none());
    assert!(marks[0].is_set() && !held.is_idle(), "its model sees it at its next step");
    assert!(held.take(&batch(5, &[50, 51])).is_none());
    check(held.cancel(5, Vec::new()), &[50, 51]);
}

/// A batch of one job, and its result.
fn job(number: u64) -> (Batch, BatchResult) {
    let mut batch = batch(number, &[number + 1]);
    let mut request = orion_proto::InferRequest::default();
    request.parameters.job = Some(JobAttempt { job: number, attempt: 2 });
    batch.attempts[0].request = Arc::new(request);
    let mut result = outcome::not_started(9, number, [number + 1], &GivenUp::error());
    result.results[0].outcome = Ok(orion_proto::InferAnswer::default());
    (batch, result)
}

fn numbers(held: &mut Held) -> Vec<u64> {
    let devices = [session::Device::default(), session::Device { name: "d".into(), ..Default::default() }];
    let named = held.jobs(&devices);
    assert!(named.iter().all(|batch| (batch.epoch, batch.device) == (9, 1)), "{named:?}");
    let mut numbers: Vec<u64> = named.into_iter().map(|batch| batch.batch).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn a_scheduler_that_follows_another_on_gets_what_ran_for_jobs_from_the_beginning() {
    let mut held = Held::default();
    let (first, second) = (Arc::new(Ear::default()), Arc::new(Ear::default()));
    held.attach(first.clone(), 9, &[]);
    let step = |held: &mut Held, text: &str| {
        let delta = orion_proto::Delta { text: text.into(), ..Default::default() };
        let told = held.step(9, vec![AttemptDelta { batch: 10, attempt: 11, delta }]);
        told.into_iter().for_each(|(link, deltas)| link.deltas(9, deltas));
    };
    let (runs, done) = (job(10), job(20));
    assert!(held.take(&runs.0).is_none() && held.take(&done.0).is_none() && held.take(&batch(30, &[31])).is_none());
    held.begin(10);
    step(&mut held, "a");
    assert!(held.settle(done.1.clone()).is_some(), "it is delivered");
    assert_eq!((numbers(&mut held), held.numbers().len()), (vec![10, 20], 3));
    let session = held.detach();
    step(&mut held, "b");
    // What it may have heard it is told again, from the first step on.
    assert_eq!(held.attach(first.clone(), 9, &[]), std::slice::from_ref(&done.1));
    assert_eq!(*first.0.lock(), ["a", "a", "b", "b"]);
    assert!(!held.lapse(session), "there was a session since");
    held.detach();
    step(&mut held, "c");
    let named = held.jobs(&[session::Device { name: "d".into(), ..Default::default() }]);
    assert_eq!(held.attach(second.clone(), 10, &named), [done.1]);
    assert_eq!(*second.0.lock(), ["a", "b", "c"]);
    // Whoever does not want it says so.
    assert!(held.cancel(20, vec![21]).is_none());
    assert_eq!(numbers(&mut held), [10]);
}

#[test]
fn what_is_held_for_longer_than_it_lasts_is_given_up() {
    let mut held = Held::default();
    held.attach(Arc::new(Ear::default()), 9, &[]);
    let (runs, waits) = (job(10), job(20));
    assert!(held.take(&runs.0).is_none() && held.take(&waits.0).is_none());
    let marks = held.begin(10).unwrap();
    let mut before = held.jobs(&[session::Device { name: "d".into(), ..Default::default() }]);
    before.sort_unstable_by_key(|batch| batch.batch);
    let session = held.detach();
    assert!(held.lapse(session));
    assert!(marks[0].is_set(), "its model sees it at its next step");
    assert_eq!((numbers(&mut held), held.numbers()), (vec![], vec![]));
    assert!(held.settle(runs.1).is_none() && held.settle(waits.1).is_none());
    // What its hello named is answered, or whoever went on with it would wait for ever.
    let answers = held.attach(Arc::new(Ear::default()), 10, &before);
    assert_eq!(answers.iter().map(|answer| answer.batch).collect::<Vec<_>>(), [10, 20]);
    assert!(held.is_idle() && answers.iter().all(|answer| answer.epoch == 9 && answer.results[0].outcome.is_err()));
}

/// Hears the text of steps.
#[derive(Default)]
struct Ear(parking_lot::Mutex<Vec<String>>);

impl SchedulerLink for Ear {
    fn result(&self, _: BatchResult) {}
    fn deltas(&self, _: u64, deltas: Vec<AttemptDelta>) {
        self.0.lock().extend(deltas.into_iter().map(|delta| delta.delta.text));
    }
    fn control(&self, _: orion_proto::session::to_scheduler::Message) {}
}

struct Nowhere;

impl SchedulerLink for Nowhere {
    fn result(&self, _: BatchResult) {}
    fn deltas(&self, _: u64, _: Vec<AttemptDelta>) {}
    fn control(&self, _: orion_proto::session::to_scheduler::Message) {}
}

#[test]
fn a_hello_names_no_more_than_fits_and_what_runs_first() {
    let mut held = Held::default();
    held.attach(Arc::new(Ear::default()), 9, &[]);
    for number in (0..4000).step_by(2) {
        let (batch, result) = job((1 << 60) + number);
        assert!(held.take(&batch).is_none());
        if number > 20 {
            held.settle(result);
        }
    }
    let devices = [session::Device { name: "d".into(), ..Default::default() }];
    let jobs = held.jobs(&devices);
    let hello = session::Hello { jobs: jobs.clone(), holding: held.numbers(), ..Default::default() };
    assert!(
        hello.encoded_len() < 40 << 10 && jobs.len() > 200,
        "{} batches, {} bytes",
        jobs.len(),
        hello.encoded_len()
    );
    let runs = |number: u64| jobs.iter().take(11).any(|batch| batch.batch == (1 << 60) + number);
    assert!((0..=20).step_by(2).all(runs));
    assert_eq!(jobs[11].batch, (1 << 60) + 3998, "then the newest");
}
