//! Results: each request is settled once; what failed for its worker's sake is tried again.

use orion_net::{AttemptResult, BatchResult};
use orion_proto::{Code, Error};

use super::{Command, Core, Nanos, RequestKey, WorkerState, dispatch::Running};

impl<T, L: Clone> Core<T, L> {
    /// A worker delivers a batch's result. One that was settled otherwise, or is of another epoch, is dropped.
    pub fn result(&mut self, now: Nanos, session: u64, result: BatchResult) {
        let from = self.by_session(session);
        let known = self.batches.get(&result.batch).is_some_and(|running| Some(running.worker) == from);
        if !known || result.epoch != self.epoch {
            self.totals.results_dropped += 1;
            return;
        }
        let Some(running) = self.release(now, result.batch) else { return };
        let worker = running.worker;
        self.workers[worker].batches_done += 1;
        self.workers[worker].last_frame = now;
        let service = (result.service_seconds.clamp(0.0, 1e6) * 1e9) as Nanos;
        self.learn(&running, result.service_seconds, service);
        let mut results = result.results.into_iter();
        for (attempt, key) in &running.attempts {
            match results.next() {
                Some(done) if done.attempt == *attempt => self.settle(now, worker, service, *key, done),
                _ => {
                    let text = "the worker's result does not hold this attempt";
                    let outcome = Err(Error::new(Code::Unavailable, text));
                    let done = AttemptResult { attempt: *attempt, outcome, not_started: false };
                    self.settle(now, worker, service, *key, done);
                }
            }
        }
        self.let_go_if_drained(worker);
        self.dispatch(now);
    }

    fn learn(&mut self, running: &Running, seconds: f64, service: Nanos) {
        let model = &mut self.models[running.model];
        model.statistics.batch(running.rows as u64, service);
        if let Some(replica) = model.replicas.iter_mut().find(|replica| replica.worker == running.worker) {
            replica.curve.observe(running.rows, seconds);
        }
    }

    fn settle(&mut self, now: Nanos, worker: usize, service: Nanos, key: RequestKey, done: AttemptResult) {
        // Its client went away or its time ran out: that was counted then.
        let Some(request) = self.request(key) else { return };
        let retry = match &done.outcome {
            Err(error) => error.code == Code::Unavailable && request.attempts < self.limits.attempts,
            Ok(_) => false,
        };
        let outcome = done.outcome.and_then(|answer| {
            let Some(request) = self.request(key) else { return Ok(answer) };
            request.spec.check_answer(&answer.outputs, request.rows).map(|()| answer)
        });
        match outcome {
            Err(_) if retry => self.requeue(now, key, worker),
            Err(error) => self.fail(now, key, error),
            Ok(answer) => {
                let Some(request) = self.take_request(key) else { return };
                self.totals.succeeded += 1;
                let statistics = &mut self.models[request.model].statistics;
                statistics.succeeded += 1;
                statistics.rows = statistics.rows.saturating_add(request.rows as u64);
                statistics.succeeded_ns += now.saturating_sub(request.arrived);
                statistics.queue_ns += request.dispatched.saturating_sub(request.arrived);
                statistics.compute_ns += service;
                statistics.carriage_ns += now.saturating_sub(request.dispatched).saturating_sub(service);
                statistics.last = now;
                self.commands.push(Command::Settle { ticket: request.ticket, spec: request.spec, outcome: Ok(answer) });
            }
        }
    }

    /// Puts a request back at the head of its queue.
    fn requeue(&mut self, now: Nanos, key: RequestKey, failed_on: usize) {
        let Some(request) = self.request_mut(key) else { return };
        request.running = None;
        request.failed_on = Some(failed_on);
        let model = request.model;
        if !self.models[model].wanted {
            return self.fail(now, key, self.not_ready(model));
        }
        self.totals.retried += 1;
        self.models[model].queue.push_front(key);
    }

    /// Takes a worker's batches away from it and tries their requests again; those out of tries are answered.
    pub(super) fn requeue_batches(&mut self, now: Nanos, worker: usize, which: impl Fn(u64, &Running) -> bool) {
        let numbers: Vec<u64> = self
            .batches
            .iter()
            .filter(|(number, running)| running.worker == worker && which(**number, running))
            .map(|(number, _)| *number)
            .collect();
        // The newest first, each from its end: pushed to the front, they stand in their old order again.
        for number in numbers.into_iter().rev() {
            let Some(running) = self.release(now, number) else { continue };
            for (_, key) in running.attempts.into_iter().rev() {
                let Some(request) = self.request(key) else { continue };
                if request.attempts < self.limits.attempts {
                    self.requeue(now, key, worker);
                    continue;
                }
                let name = &self.workers[worker].name;
                let text = format!("worker '{name}' was lost, and {} tries were made", self.limits.attempts);
                self.fail(now, key, Error::new(Code::Unavailable, text));
            }
        }
    }

    /// Of a suspect's work, what another worker can run now.
    pub(super) fn retry_elsewhere(&mut self, now: Nanos, worker: usize) {
        let others: Vec<bool> = self
            .models
            .iter()
            .map(|model| {
                model.replicas.iter().any(|replica| {
                    replica.worker != worker
                        && replica.state == super::ModelState::Ready
                        && self.workers[replica.worker].state == WorkerState::Ready
                })
            })
            .collect();
        self.requeue_batches(now, worker, |_, running| others[running.model]);
    }

    /// A worker is back: what it was given but does not hold never reached it, or its result was lost on the way.
    pub(super) fn retry_what_never_arrived(&mut self, now: Nanos, worker: usize, holding: &[u64]) {
        self.requeue_batches(now, worker, |number, _| !holding.contains(&number));
    }
}
