//! Results: each request is settled once; what failed is tried again, elsewhere or in halves.

use orion_net::{AttemptResult, BatchResult};
use orion_proto::{Code, Error, InferAnswer, Result};

use super::{Command, Core, Nanos, RequestKey, dispatch::Running, placement::Concern, request::Request};

/// Wishes that are looked at for one that must be met.
const DEMANDED: usize = 64;

/// How a batch went as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Each attempt speaks for itself.
    None,
    /// One of its requests may have failed all of them.
    Batch,
    /// It was more than the device's memory holds.
    Memory,
    /// The device or its worker could not run it.
    Device,
    /// Nobody waited for it any more, so it was not run.
    Cancelled,
}

fn fault(results: &[AttemptResult]) -> Fault {
    // What was cancelled before it began says nothing of the batch.
    let failed = |done: &AttemptResult, code: Code| matches!(&done.outcome, Err(error) if error.code == code);
    let ran = || results.iter().filter(|done| !failed(done, Code::Cancelled));
    let all = |code: Code| ran().next().is_some() && ran().all(|done| failed(done, code));
    match () {
        () if all(Code::Internal) => Fault::Batch,
        () if all(Code::ResourceExhausted) => Fault::Memory,
        () if all(Code::Unavailable) => Fault::Device,
        () if ran().next().is_none() => Fault::Cancelled,
        () => Fault::None,
    }
}

impl<T, L: Clone> Core<T, L> {
    /// A worker delivers a batch's result. One that was settled otherwise, or is of another epoch, is dropped.
    pub fn result(&mut self, now: Nanos, session: u64, result: BatchResult) {
        let from = self.by_session(session);
        let Some(mut result) = self.keep_result(now, from, result) else { return };
        let of = self.batches.get(&result.batch).filter(|running| Some(running.worker) == from);
        if of.is_none_or(|running| running.epoch != result.epoch) {
            self.totals.results_dropped += 1;
            return;
        }
        let Some(running) = self.release(now, result.batch) else { return };
        let (worker, device, index, replica) = (running.worker, running.device, running.model, running.replica);
        self.workers[worker].batches_done += 1;
        self.workers[worker].last_frame = now;
        let told = std::mem::take(&mut result.results);
        // Of a batch whose requests were all taken back, what it says of itself.
        let (fault, results) = match running.attempts.is_empty() {
            true => (fault(&told), self.checked(&running, told)),
            false => {
                let results = self.checked(&running, told);
                (fault(&results), results)
            }
        };
        let failed = fault == Fault::Device || (fault == Fault::Memory && running.rows <= 1);
        self.learn(now, &running, &result, fault);
        self.tell_balancer(now, &running, !failed);
        self.settle_batch(now, running, results, &result, fault);
        if failed && self.replicas.get(replica).is_some_and(|replica| !replica.breaker.allows(now)) {
            self.rebind(now, replica);
        }
        self.let_go_if_drained(worker);
        if self.models[index].is_inline() {
            return self.run_inline(now, index);
        }
        if self.models[index].is_generator() {
            self.run_generator(now, index);
        }
        // What an emptied node holds must find a device idle, which one that is busy never is while time passes.
        if self.unplaced.iter().take(DEMANDED).any(|index| self.models[*index].demanded) {
            self.settle_wishes(now);
        }
        self.fill(now, device);
        self.offer(now, index);
        self.take_turns(now);
        self.place(now, Concern::Device(device));
    }

