//! How replicas leave: nothing that runs is overtaken, and memory is given back when a worker says that it is free.

use std::sync::Arc;

use super::{Command, Core, ModelState, Nanos, Report};

impl<T, L: Clone> Core<T, L> {
    /// Has a replica unloaded. Its memory counts as taken until the worker says that it is gone.
    pub(super) fn unload(&mut self, now: Nanos, id: usize) {
        let replica = &self.replicas[id];
        if replica.state == ModelState::Unloading {
            return;
        }
        let (model, device) = (replica.model, replica.device);
        if !replica.sent {
            return self.forget_replica(now, id);
        }
        let order = self.number();
        self.unshare(model);
        self.replicas[id].state = ModelState::Unloading;
        self.replicas[id].order = order;
        self.models[model].replicas.retain(|other| *other != id);
        self.models[model].leaving += 1;
        self.share_work(model);
        if self.devices[device].loading == Some(id) {
            self.set_loading(device, None);
        }
        self.forget_turn(device, id);
        self.changed = true;
        self.replicas[id].untold = true;
        self.tell_unload(id);
        self.rebind(now, id);
    }

    /// Tells a worker of an unload once the replica runs nothing: it must not overtake a batch that is on its way.
    pub(super) fn tell_unload(&mut self, id: usize) {
        let Some(replica) = self.replicas.get_mut(id).filter(|replica| replica.untold && replica.running == 0) else {
            return;
        };
        replica.untold = false;
        let (order, device) = (replica.order, &self.devices[replica.device]);
        let (name, at) = (self.models[replica.model].name.clone(), device.name.clone());
        // Without a connection it is told when it is back.
        let link = self.workers[device.worker].link.clone();
        self.commands.extend(link.map(|link| Command::Unload { link, name, device: at, order }));
    }

    /// A replica is gone.
    pub(super) fn forget_replica(&mut self, now: Nanos, id: usize) {
        let (model, device) = (self.replicas[id].model, self.replicas[id].device);
        if self.replicas[id].state == ModelState::Unloading {
            self.models[model].leaving -= 1;
        }
        self.replicas[id].state = ModelState::Unloading;
        self.rebind(now, id);
        self.lose_sequences(id);
        self.part(id);
        self.unshare(model);
        let replica = self.replicas.remove(id);
        self.models[model].replicas.retain(|other| *other != id);
        self.devices[device].residents.retain(|other| *other != id);
        if self.devices[device].loading == Some(id) {
            self.set_loading(device, None);
        }
        self.forget_turn(device, id);
        if replica.sent {
            self.devices[device].ledger.give_back(replica.bytes);
        }
        self.reserve_activations(device);
        self.share_work(model);
        self.changed = true;
    }

    /// Batches and requests that outlive a replica do not take the next in its place for it.
    fn part(&mut self, id: usize) {
        let device = &self.devices[self.replicas[id].device];
        // What runs beside the device is in no list of its own.
        let beside = match device.beside > 0 {
            true => {
                self.batches.iter().filter(|(_, running)| running.replica == id).map(|(number, _)| *number).collect()
            }
            false => Vec::new(),
        };
        for number in device.batches.iter().chain(&beside) {
            let Some(running) = self.batches.get_mut(number).filter(|running| running.replica == id) else { continue };
            running.replica = usize::MAX;
            for (_, key) in &running.attempts {
                let request = self.requests.get_mut(key.place).filter(|request| request.serial == key.serial);
                if let Some(request) = request.filter(|request| request.bound == Some(id)) {
                    request.bound = None;
                }
            }
        }
    }

    /// Unloads all replicas of a model.
    pub(super) fn drop_replicas(&mut self, now: Nanos, index: usize) {
        for replica in self.models[index].replicas.clone() {
            self.unload(now, replica);
        }
    }

    /// Of an earlier scheduler, or invented: a worker does not decide what is served.
    pub(super) fn unload_stray(&mut self, worker: usize, report: Report) {
        let order = self.number();
        let there = matches!(report.state, ModelState::Ready | ModelState::Loading);
        if let Some(link) = self.workers[worker].link.clone().filter(|_| there) {
            let device = Arc::from(report.device.as_str());
            self.commands.push(Command::Unload { link, name: report.name, device, order });
        }
    }
}
