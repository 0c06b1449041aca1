//! Where copies of models are made: where queues need them, where owners want them, and where memory is free.

use super::{
    Core, Nanos,
    target::{Full, Room, TARGETS},
    work::COPY_TIME,
};

/// Share of the last request's slack within which a queue must drain, or else a copy may help.
pub(super) const SAFE: f64 = 0.5;
/// Share of the other work of a device that is taken to go before a model's.
const AHEAD: f64 = 0.5;
/// A replica pays only on a device whose predicted work is under this share of its holders'.
const LESS_LOADED: f64 = 0.9;
/// How much of the queue's own work counts as a price of a copy, when an objective's worth of work waits everywhere.
const WORK_PRICE: f64 = 0.6;
/// How fast a copy counts less the more time there is, as a share of the objective.
const LOAD_TAU: f64 = 0.7;
/// Requests that wait before a model that is somewhere already may get another copy.
const QUEUED: usize = 4;
/// Of the models that have no copy, and of those whose holders are too slow, so many are looked at for one input.
const LOOKED_AT: usize = 32;
/// In a large cluster so many of each for every one that is tried.
const CHOICE: usize = 4;
/// Holders of one model whose work is looked at.
const HOLDERS: usize = 16;
/// Devices that are looked at for all the copies of one input together: a few devices are looked at for every model that
/// needs one, many for the few that need one most.
const LOOKS: usize = 256;
/// The same in a large cluster, where each is a miss of the processor's caches.
const FAR_LOOKS: usize = 64;

/// What an input concerned: the models whose need for a copy may have changed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Concern {
    Model(usize),
    Device(usize),
}

impl<T, L: Clone> Core<T, L> {
    /// Makes the copies that pay, among the models concerned and those that a copy would help most: by requests rescued
    /// times the share of them that would miss, over the time of copying.
    pub(super) fn place(&mut self, now: Nanos, concern: Concern) {
        if self.copying >= self.devices.len() {
            return;
        }
        self.refresh_wants(now, concern);
        let (mut needs, mut full) = (std::mem::take(&mut self.scratch.needs), std::mem::take(&mut self.scratch.full));
        needs.clear();
        let most = self.most_copies();
        let looked_at = LOOKED_AT.min(most * CHOICE);
        let densest = self.homeless.iter().rev().take(looked_at).chain(self.wanting.iter().rev().take(looked_at));
        needs.extend(densest.filter_map(|&(_, index)| Some((self.need(now, index)?, index))));
        if let Concern::Model(index) = concern
            && needs.iter().all(|(_, other)| *other != index)
        {
            needs.extend(self.need(now, index).map(|need| (need, index)));
        }
        needs.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        if let Some(rest) = needs.get_mut(most / 2..).filter(|rest| rest.len() > most - most / 2) {
            // In turns: those that find no room must not keep the others from being looked at.
            self.needs_from = (self.needs_from + most - most / 2) % rest.len();
            rest.rotate_left(self.needs_from);
        }
        for &(_, index) in needs.iter().take(most) {
            if self.copying >= self.devices.len() {
                break;
            }
            self.copy(now, index, &mut full);
        }
        full.clear();
        (self.scratch.needs, self.scratch.full) = (needs, full);
    }

    /// Models for which one input may look for a device.
    fn most_copies(&self) -> usize {
        let looks = if self.devices.len() > TARGETS { FAR_LOOKS } else { LOOKS };
        looks / self.devices.len().clamp(1, TARGETS)
    }

    /// Sees again which of the models concerned are drained too late by their holders.
    fn refresh_wants(&mut self, now: Nanos, concern: Concern) {
        let mut models = std::mem::take(&mut self.scratch.models);
        models.clear();
        let here = match concern {
            Concern::Model(index) => {
                models.push((0, index));
                None
            }
            Concern::Device(device) => {
                for id in &self.devices[device].residents {
                    let index = self.replicas[*id].model;
                    models.extend(self.models[index].queue.head().map(|head| (head.due, index)));
                }
                models.sort_unstable();
                Some(device)
            }
        };
        let mut before = here.map_or(0, |device| self.devices[device].remaining(now));
        for &(_, index) in &models {
            if self.models[index].replicas.is_empty() {
                continue;
            }
            let own = self.models[index].work / self.models[index].replicas.len() as Nanos;
            before += own;
            let drained = self.drain_time(now, index, own, here.map(|device| (device, before)));
            let safe = SAFE * self.tail(now, index) as f64;
            self.set_want(index, if drained > safe { 1.0 - safe / drained } else { 0.0 });
        }
        self.scratch.models = models;
    }

