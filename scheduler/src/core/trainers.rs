//! Which workers may train, and how they are reached.

use orion_net::transfer::relayed;

use super::{Cordon, Core, WorkerState};
use crate::training::cohort::Candidate;

impl<T, L: Clone> Core<T, L> {
    /// Workers that compute and are to be given work; also those that were not heard of for a moment.
    pub(crate) fn trainers(&self) -> Vec<Candidate> {
        let may = |worker: &&super::cluster::Worker<L>| {
            let role = matches!(worker.capability.role.as_str(), "" | "compute" | "hybrid");
            let computes = worker.capability.devices.iter().any(|device| device.usable && device.kind == "cpu");
            let here = matches!(worker.state, WorkerState::Ready | WorkerState::Suspect);
            role && computes && here && worker.cordon == Cordon::No && !worker.is_draining()
        };
        let relays = self.limits.relay_bytes_per_second > 0;
        let candidate = |worker: &super::cluster::Worker<L>| Candidate {
            name: worker.name.to_string(),
            address: match worker.peer_address.as_str() {
                "" if relays && worker.is_relayed => relayed(&worker.name),
                address => address.to_owned(),
            },
            session: worker.session,
            ready: worker.state == WorkerState::Ready,
        };
        self.workers.iter().filter(may).map(candidate).collect()
    }

    /// The link of a worker that is connected.
    pub(crate) fn link_of(&self, name: &str) -> Option<L> {
        let worker = &self.workers[self.worker_index(name)?];
        worker.link.clone().filter(|_| worker.is_connected())
    }
}