    /// One outcome for each attempt that is still wanted of a batch, its answer checked against what the model declares.
    /// Others were taken back or called off: they are counted and dropped.
    fn checked(&mut self, running: &Running, results: Vec<AttemptResult>) -> Vec<AttemptResult> {
        let mut results = results.into_iter().peekable();
        let mut checked = Vec::with_capacity(running.attempts.len());
        let mut dropped = 0;
        for &(attempt, key) in &running.attempts {
            while results.next_if(|done| done.attempt < attempt).is_some() {
                dropped += 1;
            }
            let mut done = results.next_if(|done| done.attempt == attempt).unwrap_or_else(|| {
                let text = "the worker's result does not hold this attempt";
                AttemptResult { attempt, outcome: Err(Error::new(Code::Unavailable, text)), not_started: false }
            });
            if let (Some(request), Ok(answer)) = (self.request(key), &done.outcome)
                && let Err(error) = match request.generated.is_some() {
                    true => self.follows(key, answer.delta.as_ref()),
                    false => request.spec.check_answer(&answer.outputs, request.rows),
                }
            {
                done.outcome = Err(error);
            }
            checked.push(done);
        }
        self.totals.results_dropped += dropped + results.count() as u64;
        checked
    }

    /// What a batch took corrects its curve, its memory and the trust in its device.
    fn learn(&mut self, now: Nanos, running: &Running, result: &BatchResult, fault: Fault) {
        if running.adopted {
            return;
        }
        let service = nanoseconds(result.service_seconds);
        self.models[running.model].statistics.batch(running.rows as u64, service);
        let seconds = self.service_told(running, result);
        let alone = matches!(running.attempts.as_slice(), [(_, key)] if self.request(*key).is_some());
        let there =
            |replica: &&mut super::replica::Replica| replica.model == running.model && replica.device == running.device;
        let Some(replica) = self.replicas.get_mut(running.replica).filter(there) else { return };
        // Beside more than it has places for, it may have waited for one.
        let waited = result.batch <= replica.crowded;
        match fault {
            Fault::Device => replica.failed(now),
            Fault::Memory => {
                replica.ran_out(now, running.rows);
                // A large batch that did not fit says nothing of smaller ones; a single row that did not fit does.
                match running.rows <= 1 {
                    true => replica.failed(now),
                    false => replica.breaker.probe_lost(),
                }
            }
            // Whether a request that failed alone is to blame is seen elsewhere: until then the probe is out.
            Fault::Batch if alone => {}
            Fault::Batch | Fault::Cancelled => replica.breaker.probe_lost(),
            Fault::None => {
                replica.succeeded(now);
                // Rows that were cancelled before it began took no time.
                let rows = usize::try_from(result.rows).ok().filter(|rows| (1..=running.rows).contains(rows));
                replica.fitted(now, rows.unwrap_or(running.rows));
                if let Some(seconds) = seconds.filter(|_| !waited) {
                    replica.observe(now, running.bucket, rows.unwrap_or(running.rows), seconds);
                }
                let class = self.devices[running.device].class;
                if self.models[running.model].learn(class, replica.curves()) {
                    self.remembered.taught(running.model, class);
                }
            }
        }
        let rows = usize::try_from(result.rows).map_or(running.rows, |rows| rows.min(running.rows));
        self.learn_peak(running.replica, rows, result.peak_bytes);
    }

    /// What a batch says of its curve: of a generation its tokens alone, since its prompt is predicted apart.
    fn service_told(&self, running: &Running, result: &BatchResult) -> Option<f64> {
        let [(_, key)] = running.attempts.as_slice() else { return Some(result.service_seconds) };
        match self.request(*key).and_then(|request| request.generated.as_ref()) {
            Some(generated) => generated.decode.whole(),
            // Of a generation that was given up nobody knows what its prompt took.
            None => (!self.models[running.model].is_generator()).then_some(result.service_seconds),
        }
    }

    /// A batch ended, with an answer of its device or without.
    pub(super) fn tell_balancer(&mut self, now: Nanos, running: &Running, ok: bool) {
        if let Some(balancer) = &mut self.models[running.model].balancer {
            let (id, latency) = (self.devices[running.device].hash, now.saturating_sub(running.given));
            balancer.finished(now, id, latency, ok);
        }
    }

