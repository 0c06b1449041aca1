//! What operators do to nodes: out of placement, emptied, or back.

use std::collections::BTreeMap;

use orion_proto::{Code, Error, Result, cluster};
use serde::{Deserialize, Serialize};

use super::{Core, ModelState, Nanos, WorkerState, filter, replica::Replica};

/// What is said of a node that was drained and runs nothing any more.
const DRAINED: &str = "drained";

/// A load that failed so often on a device is not counted on.
pub(super) const GIVEN_UP: u32 = 3;

/// What an operator made of a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cordon {
    /// It takes part.
    #[default]
    No,
    /// It keeps what it holds and gets no new models.
    Cordoned,
    /// It gets neither models nor batches; what it holds is moved elsewhere where it can be.
    Draining,
}

impl Cordon {
    /// As the tables write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::No => "",
            Self::Cordoned => "cordoned",
            Self::Draining => "draining",
        }
    }
}

impl<T, L: Clone> Core<T, L> {
    /// Takes a worker out of placement, empties it, or takes it back.
    ///
    /// # Errors
    /// NOT_FOUND for an unknown name.
    pub fn cordon(&mut self, now: Nanos, name: &str, cordon: Cordon) -> Result<String> {
        // One that is not back since the scheduler was started anew.
        if self.cordons.contains_key(name) {
            match cordon {
                Cordon::No => _ = self.cordons.remove(name),
                _ => _ = self.cordons.insert(name.to_owned(), cordon),
            }
            return Ok(cordon.name().to_owned());
        }
        let index = self.worker_index(name).ok_or_else(|| {
            let mut known: Vec<&str> = self.workers.iter().map(|worker| &*worker.name).collect();
            known.sort_unstable();
            Error::new(Code::NotFound, format!("node '{name}' is unknown, the nodes are: {}", known.join(", ")))
        })?;
        let worker = &mut self.workers[index];
        let before = worker.cordon;
        if worker.cordon != cordon {
            worker.cordon = cordon;
            worker.note(now, if cordon == Cordon::No { "uncordoned" } else { cordon.name() });
        }
        self.cluster_changed();
        match cordon {
            Cordon::No => self.readmit(now, index),
            Cordon::Cordoned if before == Cordon::Draining => self.readmit(now, index),
            Cordon::Cordoned => {}
            Cordon::Draining => self.move_elsewhere(now, index),
        }
        self.settle_wishes(now);
        Ok(self.cordon_name(index).to_owned())
    }

    /// Nodes that an earlier process knew as cordoned or drained: they are so when they join.
    pub fn remember_nodes(&mut self, nodes: BTreeMap<String, Cordon>) {
        self.cordons = nodes;
    }

    /// The nodes that are cordoned or drained, those that are not here among them.
    pub fn cordons(&self) -> BTreeMap<String, Cordon> {
        let here = self.workers.iter().map(|worker| (worker.name.to_string(), worker.cordon));
        let known = self.cordons.iter().map(|(name, cordon)| (name.clone(), *cordon));
        known.chain(here).filter(|(_, cordon)| *cordon != Cordon::No).collect()
    }

    /// The nodes that are cordoned or drained and are not here since the scheduler was started anew.
    pub(super) fn absent(&self) -> impl Iterator<Item = cluster::Node> {
        self.cordons.iter().map(|(name, cordon)| cluster::Node {
            name: name.clone(),
            state: "absent".into(),
            cordon: if *cordon == Cordon::Draining { DRAINED } else { cordon.name() }.into(),
            ..Default::default()
        })
    }

