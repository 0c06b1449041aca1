//! What a worker that is back within its lease is told again: commands of a broken connection may never have reached it.

use super::{Command, Core, ModelState};

impl<T, L: Clone> Core<T, L> {
    /// Batches that a worker holds and nobody waits for any more: they were taken away from it while it was silent.
    pub(super) fn call_off_unknown(&mut self, worker: usize) {
        let holding = std::mem::take(&mut self.workers[worker].holding);
        let Some(link) = self.workers[worker].link.clone() else { return };
        for batch in holding {
            if !self.batches.contains_key(&batch) && !self.is_held(batch) {
                self.commands.push(Command::Cancel { link: link.clone(), batch, attempts: Vec::new() });
            }
        }
    }

    /// Repeats the loads and unloads that a worker has not answered, under their old orders: it takes each once.
    pub(super) fn repeat_wishes(&mut self, worker: usize) {
        let Some(link) = self.workers[worker].link.clone() else { return };
        for device in &self.workers[worker].devices {
            let at = &self.devices[*device];
            for id in &at.residents {
                let replica = &self.replicas[*id];
                let model = &self.models[replica.model];
                let (link, name, device, order) = (link.clone(), model.name.clone(), at.name.clone(), replica.order);
                match (replica.state, model.path.clone()) {
                    (ModelState::Unloading, _) if !replica.untold => {
                        self.commands.push(Command::Unload { link, name, device, order });
                    }
                    (ModelState::Loading, Some(path)) if replica.sent => {
                        let peers = self.peers_of(replica.model, worker);
                        self.commands.push(Command::Load { link, name, device, path, peers, order });
                    }
                    _ => {}
                }
            }
        }
    }
}
