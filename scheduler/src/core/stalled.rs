//! What stands still: batches that do not end, loads, and queues that nothing can run.

use std::time::Duration;

use orion_net::BreakerState;
use orion_proto::{Code, Error};

use super::{Core, ModelState, Nanos, RequestKey, dispatch::Running, nanos, request::Request, target::Room};

/// A batch stands still when it takes so many times what was predicted, and at least this long.
const STILL_FACTOR: Nanos = 20;
const STILL: Duration = Duration::from_secs(10);
/// A generation stands still when no step of it has come for so long.
const MUTE: Duration = Duration::from_secs(60);
/// On top of so many times what the prompts that are read before its first step were predicted to take.
const PROMPT_FACTOR: Nanos = 2;
/// The same for a load.
const STUCK_FACTOR: Nanos = 10;
const STUCK: Duration = Duration::from_secs(300);

impl<T, L: Clone> Core<T, L> {
    /// Loads that do not end are given up, so that the device may load others.
    pub(super) fn free_stuck_loads(&mut self, now: Nanos) {
        let stuck = |id: &usize| {
            let replica = &self.replicas[*id];
            let expected = self.load_time(replica.model, replica.device).saturating_mul(STUCK_FACTOR);
            // What comes further, over a link that is slower than it seemed, does not stand still.
            let took = now.saturating_sub(replica.started.max(replica.moved));
            replica.sent && replica.state == ModelState::Loading && took > expected.max(nanos(STUCK))
        };
        let stuck: Vec<usize> = self.devices.iter().filter_map(|(_, device)| device.loading).filter(stuck).collect();
        for id in stuck {
            let (index, device) = (self.replicas[id].model, self.replicas[id].device);
            self.note_failure(now, index, device, "its load did not end".to_owned());
            self.unload(now, id);
        }
    }

    /// Batches that stand still are tried elsewhere; the device stays booked until it answers or is lost.
    pub(super) fn free_stalled(&mut self, now: Nanos) {
        let stalled = self.devices.iter().filter(|(_, device)| device.stalled).map(|(id, _)| id);
        stalled.collect::<Vec<usize>>().into_iter().for_each(|device| self.avoid(now, device));
        let still = |number: u64, running: &Running| {
            let replica = self.replicas.get(running.replica).filter(|_| self.models[running.model].is_generator());
            // One that was preempted reads its prompt again.
            let reads = running.prefill > 0 || replica.is_some_and(|replica| number <= replica.crowded);
            let limit = match self.models[running.model].is_generator() {
                true if reads => nanos(MUTE).saturating_add(running.reading.saturating_mul(PROMPT_FACTOR)),
                true => nanos(MUTE),
                false => running.predicted.saturating_mul(STILL_FACTOR).max(nanos(STILL)),
            };
            // One that waits for a place or for room says nothing: of a generator none stands still while another does not.
            let spoke = replica.map_or(0, |replica| replica.spoke);
            !self.models[running.model].is_inline()
                && !running.attempts.is_empty()
                && now.saturating_sub(running.given.max(running.begun).max(spoke)) > limit
        };
        // What was given ahead waits for what it was given behind, unless that stands still.
        let first = |number: u64, running: &Running| {
            let device = &self.devices[running.device];
            running.beside || device.stalled || device.batches.first() == Some(&number)
        };
        let late: Vec<u64> = self
            .batches
            .iter()
            .filter(|(number, r)| still(**number, r) && first(**number, r))
            .map(|(number, _)| *number)
            .collect();
        let mute = self.batches.values().filter(|running| running.beside);
        let mute = mute.filter(|running| self.replicas.get(running.replica).is_some_and(|replica| replica.stalled));
        let mute: Vec<(usize, usize)> = mute.map(|running| (running.model, running.device)).collect();
        for (index, device) in mute {
            if !self.models[index].queue.is_empty() {
                self.copy_elsewhere(now, index, &[device], Nanos::MAX);
            }
        }
        for number in late {
            let Some(running) = self.batches.get(&number) else { continue };
            let (id, device, index) = (running.replica, running.device, running.model);
            if !running.beside {
                self.avoid(now, device);
            }
            let Some(running) = self.batches.get(&number) else { continue };
            let other = |other: &usize| {
                let replica = &self.replicas[*other];
                let serves = replica.serves() && self.takes_part(replica.device) && !self.is_stalled(*other);
                let goes_on = || running.attempts.iter().all(|(_, key)| self.goes_on_with(*key, replica.device));
                *other != id && serves && goes_on()
            };
            if !self.models[index].replicas.iter().any(other) {
                // Where nothing else holds the model, a copy is made; its requests follow when it is there.
                let begun = running.attempts.first().map(|(_, key)| *key).filter(|key| self.has_begun(*key));
                match begun {
                    Some(key) => self.copy_to_go_on(now, index, key, &[device]),
                    None => self.copy_elsewhere(now, index, &[device], Nanos::MAX),
                }
                continue;
            }
            let repeats = |key: RequestKey| self.request(key).is_none_or(|r| r.request.parameters.idempotent);
            if !running.attempts.iter().any(|(_, key)| repeats(*key)) {
                continue;
            }
            let running = self.batches.get_mut(&number).map(|running| std::mem::take(&mut running.attempts));
            if let Some(replica) = self.replicas.get_mut(id) {
                replica.failed(now);
                replica.stalled = true;
                self.rebind(now, id);
            }
            let (mut kept, mut again) = (Vec::new(), Vec::new());
            for (attempt, key) in running.unwrap_or_default() {
                let Some(request) = self.request_mut(key) else { continue };
                if !request.request.parameters.idempotent {
                    kept.push((attempt, key));
                } else if request.stop(number) {
                    again.push((key, Error::new(Code::Unavailable, "the device stands still")));
                } else {
                    self.unbind(key, id);
                }
            }
            if let Some(running) = self.batches.get_mut(&number) {
                running.attempts = kept;
            }
            self.retry(now, again, device);
        }
    }