    /// Time in which a model's queue should be drained.
    fn tail(&self, now: Nanos, index: usize) -> Nanos {
        let queue = &self.models[index].queue;
        let Some(head) = queue.head() else { return 0 };
        let left = queue.last_due().unwrap_or(head.due).saturating_sub(now);
        // One that has hours must not stand for all: the queue is drained as its head expects it, or its model's owner.
        let left = left.min(head.window.max(self.objective(index)));
        // Past its objective a request is still wanted: such a queue is drained in their window, and before others are
        // refused for it.
        if head.hard { left } else { left.max(head.window).min(self.max_queue(index)) }
    }

    /// When a model's holders are predicted to have drained its queue, nanoseconds from now. `known`: a device for which
    /// the work that goes before and the model's own are added up already.
    fn drain_time(&self, now: Nanos, index: usize, own: Nanos, known: Option<(usize, Nanos)>) -> f64 {
        let model = &self.models[index];
        let holders = model.replicas.iter().take(HOLDERS).map(|id| self.replicas[*id].device);
        let mut sum = 0.0;
        for device in holders {
            sum += match known {
                Some((here, drained)) if here == device => drained as f64,
                _ => {
                    let at = &self.devices[device];
                    let others = at.queued.saturating_sub(model.share) as f64;
                    at.remaining(now) as f64 + AHEAD * others + own as f64
                }
            };
        }
        sum / model.replicas.len().clamp(1, HOLDERS) as f64
    }

    /// Whether a model may have one more copy.
    pub(super) fn may_copy(&self, index: usize) -> bool {
        let model = &self.models[index];
        let copied = model.spec.as_ref().is_some_and(|spec| !spec.inline) && model.wanted;
        let full = model.max_replicas().is_some_and(|most| self.lasting(index).count() >= most);
        copied && !full && model.replicas.len() < self.devices.len()
    }

    /// How much a copy would help, if at all.
    pub(super) fn need(&self, now: Nanos, index: usize) -> Option<f64> {
        let model = &self.models[index];
        let spec = model.spec.as_ref()?;
        if !self.may_copy(index) {
            return None;
        }
        let head = model.queue.head()?;
        let miss = if model.replicas.iter().any(|id| self.stays(*id)) { model.want } else { 1.0 };
        if miss <= 0.0 {
            return None;
        }
        let known = model.known.iter().min_by_key(|known| known.load)?;
        let line = known.curve.line();
        let patient = !head.hard || model.queue.has_patient();
        let last = model.queue.last_due().unwrap_or(head.due).saturating_sub(now);
        if !patient && known.load.saturating_add(line.predict(1)) > last {
            return None;
        }
        let batch = line.predict(model.queue.rows().min(spec.max_batch_rows));
        let answered = now.saturating_add(known.load).saturating_add(batch);
        let rescued = if head.hard { model.queue.due_from(answered) } else { model.queue.len() };
        let window = head.window.max(1) as f64;
        let waiting = self.queued_work as f64 / self.devices.len().max(1) as f64;
        let price = known.load.max(1) as f64 + WORK_PRICE * model.work as f64 * (waiting / window).min(1.0);
        let slack = head.due.saturating_sub(answered) as f64;
        Some(
            rescued as f64 * model.queue.mean_weight() * miss / price.powf(COPY_TIME)
                * (-slack / (LOAD_TAU * window)).exp(),
        )
    }

    /// Starts a copy on the device where it would answer soonest, unless it would not be less loaded than the holders.
    /// `full`: what was found full for this input.
    pub(super) fn copy(&mut self, now: Nanos, index: usize, full: &mut Vec<Full>) -> bool {
        let Some(device) = self.target(now, index, Room::Evict, full) else { return false };
        let most = LESS_LOADED.recip() * self.devices[device].load(now) as f64;
        let less_loaded = |id: &usize| {
            let holder = self.replicas[*id].device;
            self.takes_part(holder) && (self.devices[holder].load(now) as f64) < most
        };
        if most > 0.0 && self.models[index].replicas.iter().any(less_loaded) {
            return false;
        }
        let started = self.start_load(now, index, device);
        if !started {
            full.push(Full::until_idle(device, self.needs(index, device)));
        }
        started
    }

    /// Begins a load: evicts what it may, and sends it when the memory is there.
    pub(super) fn start_load(&mut self, now: Nanos, index: usize, device: usize) -> bool {
        let victims = self.victims(now, index, device);
        victims.is_some_and(|victims| self.load_instead(now, index, device, victims))
    }

    /// Begins a load in the place of others.
    pub(super) fn load_instead(&mut self, now: Nanos, index: usize, device: usize, victims: Vec<usize>) -> bool {
        let id = self.add_replica(now, index, device);
        self.set_loading(device, Some(id));
        for victim in victims {
            self.unload(now, victim);
        }
        self.send_load(now, device);
        self.devices[device].loading == Some(id)
    }

