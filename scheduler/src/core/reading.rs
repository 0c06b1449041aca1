//! What models are: workers are asked, a few questions at a time.

use std::sync::Arc;

use orion_net::transfer::is_fetched;
use orion_proto::ModelSpec;

use super::{Command, Core, catalogue::Model};

/// Workers that are asked at once what a model is; of one that must be fetched to be read, only one, which others fetch it from.
const ASKED: usize = 3;
const FETCHED: usize = 1;
/// Questions that a worker has at once: its mailbox is for other things too.
const QUESTIONS: usize = 64;
/// Models whose turn it is as time passes once.
const TURNS: usize = 8;

impl Model {
    /// A worker has read it again after it was unloaded: what batches taught of another model is forgotten.
    pub(super) fn read_again(&mut self, spec: &ModelSpec) {
        let of_another = |old: Arc<ModelSpec>| ModelSpec { policy: spec.policy.clone(), ..(*old).clone() } != *spec;
        if self.replaced.take().is_some_and(of_another) {
            self.known.clear();
        }
    }
}

impl<T, L: Clone> Core<T, L> {
    /// Asks workers what a model is, while that is not known; later, when all that could say have enough to read.
    pub(super) fn ask_about(&mut self, index: usize) {
        self.unasked.remove(&index);
        self.look_for(index);
        let model = &self.models[index];
        let (false, true, Some(path)) = (model.spec.is_some(), model.wanted, model.path.clone()) else { return };
        let mut workers: Vec<usize> = (0..self.workers.len()).collect();
        let fetched = is_fetched(&path);
        if fetched {
            workers.sort_by_key(|worker| !self.has_files(index, *worker));
        }
        for worker in workers {
            if self.models[index].asked.len() >= if fetched { FETCHED } else { ASKED } {
                return;
            }
            self.ask(index, worker);
        }
    }

    /// Asks a worker what a model is, unless it was asked.
    pub(super) fn ask(&mut self, index: usize, worker: usize) {
        let (model, at) = (&self.models[index], &self.workers[worker]);
        let answered = model.unreadable.iter().any(|(at, _)| *at == worker);
        if answered || model.asked.contains(&worker) || !at.is_connected() {
            return;
        }
        let (Some(link), Some(path)) = (at.link.clone(), model.path.clone()) else { return };
        if at.questions >= QUESTIONS {
            self.unasked.insert(index);
            return;
        }
        let (order, name) = (self.number(), self.models[index].name.clone());
        self.models[index].asked.push(worker);
        self.workers[worker].questions += 1;
        let peers = self.peers_of(index, worker);
        self.commands.push(Command::Inspect { link, name, path, peers, order });
    }

    /// A worker has answered, or will not any more.
    pub(super) fn unask(&mut self, index: usize, worker: usize) {
        let asked = &mut self.models[index].asked;
        if let Some(place) = asked.iter().position(|at| *at == worker) {
            asked.swap_remove(place);
            self.workers[worker].questions -= 1;
        }
    }

    /// A worker has time for more questions once it has answered half.
    pub(super) fn ask_more(&mut self, worker: usize) {
        if self.workers[worker].questions <= QUESTIONS / 2 {
            self.ask_next(QUESTIONS);
        }
    }

    /// Asks about those that wait for it, in turn: who can be asked about the first of them may be busy for long.
    pub(super) fn ask_as_time_passes(&mut self) {
        self.ask_next(TURNS);
    }

    fn ask_next(&mut self, most: usize) {
        let rest = self.unasked.range(self.asked_from..).chain(self.unasked.range(..self.asked_from));
        let next: Vec<usize> = rest.take(most).copied().collect();
        self.asked_from = next.last().map_or(0, |last| last + 1);
        next.into_iter().for_each(|index| self.ask_about(index));
    }

    /// What a worker was asked it may never have heard; it is asked again, or others are.
    pub(super) fn ask_anew(&mut self, worker: usize) {
        self.fetching.forget(worker);
        for index in 0..self.models.len() {
            if self.models[index].asked.contains(&worker) {
                self.unask(index, worker);
                self.unasked.insert(index);
            }
        }
    }
}
