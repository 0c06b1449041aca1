//! What is refused before it costs anything.

use std::time::Duration;

use orion_proto::{Code, Error, Result};

use super::{
    Admitted, Core, ModelState, Nanos, WorkerState, cluster::Worker, cost::Cost, drain::retry_after, queue::LaneKey,
    sequences::in_sequence, target::Room,
};

fn seconds(nanos: Nanos) -> f64 {
    nanos as f64 / 1e9
}

impl<T, L: Clone> Core<T, L> {
    pub(super) fn admit(&mut self, now: Nanos, index: usize, admitted: &Admitted, lane: LaneKey) -> Result<()> {
        if self.draining {
            let error = Error::new(Code::Unavailable, "the server is draining, send to another or try again");
            return Err(error.retry_after(Duration::from_secs(1)));
        }
        if !self.models[index].wanted || !self.has_hope(now, index) {
            return Err(self.not_ready(index));
        }
        if admitted.bytes > self.limits.bytes {
            let text = format!(
                "the request's tensors take {} bytes, those of all requests under way may take {}",
                admitted.bytes, self.limits.bytes
            );
            return Err(Error::new(Code::ResourceExhausted, text));
        }
        let sequence = in_sequence(&admitted.spec, &admitted.request).map(|sequence| (index, sequence.key));
        let Some(making_way) = self.making_way(lane, admitted.bytes, sequence) else {
            let text = match self.requests.len() >= self.limits.requests {
                true => format!("{} requests are under way, no more are taken", self.limits.requests),
                false => format!(
                    "requests of {} bytes are under way, at most {} are taken",
                    self.request_bytes, self.limits.bytes
                ),
            };
            return Err(Error::new(Code::ResourceExhausted, text).retry_after(self.drain_after(now, index)));
        };
        self.admit_to_model(now, index, admitted, lane)?;
        self.push_out(now, making_way);
        Ok(())
    }

    fn admit_to_model(&mut self, now: Nanos, index: usize, admitted: &Admitted, lane: LaneKey) -> Result<()> {
        if let Some(sequence) = in_sequence(&admitted.spec, &admitted.request) {
            self.admit_in_sequence(now, index, sequence)?;
        }
        if self.models[index].is_inline() {
            return Ok(());
        }
        match admitted.deadline {
            // How long a generation takes is its own affair: it has begun to answer long before.
            _ if self.models[index].is_generator() => self.admit_in_time(now, index, admitted, lane),
            Some(deadline) => self.admit_until(now, index, admitted, lane, deadline),
            None => self.admit_in_time(now, index, admitted, lane),
        }
    }

    /// A request whose deadline cannot be met is refused: for the deadline's sake when no device could meet it, for the
    /// work's when one could if it were idle. What is predicted to wait before it is not held against it: it may be worth
    /// more than that when a device is free (refusing by the own queue costs 0.4% of the answers at load 1.3).
    fn admit_until(
        &mut self,
        now: Nanos,
        index: usize,
        admitted: &Admitted,
        lane: LaneKey,
        deadline: Nanos,
    ) -> Result<()> {
        let left = deadline.saturating_sub(now);
        let least = self.least_cost(now, index, lane.bucket, admitted.rows, admitted.bytes);
        let Some(least) = least else { return Ok(()) };
        if least.total() <= left {
            return self.admit_behind(now, index, admitted, lane, least);
        }
        let idle = Cost { work: 0, ..least }.total();
        // Others are pushed out only where the holders could not meet it either if they were idle.
        let room = if idle <= left { Room::Free } else { Room::Evict };
        if self.copy_for_admitted(now, index, admitted, left, room) {
            return Ok(());
        }
        // A deadline of microseconds is none of 0.000 s.
        let (left_s, soonest) = (seconds(left), seconds(least.total()));
        let text = format!("the deadline is in {left_s:.6} s, the earliest answer is predicted in {soonest:.3} s");
        if idle <= left {
            let text = format!("{text}, {:.3} s of that until a device takes it", seconds(least.work));
            return Err(Error::new(Code::ResourceExhausted, text).retry_after(self.drain_after(now, index)));
        }
        self.copy_for_later(now, index, lane.priority);
        Err(Error::new(Code::DeadlineExceeded, text))
    }

    /// A request for which what is due before it leaves no time, whatever else the holders leave undone, is refused while it
    /// can still go elsewhere; but for a copy that could be there in time.
    fn admit_behind(
        &mut self,
        now: Nanos,
        index: usize,
        admitted: &Admitted,
        lane: LaneKey,
        least: Cost,
    ) -> Result<()> {
        let Some(deadline) = admitted.deadline else { return Ok(()) };
        let left = deadline.saturating_sub(now);
        let soonest = self.least_behind(now, index, lane, deadline, admitted.rows);
        if soonest <= left {
            return Ok(());
        }
        let could = |core: &mut Self, device: usize| {
            let alone = core.load_time(index, device).saturating_add(least.service);
            alone <= left && !core.is_on(index, device) && core.has_room(index, device)
        };
        if self.may_copy(index) && self.suitable(index).iter().any(|device| could(self, *device)) {
            return Ok(());
        }
        let text = format!(
            "the deadline is in {:.6} s, behind what is due before it the answer takes {:.3} s at least",
            seconds(left),
            seconds(soonest)
        );
        Err(Error::new(Code::ResourceExhausted, text).retry_after(self.drain_after(now, index)))
    }

