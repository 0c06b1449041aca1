//! What operators do to nodes: out of placement, emptied, or back.

use orion_proto::{Code, Error, Result};

use super::{Core, Nanos};

/// What an operator made of a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
        let index = self.worker_index(name).ok_or_else(|| {
            let known: Vec<&str> = self.workers.iter().map(|worker| &*worker.name).collect();
            Error::new(Code::NotFound, format!("node '{name}' is unknown, the nodes are: {}", known.join(", ")))
        })?;
        let worker = &mut self.workers[index];
        if worker.cordon != cordon {
            worker.cordon = cordon;
            worker.note(now, if cordon == Cordon::No { "uncordoned" } else { cordon.name() });
        }
        self.cluster_changed();
        match cordon {
            Cordon::No => self.serve_all(now, index),
            Cordon::Cordoned => {}
            Cordon::Draining => self.move_elsewhere(now, index),
        }
        self.settle_wishes(now);
        Ok(self.cordon_name(index).to_owned())
    }

    /// As the tables write it: a draining worker that runs nothing is drained.
    pub(super) fn cordon_name(&self, index: usize) -> &'static str {
        let worker = &self.workers[index];
        match worker.cordon {
            Cordon::Draining if self.is_idle(index) => "drained",
            cordon => cordon.name(),
        }
    }

    /// Whether none of a worker's devices has a batch.
    pub(super) fn is_idle(&self, index: usize) -> bool {
        self.workers[index].devices.iter().all(|device| self.devices[*device].is_idle())
    }

    /// What only this worker holds is loaded on another, if one can hold it; what is bound to it goes elsewhere.
    pub(super) fn move_elsewhere(&mut self, now: Nanos, index: usize) {
        for device in self.workers[index].devices.clone() {
            for id in self.devices[device].residents.clone() {
                self.rebind(now, id);
                let model = self.replicas[id].model;
                self.copy_elsewhere(now, model, device);
            }
        }
    }
}