    /// Nothing is given to a device that stands still: what is bound to it goes elsewhere, and what waits for models that
    /// nothing else holds gets a copy.
    fn avoid(&mut self, now: Nanos, device: usize) {
        self.devices[device].stalled = true;
        for id in self.devices[device].residents.clone() {
            // The first may have been given up for a copy of the one before.
            let Some(index) = self.replicas.get(id).map(|replica| replica.model) else { continue };
            self.rebind(now, id);
            // Nor does a node that is to be emptied take what only that holds for good.
            let leaves = self.models[index].replicas.iter().any(|id| self.runs_last(*id));
            if leaves || !self.models[index].queue.is_empty() {
                self.copy_elsewhere(now, index, &[device], Nanos::MAX);
            }
        }
    }

    /// A device moves again: of models that were copied meanwhile what is more than may be is given up, what does not serve
    /// yet before what does.
    pub(super) fn give_up_copies(&mut self, now: Nanos, device: usize) {
        for id in self.devices[device].residents.clone() {
            // Another may have gone with the one before.
            let Some(index) = self.replicas.get(id).map(|replica| replica.model) else { continue };
            let copies: Vec<usize> = self.lasting(index).collect();
            let most = self.models[index].max_replicas();
            if copies.contains(&id) && most.is_some_and(|most| copies.len() > most) {
                let loading = copies.iter().copied().find(|id| !self.replicas[*id].serves());
                self.unload(now, loading.unwrap_or(id));
            }
        }
    }

    /// Answers requests whose model nothing has been able to run for longer than the grace.
    pub(super) fn answer_orphans(&mut self, now: Nanos) {
        for index in 0..self.models.len() {
            self.see_to_begun(now, index);
            let waits = !self.models[index].queue.is_empty();
            let hope = waits && (self.has_hope(now, index) || self.is_finished(index));
            let broken = waits && self.is_broken(now, index);
            if !waits || (hope && !broken) {
                self.models[index].orphaned = None;
                continue;
            }
            let since = *self.models[index].orphaned.get_or_insert(now);
            if now.saturating_sub(since) < nanos(self.limits.orphan_grace) {
                continue;
            }
            match hope {
                true => self.answer_held_back(now, index),
                false => self.refuse_queue(now, index),
            }
        }
    }

    /// Whether a worker that is drained runs what waits for a model.
    fn is_finished(&self, index: usize) -> bool {
        let runs = |id: &usize| self.replicas[*id].serves() && !self.is_stalled(*id) && self.runs_last(*id);
        self.models[index].replicas.iter().any(runs)
    }

    /// Whether all that could run a model has failed too often, and nothing else could load it.
    fn is_broken(&mut self, now: Nanos, index: usize) -> bool {
        let closed = |id: &usize| {
            let replica = &self.replicas[*id];
            !replica.serves() || replica.breaker.state(now) == BreakerState::Closed
        };
        let broken = !self.models[index].replicas.is_empty() && !self.models[index].replicas.iter().any(closed);
        broken && self.target(now, index, Room::Free, &mut Vec::new()).is_none()
    }

    /// Answers what has waited for longer than the grace behind breakers that are all open. What came later stays: somebody
    /// has to find out whether the model works again.
    fn answer_held_back(&mut self, now: Nanos, index: usize) {
        let grace = nanos(self.limits.orphan_grace);
        let old = |request: &Request<T>| {
            request.model == index && request.running.is_none() && now.saturating_sub(request.arrived) >= grace
        };
        let waiting = self.requests.iter().filter(|(_, request)| old(request));
        let late: Vec<RequestKey> =
            waiting.map(|(place, request)| RequestKey { place, serial: request.serial }).collect();
        let pauses = self.models[index].replicas.iter().map(|id| self.replicas[*id].breaker.pause());
        let pause = Duration::from_nanos(pauses.min().unwrap_or(0));
        let text = format!(
            "model '{}' has failed on every device that holds it, requests are let through one at a time",
            self.models[index].name
        );
        for key in late {
            self.leave_queue(key);
            self.fail(now, key, Error::new(Code::Unavailable, text.clone()).retry_after(pause));
        }
    }
}
