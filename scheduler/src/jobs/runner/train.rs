//! An attempt at a training: it brings workers together, and keeps them together until they have the result.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use orion_proto::{
    Result,
    jobs::{JobResult, TrainedModel, Training, TrainingCourse, job_result::Outcome},
    journal::Published,
    session::{Trained, TrainingProgress},
    training::Plan,
};
use prost::Message;

use super::attempt::{Attempter, Waits};
use crate::{
    front::Front,
    jobs::{decide::Attempt, view::View},
    training::{
        cohort::{Cohort, Terms},
        reports::Heard,
    },
};

/// How often it is looked who is there.
const LOOK: Duration = Duration::from_millis(20);

/// Whether this scheduler leaves its trainings to whoever leads next.
#[derive(Clone, Debug, Default)]
pub(super) struct Leaves(Arc<AtomicBool>);

impl Leaves {
    pub(super) fn say(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A training that runs here. What ends it, ends it at its workers, unless another scheduler goes on with it.
struct Running {
    cohort: Cohort,
    front: Front,
    view: Arc<View>,
    job: u64,
    leaves: Leaves,
    /// Whether its attempt failed, so that another may go on from where it was.
    failed: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.view.trains(self.job, None);
        if !self.leaves.0.load(Ordering::Acquire) && !self.front.draining() {
            self.cohort.end(self.failed).into_iter().for_each(|(worker, order)| self.front.order(&worker, order));
        }
    }
}

impl Attempter {
    /// Trains; the result, and the model that was made.
    pub(super) async fn train(&self, attempt: Attempt, training: &Training) -> Result<(Bytes, Option<Published>)> {
        let plan = Plan::from_json(&training.plan)?;
        let view = self.jobs.view().clone();
        let waits = Waits(view.clone(), attempt.job);
        let mut heard = self.front.listen(attempt.job);
        let submitted = view.unfinished(attempt.job).map_or(0, |job| job.submitted);
        let terms = terms(attempt, &plan, submitted);
        let version = terms.version.clone();
        let cohort = Cohort::new(terms);
        let (front, leaves) = (self.front.clone(), self.leaves.clone());
        let mut running = Running { cohort, front, view, job: attempt.job, leaves, failed: false };
        let trained = running.lead_on(&mut heard, &waits).await;
        running.failed = trained.is_err();
        let trained = trained?;
        let course = running.course(&trained.progress.unwrap_or_default());
        let (name, path) = (plan.name, trained.path);
        let model = Published { job: attempt.job, name: name.clone(), path: path.clone() };
        let outcome = Outcome::Trained(TrainedModel { name, version, path, course: Some(course) });
        Ok((JobResult { outcome: Some(outcome) }.encode_to_vec().into(), Some(model)))
    }
}

impl Running {
    /// Keeps its workers together until they have the result.
    async fn lead_on(&mut self, heard: &mut Heard, waits: &Waits) -> Result<Trained> {
        let (started, mut looks) = (Instant::now(), tokio::time::interval(LOOK));
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let told = tokio::select! {
                _ = looks.tick() => self.cohort.look(started.elapsed(), &self.front.trainers())?,
                Some((worker, report)) = heard.next() => self.cohort.heard(started.elapsed(), &worker, report)?,
            };
            if let Some(trained) = self.cohort.trained(started.elapsed(), &self.front.trainers()) {
                return Ok(trained.clone());
            }
            for (worker, order) in told {
                self.front.order(&worker, order);
            }
            waits.0.waits(self.job, self.cohort.waits());
            self.view.trains(self.job, Some(self.course(self.cohort.progress())));
        }
    }

    fn course(&self, progress: &TrainingProgress) -> TrainingCourse {
        TrainingCourse {
            step: progress.step,
            steps: progress.steps,
            train_loss: progress.train_loss,
            test_loss: progress.test_loss,
            test_accuracy: progress.test_accuracy,
            learning_rate: progress.learning_rate,
            examples_per_second: progress.examples_per_second,
            workers: self.cohort.members().map(str::to_owned).collect(),
            cohorts: self.cohort.generations(),
            exchanged_bytes: progress.exchanged_bytes,
            epsilon: progress.epsilon,
        }
    }
}

fn terms(attempt: Attempt, plan: &Plan, submitted_unix_ms: u64) -> Terms {
    Terms {
        job: attempt.job,
        // Above all generations of earlier attempts, and of schedulers that led before.
        base: (attempt.epoch << 40) | (u64::from(attempt.attempt) << 24),
        plan: plan.to_json(),
        train_path: plan.data.train.clone(),
        test_path: plan.data.test.clone(),
        // Another journal may give the job's number again.
        version: format!("{}-{submitted_unix_ms:x}", attempt.job),
        submitted_unix_ms,
        least: plan.workers.least,
        most: plan.most_workers(),
    }
}