    /// As the tables write it: a draining worker is drained when it runs nothing, and nothing waits for what only it serves.
    pub(super) fn cordon_name(&self, index: usize) -> &'static str {
        let worker = &self.workers[index];
        match worker.cordon {
            Cordon::Draining if self.is_idle(index) && !self.is_awaited(index) => DRAINED,
            cordon => cordon.name(),
        }
    }

    /// Whether none of a worker's devices has a batch.
    pub(super) fn is_idle(&self, index: usize) -> bool {
        self.workers[index].devices.iter().all(|device| self.devices[*device].is_idle())
    }

    /// Whether only this worker serves a model, or will, that requests wait for, or serves one that is to be served elsewhere
    /// and is not yet.
    pub(super) fn is_awaited(&self, index: usize) -> bool {
        let awaited = |(model, id): (usize, usize)| {
            let replica = &self.replicas[id];
            let bound = replica.bound.as_ref().is_some_and(|queue| !queue.is_empty());
            // Who is to stop moves nothing any more.
            let moves = !self.draining && replica.serves() && self.moves(model);
            let waits = !self.models[model].queue.is_empty() || moves;
            let there = replica.state != ModelState::Unloading;
            bound || (waits && there && self.runs_last(id))
        };
        self.held_by(index).into_iter().any(awaited)
    }

    /// Workers that are being emptied: what was bound there goes where its model is served now, and who has nothing left
    /// to do may leave.
    pub(super) fn let_go(&mut self, now: Nanos) {
        for index in 0..self.workers.len() {
            if self.workers[index].cordon != Cordon::Draining && self.workers[index].state != WorkerState::Draining {
                continue;
            }
            for (_, id) in self.held_by(index) {
                let bound = |replica: &Replica| replica.bound.as_ref().is_some_and(|queue| !queue.is_empty());
                if self.replicas.get(id).is_some_and(bound) && !self.takes_requests(id) {
                    self.rebind(now, id);
                }
            }
            self.let_go_if_drained(index);
        }
    }

    /// Whether a model that a worker takes with it comes on another.
    pub(super) fn moves(&self, model: usize) -> bool {
        let wished = self.models[model].wanted && self.unplaced.contains(&model);
        self.staying(model) > 0 || (wished && self.could_move(model))
    }

    /// Whether any device that takes part could take a model, as it was seen last: each tick looks again.
    pub(super) fn could_move(&self, index: usize) -> bool {
        let known = &self.models[index].could_move;
        let seen = known.get().unwrap_or_else(|| self.devices.iter().any(|(device, _)| self.could_take(index, device)));
        known.set(Some(seen));
        seen
    }

    /// What was seen of the devices that could take models is seen anew.
    pub(super) fn forget_moves(&mut self) {
        self.models.iter().for_each(|model| model.could_move.set(None));
    }

    /// Whether a model could be loaded on a device that takes part.
    pub(super) fn could_take(&self, model: usize, device: usize) -> bool {
        let (of, at) = (&self.models[model], &self.devices[device]);
        let Some(spec) = &of.spec else { return false };
        let fails = of.failures.iter().any(|failure| failure.device == device && failure.times >= GIVEN_UP);
        let fits = filter::check(spec, &self.workers[at.worker], at).is_ok();
        self.takes_part(device) && fits && !fails && self.has_room(model, device)
    }

    /// A worker takes batches again.
    fn readmit(&mut self, now: Nanos, index: usize) {
        self.share_again(index);
        for (model, id) in self.held_by(index) {
            // A second copy that was not loaded yet is gone at once, and its place may be another's.
            if self.replicas.get(id).is_none_or(|replica| replica.model != model) {
                continue;
            }
            self.models[model].demanded &= !self.replicas[id].serves();
            // What was made elsewhere meanwhile may be as many as there may be.
            if self.models[model].max_replicas().is_some_and(|most| self.staying(model) > most) {
                // What does not serve yet goes before what does.
                let loading = self.models[model].replicas.iter().copied().find(|id| !self.replicas[*id].serves());
                self.unload(now, loading.unwrap_or(id));
            }
        }
        self.wish_again();
        self.serve_all(now, index);
    }

    /// What only this worker holds is loaded on others, one after the other, as far as they can hold it; what is bound to
    /// it goes elsewhere.
    pub(super) fn move_elsewhere(&mut self, now: Nanos, index: usize) {
        self.share_again(index);
        let models = self.held_by(index);
        for &(model, _) in &models {
            if self.models[model].wanted && !self.models[model].built_in {
                // Once, it may push out others: were it for good, two such models would do so in turn.
                self.models[model].demanded |= self.staying(model) == 0;
                self.unplaced.insert(model);
            }
        }
        // Once it is known what moves: until then it goes on.
        models.iter().for_each(|(_, id)| self.rebind(now, *id));
        // First those that somebody waits for.
        for &(model, _) in &models {
            if !self.models[model].queue.is_empty() {
                self.start_waiting(now, model);
            }
        }
        self.settle_wishes(now);
    }

    /// Whether a worker is to be emptied has changed: what waits for its models is shared by others.
    pub(super) fn share_again(&mut self, index: usize) {
        self.held_by(index).into_iter().for_each(|(model, _)| self.requeued(model));
    }

    /// Models on a worker's devices, with their replicas there.
    fn held_by(&self, index: usize) -> Vec<(usize, usize)> {
        let residents = self.workers[index].devices.iter().flat_map(|device| &self.devices[*device].residents);
        residents.map(|id| (self.replicas[*id].model, *id)).collect()
    }
}
