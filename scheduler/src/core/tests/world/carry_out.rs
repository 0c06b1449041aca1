//! What workers and clients do with the core's commands, and what must not be among them.

use super::*;

/// A command; of a load and an unload the model, the link and the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::core::tests) enum Told {
    Load(usize, u64, usize),
    Unload(usize, u64, usize),
    Other(&'static str),
}

impl World {
    pub(super) fn load(&mut self, at: usize, model: usize, device: usize, order: u64) {
        let node = &mut self.nodes[at];
        let newest = node.orders.entry((model, device)).or_default();
        if order <= *newest {
            return;
        }
        *newest = order;
        self.loads += 1;
        if let Some(resident) = node.residents.get_mut(&(model, device))
            && resident.state != ModelState::Unloading
        {
            resident.order = order;
            let report = self.report(at, model, device, self.nodes[at].residents[&(model, device)].state, order);
            return self.tell(at, report);
        }
        let bytes = self.specs[model].memory_bytes;
        node.residents.insert((model, device), Resident { bytes, state: ModelState::Loading, order, born: self.loads });
        assert!(
            self.held(at, device) <= self.nodes[at].devices[device],
            "w{at} d{device} is to hold {} of {} bytes: {:?}",
            self.held(at, device),
            self.nodes[at].devices[device],
            self.nodes[at].residents
        );
        if self.prompt {
            self.loaded(at, true);
        }
    }

    fn unload(&mut self, at: usize, model: usize, device: usize, order: u64) {
        let node = &mut self.nodes[at];
        let newest = node.orders.entry((model, device)).or_default();
        if order <= *newest {
            return;
        }
        *newest = order;
        match node.residents.get_mut(&(model, device)) {
            Some(resident) => {
                (resident.state, resident.order) = (ModelState::Unloading, order);
                if self.prompt {
                    self.unloaded(at);
                }
            }
            None => {
                let report = self.report(at, model, device, ModelState::Unloaded, order);
                self.tell(at, report);
            }
        }
    }

    fn run(&mut self, at: usize, batch: Batch) {
        let (model, device) = (self.number(&batch.model), device_number(&batch.device));
        let place = (at, self.nodes[at].life, device);
        let now_holds = self.holders_of(model);
        for attempt in &batch.attempts {
            let sent = self.sent.get_mut(&ticket(attempt)).unwrap();
            let first = !std::mem::replace(&mut sent.begun, true);
            sent.runs += 1;
            let sent = &self.sent[&ticket(attempt)];
            assert!(sent.runs <= 4, "request {} runs for the {}th time", ticket(attempt), sent.runs);
            assert!(sent.idempotent || first, "request {} is not idempotent and runs again", ticket(attempt));
            assert!(sent.answers.is_empty() && !sent.cancelled, "request {} runs after its answer", ticket(attempt));
            if sent.failed_on.contains(&place) && self.holders.len() > model {
                let other = |holder: &&(usize, usize)| {
                    let place = (holder.0, self.nodes[holder.0].life, holder.1);
                    // Where it stood still or was lost with its worker, only the core knows.
                    let stood_still = sent.key.is_some_and(|key| self.has_failed(key, **holder));
                    now_holds.contains(holder) && !sent.failed_on.contains(&place) && !stood_still
                };
                let other = self.holders[model].iter().find(other);
                assert!(other.is_none(), "request {} runs again where it failed, not at {other:?}", ticket(attempt));
            }
        }
        batch.attempts.iter().for_each(|attempt| self.go_on(at, model, device, attempt));
        self.ran.push((at, device, batch.attempts.iter().map(ticket).collect()));
        self.nodes[at].batches.push_back(batch);
    }

    /// A request of a sequence goes on where the one before it ran.
    fn go_on(&mut self, at: usize, model: usize, device: usize, attempt: &orion_net::Attempt) {
        let Some(sequence) = attempt.request.parameters.sequence.filter(|sequence| sequence.key != 0) else { return };
        if !self.specs[model].policy.sequences {
            return;
        }
        let here = (at, device, self.nodes[at].residents.get(&(model, device)).map_or(0, |resident| resident.born));
        let before = self.states.insert((model, sequence.key), (here, ticket(attempt)));
        let state = before.filter(|_| !sequence.start).map(|(place, _)| place);
        assert!(
            sequence.start || state == Some(here),
            "{} runs at {here:?}, its state is at {state:?}",
            ticket(attempt)
        );
        assert!(before.is_none_or(|(_, last)| last < ticket(attempt)), "{} runs after a later one", ticket(attempt));
    }