    /// A request without a deadline is refused when what goes before it would take longer than its model's owner allows.
    fn admit_in_time(&mut self, now: Nanos, index: usize, admitted: &Admitted, lane: LaneKey) -> Result<()> {
        let most = self.max_queue(index);
        let Err(waits) = self.waits_within(now, index, lane, most) else { return Ok(()) };
        if self.copy_for_admitted(now, index, admitted, waits, Room::Free) {
            return Ok(());
        }
        let text = format!(
            "what goes before a request to model '{}' takes {:.1} s, at most {:.1} s may (max_queue_s)",
            self.models[index].name,
            seconds(waits),
            seconds(most)
        );
        Err(Error::new(Code::ResourceExhausted, text).retry_after(retry_after(waits)))
    }

    /// A copy for a request's sake, unless the request goes on where the state of its sequence is.
    fn copy_for_admitted(&mut self, now: Nanos, index: usize, admitted: &Admitted, within: Nanos, room: Room) -> bool {
        let goes_on = in_sequence(&admitted.spec, &admitted.request).is_some_and(|sequence| !sequence.start);
        !goes_on && self.copy_for(now, index, (admitted.rows, admitted.bytes), within, room)
    }

    /// Why this model cannot answer now; none where it can, or there is none.
    pub fn why_not_ready(&self, name: &str) -> Option<Error> {
        let index = self.index(name).ok()?;
        (!self.model_state(index).answers()).then(|| self.not_ready(index))
    }

    /// Why a model cannot answer, for a client.
    pub(super) fn not_ready(&self, index: usize) -> Error {
        let model = &self.models[index];
        let reason = match self.model_state(index) {
            // Why a load failed names files of a worker: that is for whoever runs the server.
            ModelState::Failed if !model.failures.is_empty() || model.spec.is_none() => {
                "it could not be loaded, `orion models` says why".into()
            }
            _ => self.reason(index),
        };
        let error = Error::new(Code::Unavailable, format!("model '{}' is not ready: {reason}", model.name));
        if model.wanted { error.retry_after(Duration::from_secs(1)) } else { error }
    }

    /// The reason why a model is not ready, or not on as many devices as its owner wants, as far as it is known.
    pub(super) fn reason(&self, index: usize) -> String {
        let model = &self.models[index];
        match self.model_state(index) {
            // Its last replica may still run what it has.
            _ if !model.wanted => "unloaded".into(),
            ModelState::Ready => self.missing_replicas(index),
            ModelState::Cold => "not in memory, the next request brings it back".into(),
            ModelState::Loading | ModelState::Unloading => "loading".into(),
            ModelState::Unloaded => self.no_worker(),
            ModelState::Failed => self.failures(index).join("; "),
        }
    }

    /// Why no worker has a model.
    fn no_worker(&self) -> String {
        let may_be_back = |worker: &&Worker<L>| matches!(worker.state, WorkerState::Suspect | WorkerState::Joining);
        match self.workers.iter().find(may_be_back) {
            Some(worker) => format!("worker '{}' is {}", worker.name, worker.state.name()),
            None => "no worker has it, start one with: orion worker --join <session address>".into(),
        }
    }

    /// What a model that serves lacks of the replicas that its owner wants.
    fn missing_replicas(&self, index: usize) -> String {
        let least = self.models[index].spec.as_ref().map_or(0, |spec| spec.policy.min_replicas as usize);
        let there = self.staying(index);
        if there >= least {
            return String::new();
        }
        let reasons = self.failures(index);
        let why = if reasons.is_empty() { "no other device is there".into() } else { reasons.join("; ") };
        format!("{there} of {least} replicas (min_replicas): {why}")
    }

    /// Every node's reason why it does not hold a model.
    fn failures(&self, index: usize) -> Vec<String> {
        let model = &self.models[index];
        let named =
            |worker: usize, reason: &dyn std::fmt::Display| format!("worker '{}': {reason}", self.workers[worker].name);
        if model.spec.is_none() {
            let told = model.unreadable.iter().filter(|(_, reason)| !reason.is_empty());
            return told.map(|(worker, reason)| named(*worker, reason)).collect();
        }
        // One that has it is named where it takes no part.
        let others = self.devices.iter().filter(|(id, _)| !self.is_on(index, *id) || !self.takes_part(*id));
        let refused = others.filter_map(|(id, device)| Some((device, self.refusal(index, id)?)));
        refused.map(|(device, refusal)| named(device.worker, &format_args!("{}: {refusal}", device.name))).collect()
    }
}