    fn settle_batch(
        &mut self,
        now: Nanos,
        running: Running,
        results: Vec<AttemptResult>,
        figures: &BatchResult,
        fault: Fault,
    ) {
        let service = nanoseconds(figures.service_seconds);
        let waited = nanoseconds(figures.waited_seconds);
        let several = running.attempts.len() > 1;
        let (mut halve, mut again): (Vec<RequestKey>, Vec<(RequestKey, Error)>) = Default::default();
        for (&(_, key), done) in running.attempts.iter().zip(results) {
            // Its client went away, its time ran out, or another run of it answered: that was counted then.
            let Some(request) = self.request_mut(key) else {
                self.totals.results_dropped += u64::from(running.hedged);
                continue;
            };
            if !request.stop(figures.batch) && done.outcome.is_err() {
                // Should the other run fail as well, this device is not tried again.
                if !request.failed_on.contains(&running.device) {
                    request.failed_on.push(running.device);
                }
                self.unbind(key, running.replica);
                continue;
            }
            request.course.told(figures.batch, waited, service);
            // What goes on with a sequence runs where its state is, or not at all.
            let goes_on = request.sequence().is_some_and(|sequence| !sequence.start);
            let may_repeat = (done.not_started && !goes_on) || request.request.parameters.idempotent;
            match done.outcome {
                Ok(answer) => {
                    self.learn_generation(now, key, (&running, figures.batch), &answer);
                    self.succeed(now, key, answer, service);
                }
                Err(_) if matches!(fault, Fault::Batch | Fault::Memory) && several && may_repeat => halve.push(key),
                Err(_) if fault == Fault::Batch && may_repeat && self.try_elsewhere(now, key, &running) => {}
                Err(error) => {
                    if fault == Fault::Batch {
                        self.absolve(running.model, running.replica, running.device);
                    }
                    let error = match several && !may_repeat && matches!(fault, Fault::Batch | Fault::Memory) {
                        true => {
                            let text = "others were in its batch, and as it is not idempotent it is not tried alone";
                            Error::new(error.code, format!("{}; {text}", error.message))
                        }
                        false => error,
                    };
                    let no_memory = fault == Fault::Memory && !self.fits_elsewhere(key, running.device);
                    let devices = matches!(fault, Fault::Memory | Fault::Device) || error.code == Code::Unavailable;
                    let devices = devices && !no_memory;
                    match devices && may_repeat {
                        true => again.push((key, error)),
                        false => self.fail(now, key, error),
                    }
                }
            }
        }
        self.retry(now, again, running.device);
        self.bisect(now, halve);
    }

    fn succeed(&mut self, now: Nanos, key: RequestKey, answer: InferAnswer, service: Nanos) {
        let Some(mut request) = self.remove_request(key) else { return };
        self.call_off(&mut request);
        self.blame(now, &request);
        self.totals.succeeded += 1;
        let statistics = &mut self.models[request.model].statistics;
        statistics.succeeded += 1;
        statistics.rows = statistics.rows.saturating_add(request.rows as u64);
        statistics.succeeded_ns += now.saturating_sub(request.arrived);
        statistics.queue_ns += request.dispatched.saturating_sub(request.arrived);
        statistics.compute_ns += service;
        statistics.carriage_ns += now.saturating_sub(request.dispatched).saturating_sub(service);
        statistics.last = now;
        self.trace_end(now, &request, "ok");
        let outcome: Result<InferAnswer> = Ok(answer);
        let (index, sequence) = (request.model, request.sequence());
        self.commands.push(Command::Settle { ticket: request.ticket, spec: request.spec, outcome });
        if let Some(sequence) = sequence {
            self.leave_sequence(now, index, sequence.key, key, !sequence.end);
        }
    }

    /// Another run of an answered request is worth nothing any more.
    fn call_off(&mut self, request: &mut Request<T>) {
        for (batch, attempt) in [request.running.take(), request.hedge.take()].into_iter().flatten() {
            let Some(running) = self.batches.get(&batch) else { continue };
            if let Some(link) = self.workers[running.worker].link.clone() {
                self.commands.push(Command::Cancel { link, batch, attempts: vec![attempt] });
            }
        }
    }
}

fn nanoseconds(seconds: f64) -> Nanos {
    (seconds.clamp(0.0, 1e6) * 1e9) as Nanos
}