    fn has_failed(&self, key: RequestKey, holder: (usize, usize)) -> bool {
        let on = |device: &usize| {
            let at = &self.core.devices[*device];
            (&*self.core.workers[at.worker].name, device_number(&at.name)) == (&*self.nodes[holder.0].name, holder.1)
        };
        let failed_on = self.core.request(key).map_or(&[][..], |request| &request.failed_on);
        failed_on.iter().filter(|device| self.core.devices.contains(**device)).any(on)
    }

    fn holders_of(&self, model: usize) -> Vec<(usize, usize)> {
        let Ok(index) = self.core.index(self.specs[model].name.as_str()) else { return Vec::new() };
        let serving = self.core.models[index].replicas.iter().filter(|id| {
            let replica = &self.core.replicas[**id];
            replica.serves() && !self.core.is_stalled(**id) && self.core.takes_part(replica.device)
        });
        let place = |id: &usize| {
            let device = &self.core.devices[self.core.replicas[*id].device];
            let at = self.nodes.iter().position(|node| *node.name == *self.core.workers[device.worker].name);
            (at.unwrap(), device_number(&device.name))
        };
        serving.map(place).collect()
    }

    fn told_of(&self, command: &Command<u64, u64>) -> Told {
        match command {
            Command::Load { link, name, device, .. } => Told::Load(self.number(name), *link, device_number(device)),
            Command::Unload { link, name, device, .. } => Told::Unload(self.number(name), *link, device_number(device)),
            Command::Run { .. } => Told::Other("a batch"),
            Command::Settle { .. } => Told::Other("an answer"),
            Command::Inspect { .. } | Command::Pull { .. } => Told::Other("a question"),
            Command::Close { .. } => Told::Other("an end"),
            Command::Cancel { .. } => Told::Other("a cancellation"),
            Command::Drained { .. } => Told::Other("leave to go"),
            Command::Tell { .. } => Told::Other("a step"),
        }
    }

    /// Workers and clients get what the core has for them.
    pub(in crate::core::tests) fn collect(&mut self) {
        for command in self.core.take_commands() {
            self.told.push(self.told_of(&command));
            let reaches = |link: u64| move |node: &Node| node.link == Some(link);
            match command {
                Command::Settle { ticket, outcome, .. } => {
                    let sent = self.sent.get_mut(&ticket).unwrap();
                    sent.answers.push(outcome.map(|_| ()).map_err(|error| error.code));
                    assert!(sent.answers.len() == 1 && !sent.cancelled, "request {ticket} is settled twice");
                }
                Command::Run { link, batch } => match self.nodes.iter().position(reaches(link)) {
                    Some(at) => self.run(at, batch),
                    None => {
                        for attempt in &batch.attempts {
                            self.sent.get_mut(&ticket(attempt)).unwrap().runs += 1;
                        }
                    }
                },
                Command::Inspect { link, name, order, .. } => {
                    if let Some(at) = self.nodes.iter().position(reaches(link)) {
                        let report = self.report(at, self.number(&name), 0, ModelState::Cold, order);
                        self.tell(at, report);
                    }
                }
                // The models here are files of each worker.
                Command::Pull { .. } => {}
                Command::Load { link, name, device, order, .. } => {
                    if let Some(at) = self.nodes.iter().position(reaches(link)) {
                        self.load(at, self.number(&name), device_number(&device), order);
                    }
                }
                Command::Unload { link, name, device, order } => {
                    if let Some(at) = self.nodes.iter().position(reaches(link)) {
                        self.unload(at, self.number(&name), device_number(&device), order);
                    }
                }
                Command::Close { link, .. } => {
                    if let Some(at) = self.nodes.iter().position(reaches(link)) {
                        self.nodes[at].link = None;
                    }
                }
                Command::Cancel { .. } | Command::Drained { .. } | Command::Tell { .. } => {}
            }
        }
        self.holders = (0..self.specs.len()).map(|model| self.holders_of(model)).collect();
        self.check_memory();
        recount::check(&self.core);
    }
}

pub(in crate::core::tests) fn model(name: &str, bytes: u64, policy: ModelPolicy) -> ModelSpec {
    ModelSpec {
        name: ModelName::new(name).unwrap(),
        version: "1".into(),
        family: "test".into(),
        inputs: vec![TensorSpec::new("x", Datatype::Fp32, [-1])],
        outputs: vec![],
        max_batch_rows: 8,
        memory_bytes: bytes,
        inline: false,
        policy,
        generator: None,
    }
}

pub(in crate::core::tests) fn ticket(attempt: &orion_net::Attempt) -> u64 {
    attempt.request.id.parse().unwrap()
}

pub(in crate::core::tests) fn device_number(name: &str) -> usize {
    name.trim_start_matches('d').parse().unwrap()
}
