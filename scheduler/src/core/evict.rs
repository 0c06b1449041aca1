//! What leaves a device to make room: the lowest expected loss per byte.

use super::{Core, ModelState, Nanos, arrivals::NORMAL};

/// Arrivals that are expected within this time count as if they waited: 20 ms.
const HORIZON: f64 = 20e6;
/// Value of a copy when there is another, as a share of the arrivals.
const COPY: f64 = 0.8;

impl<T, L: Clone> Core<T, L> {
    /// The replicas to unload so that a copy of a model fits; none if that cannot be, or is dearer than it is worth.
    pub(super) fn victims(&self, now: Nanos, index: usize, device: usize) -> Option<Vec<usize>> {
        let may =
            |id: usize| self.replicas[id].running == 0 && !self.outweighs(now, id, index) && self.is_evictable(id);
        self.cheapest(now, index, device, may)
    }

    /// The same for a model whose turn it is, whatever that costs others.
    pub(super) fn victims_of_turn(&self, now: Nanos, index: usize, device: usize) -> Option<Vec<usize>> {
        self.cheapest(now, index, device, |id| self.replicas[id].running == 0 && self.is_evictable(id))
    }

    /// The same once what is loading is there, and all that is awaited has run and is idle.
    pub(super) fn victims_in_time(&self, now: Nanos, index: usize, device: usize) -> Option<Vec<usize>> {
        let leaves = |id: usize| {
            let replica = &self.replicas[id];
            matches!(replica.state, ModelState::Ready | ModelState::Loading) && !self.is_kept(id) && replica.bytes > 0
        };
        self.cheapest(now, index, device, leaves)
    }

    fn cheapest(&self, now: Nanos, index: usize, device: usize, may: impl Fn(usize) -> bool) -> Option<Vec<usize>> {
        let (bytes, peak) = self.needs(index, device);
        let at = &self.devices[device];
        let mut left: Vec<usize> = at.residents.clone();
        let evictable = at.residents.iter().filter(|id| may(**id));
        let mut order: Vec<(f64, usize)> = evictable.map(|id| (self.worth(now, *id), *id)).collect();
        order.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let leaving = |id: &usize| self.replicas[*id].state == ModelState::Unloading;
        let mut freed: u64 = left.iter().filter(|id| leaving(id)).map(|id| self.replicas[*id].bytes).sum();
        left.retain(|id| !leaving(id));
        let mut victims = Vec::new();
        let mut order = order.into_iter();
        while bytes > at.ledger.free_after(freed, self.peak_of(&left).max(peak)) {
            let (_, id) = order.next()?;
            freed = freed.saturating_add(self.replicas[id].bytes);
            left.retain(|other| *other != id);
            victims.push(id);
        }
        Some(victims)
    }

    /// Whether requests of a higher priority would lose more by a replica's absence than a model's queue would gain in its
    /// place: such a model waits for its turn. What waits weighs more the longer it has, or a model that keeps a device for
    /// itself and uses little of it would leave no savings for a turn.
    fn outweighs(&self, now: Nanos, id: usize, index: usize) -> bool {
        let (replica, other) = (&self.replicas[id], &self.models[index]);
        let model = &self.models[replica.model];
        let weight = model.arrivals.weight();
        // What an owner wants, or somebody asks for by name, is no matter of what waits.
        if other.queue.is_empty() || other.demanded || weight <= other.queue.most_weight() || model.replicas.len() > 1 {
            return false;
        }
        let device = replica.device;
        let away = self.load_time(index, device).saturating_add(self.load_time(replica.model, device));
        let head = other.queue.head();
        let age = head.map_or(1.0, |head| {
            let waited = now.saturating_sub(head.due.saturating_sub(head.window));
            (waited as f64 / self.objective(index).max(1) as f64).max(1.0)
        });
        model.arrivals.rate_at(now) * away as f64 * weight > other.queue.weight() * age
    }

    /// Bytes of a model's weights, and of its batches as far as they are known on such a device.
    pub(super) fn needs(&self, index: usize, device: usize) -> (u64, u64) {
        let model = &self.models[index];
        (model.spec.as_ref().map_or(0, |spec| spec.memory_bytes), self.known_peak(index, device).bytes)
    }

    fn peak_of(&self, replicas: &[usize]) -> u64 {
        replicas.iter().map(|id| self.replicas[*id].peak.bytes).max().unwrap_or(0)
    }

    /// Whether a copy of a model fits on a device as it is.
    pub(super) fn fits_now(&self, index: usize, device: usize) -> bool {
        let (bytes, peak) = self.needs(index, device);
        let ledger = &self.devices[device].ledger;
        bytes <= ledger.free_after(0, ledger.activations().max(peak))
    }

    /// Whether a replica may leave once it runs nothing.
    fn is_evictable(&self, id: usize) -> bool {
        let replica = &self.replicas[id];
        replica.state == ModelState::Ready && !self.is_awaited_load(id) && !self.is_kept(id) && replica.bytes > 0
    }

    /// One that was brought for requests which still wait stays until it has run: two such models would else push each
    /// other out for ever while a third runs.
    pub(super) fn is_awaited_load(&self, id: usize) -> bool {
        let replica = &self.replicas[id];
        !replica.ran && !self.models[replica.model].queue.is_empty()
    }

    /// Whether its owner wants it to stay.
    fn is_kept(&self, id: usize) -> bool {
        let index = self.replicas[id].model;
        self.models[index].spec.as_ref().is_some_and(|spec| {
            let least = spec.policy.min_replicas as usize;
            spec.policy.pin || spec.inline || (least > 0 && self.staying(index) <= least)
        })
    }

    /// Whether a copy of a model fits on a device once all is gone that may be evicted.
    pub(super) fn has_room(&self, index: usize, device: usize) -> bool {
        self.needs(index, device).0 <= self.most_room(index, device)
    }

    /// Bytes that a model's weights could have on a device, beside what its batches take, once all is gone that may be
    /// evicted.
    pub(super) fn most_room(&self, index: usize, device: usize) -> u64 {
        let peak = self.needs(index, device).1;
        let at = &self.devices[device];
        let (mut freed, mut kept, mut loading) = (0u64, 0u64, 0u64);
        for id in &at.residents {
            let replica = &self.replicas[*id];
            match replica.state == ModelState::Unloading || !self.is_kept(*id) {
                true if replica.sent => {
                    freed = freed.saturating_add(replica.bytes);
                    let loads = replica.state == ModelState::Loading;
                    loading = loading.saturating_add(if loads { replica.bytes } else { 0 });
                }
                true => {}
                false => kept = kept.max(replica.peak.bytes),
            }
        }
        at.ledger.free_once_gone(freed, loading, kept.max(peak))
    }

    /// Requests that its loss would cost, weighed by priority, for a byte; of each sequence whose state it has, the next.
    fn worth(&self, now: Nanos, id: usize) -> f64 {
        let replica = &self.replicas[id];
        let model = &self.models[replica.model];
        let copies = model.replicas.len();
        let shared = if copies < 2 { 1.0 } else { COPY / ((copies - 1) as f64).powi(2) };
        let bound = replica.bound.as_ref().map_or(0.0, |queue| queue.weight());
        let expected = HORIZON * model.arrivals.rate_at(now) * shared * model.arrivals.weight();
        let states = model.sequences.held_by(id) as f64 * NORMAL;
        (expected + model.queue.weight() + bound + states) / replica.bytes as f64
    }
}