    /// What a device's copy engine is busy with.
    pub(super) fn set_loading(&mut self, device: usize, replica: Option<usize>) {
        let before = std::mem::replace(&mut self.devices[device].loading, replica);
        self.copying = self.copying + usize::from(replica.is_some()) - usize::from(before.is_some());
    }

    /// Makes the copies that owners want whatever the load, and first ones while memory is free.
    pub(super) fn settle_wishes(&mut self, now: Nanos) {
        // Round and round: those that cannot be met must not keep the others from being looked at.
        let rest = self.unplaced.range(self.wished_from..).chain(self.unplaced.range(..self.wished_from));
        let wishes: Vec<usize> = rest.take(self.most_copies()).copied().collect();
        self.wished_from = wishes.last().map_or(0, |last| last + 1);
        for index in wishes {
            if self.settle_wish(now, index) {
                self.unplaced.remove(&index);
            }
        }
    }

    /// There is another worker, or memory that an owner gave back: wishes that were dropped are looked at again.
    pub(super) fn wish_again(&mut self) {
        for index in 0..self.models.len() {
            if std::mem::take(&mut self.models[index].unmet) && self.staying(index) == 0 {
                self.unplaced.insert(index);
            }
        }
    }

    /// Says whether nothing is left to wish for.
    fn settle_wish(&mut self, now: Nanos, index: usize) -> bool {
        let model = &self.models[index];
        // What is not known yet is put here again when a worker has read it.
        let Some(spec) = model.spec.clone().filter(|_| model.wanted) else { return true };
        if model.built_in {
            return true;
        }
        let least = (spec.policy.min_replicas as usize).max(usize::from(model.demanded));
        while self.staying(index) < least.max(1) {
            let must = self.staying(index) < least;
            // A copy engine is for what waits before it is for what nobody asked for.
            if !must && !self.homeless.is_empty() {
                return false;
            }
            let cleared = if self.models[index].demanded { self.cleared_for(now, index) } else { None };
            let cleared = cleared.filter(|device| self.may_be_loaded(now, index, *device));
            let free = self.target(now, index, Room::Free, &mut Vec::new()).or(cleared);
            let Some(device) =
                free.or_else(|| if must { self.target(now, index, Room::Evict, &mut Vec::new()) } else { None })
            else {
                let dropped = !must && !self.may_come(index, spec.memory_bytes);
                // A first copy that nobody asked for evicts nothing: requests bring it, another worker, or memory
                // that an owner gives back.
                self.models[index].unmet |= dropped && !self.workers.is_empty();
                return dropped;
            };
            if !self.start_load(now, index, device) {
                if must && self.models[index].demanded && self.devices[device].loading.is_none() {
                    self.clear_for(now, index, device);
                }
                return false;
            }
        }
        true
    }

    /// Whether a model may get a copy without pushing others out once a copy engine is free, or it has left a device.
    fn may_come(&mut self, index: usize, bytes: u64) -> bool {
        let suitable = self.suitable(index);
        suitable.iter().take(TARGETS).any(|device| bytes <= self.devices[*device].ledger.unpromised())
            || self.models[index].leaving > 0
    }

    /// A load ended: what waits may run, and the copy engine may go on.
    pub(super) fn after_load(&mut self, now: Nanos, device: usize, index: usize) {
        if self.models[index].is_inline() {
            return self.run_inline(now, index);
        }
        if self.models[index].is_generator() {
            self.run_generator(now, index);
        }
        self.fill(now, device);
        self.offer(now, index);
        self.place(now, Concern::Device(device));
    }

    /// A model may get another copy when it has none, or more waits than a batch would take along.
    pub(super) fn may_need_copy(&self, index: usize) -> bool {
        let model = &self.models[index];
        let much = model.queue.len() > QUEUED || model.work as f64 > SAFE * self.max_queue(index) as f64;
        !model.queue.is_empty() && (much || !model.replicas.iter().any(|id| self.stays(*id)))
    }

    /// Copies of a model that are not on a worker which is being emptied.
    pub(super) fn staying(&self, index: usize) -> usize {
        self.models[index].replicas.iter().filter(|id| self.stays(**id)).count()
    }

    /// The same without those that stand still.
    pub(super) fn lasting(&self, index: usize) -> impl Iterator<Item = usize> {
        let replicas = self.models[index].replicas.iter().copied();
        replicas.filter(|id| self.stays(*id) && !self.is_stalled(*id))
    }

    /// Whether a replica's worker is not being emptied.
    pub(super) fn stays(&self, id: usize) -> bool {
        !self.workers[self.devices[self.replicas[id].device].worker].is_draining()
    }
}
