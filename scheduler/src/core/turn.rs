//! Turns: a model that is nowhere, and fits beside nothing that runs, is brought although others are worth more.
//!
//! What must leave for it runs no further, nothing else is loaded, and a tenth of the time that the device spends on others
//! pays for the loads. A model that is wanted more urgently than all that must leave need not save up, but leaves the device
//! to others for as long as that took.

use super::{
    Core, Nanos,
    ageing::{MOST_CREDIT, OVERDUE_SHARE, affords},
    order::WEIGHTS,
    placement::Concern,
};

/// Models past their objective that are looked at for one that a device can take.
const LOOKED_AT: usize = 16;
/// A model that is asked for less often than once in ten seconds has no usual priority.
const SELDOM: f64 = 1e-10;
/// Weights of neighbouring priorities differ by 2; the mean of the last arrivals lags behind.
const MORE_URGENT: f64 = 1.5;
/// So long a device is cleared for a turn; then the turn is given up, for as long again.
const CLEARING: Nanos = 30_000_000_000;

/// A model that was brought although others were worth more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub replica: usize,
    /// From when on others may have its place. It stays as long as the loads took, or they would be for little.
    pub ends: Nanos,
}

/// A device is being cleared for a model.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub model: usize,
    pub since: Nanos,
    /// Generators that must leave: they begin no further generation.
    pub generators: Vec<usize>,
    /// Whether others are loaded meanwhile.
    pub loads: bool,
}

impl<T, L: Clone> Core<T, L> {
    /// What a device saves up for turns while it loads what others wait for: where they push each other out without end it
    /// runs little.
    pub(super) fn count_load(&mut self, device: usize, id: usize) {
        let (load, awaited) = (self.load_time(self.replicas[id].model, device), self.is_awaited_load(id));
        let at = &mut self.devices[device];
        if awaited && at.turn.is_none_or(|turn| turn.replica != id) {
            at.turn_credit = at.turn_credit.saturating_add_unsigned(load / OVERDUE_SHARE).min(MOST_CREDIT as i64);
        }
    }

    /// The model that is nowhere, has waited past its objective for longest and could come to a device; before it is paid
    /// for, one that is more urgent than all that must leave.
    pub(super) fn claimant(&mut self, now: Nanos, device: usize) -> Option<usize> {
        let saved = self.devices[device].turn_credit > 0;
        let least = self.tenants.least_urgent();
        if !saved && least.is_none() {
            return None;
        }
        let past = self.claims.iter().take_while(|(since, _)| *since < now).take(LOOKED_AT);
        let past: Vec<usize> = past.map(|(_, index)| *index).collect();
        let oldest = if saved { past.iter().copied().find(|&index| self.may_claim(now, index, device)) } else { None };
        let Some(least) = least.filter(|_| self.devices[device].rests_until <= now) else { return oldest };
        let paid = |core: &Self, index: usize| {
            let price = core.victims_in_time(now, index, device).map(|leave| core.price(index, device, &leave));
            price.is_some_and(|price| affords(core.devices[device].turn_credit, price))
        };
        if oldest.is_some_and(|index| paid(self, index)) {
            return oldest;
        }
        let urgent = past.into_iter().find(|&index| {
            self.models[index].queue.mean_weight() > WEIGHTS[usize::from(least)]
                && self.victims_in_time(now, index, device).is_some_and(|leave| self.outranks(now, index, &leave))
                && self.may_claim(now, index, device)
        });
        urgent.or(oldest)
    }

    /// What a turn costs: the load, and those of what it pushes out and is wanted again.
    fn price(&self, index: usize, device: usize, leave: &[usize]) -> Nanos {
        let load = self.load_time(index, device);
        leave.iter().fold(load, |sum, id| sum.saturating_add(self.return_time(*id)))
    }

    fn may_claim(&mut self, now: Nanos, index: usize, device: usize) -> bool {
        self.need(now, index).is_some() && self.may_hold(now, index, device) && self.has_room(index, device)
    }

    /// Brings such a model once it is paid for and what must leave for it is idle. Until then, says which replicas are to
    /// run no further; `before` is the claim that was made when the device was last asked.
    pub(super) fn make_way(&mut self, now: Nanos, index: usize, device: usize, before: Option<Claim>) -> Vec<usize> {
        let (load, at) = (self.load_time(index, device), &self.devices[device]);
        if at.turn.is_some() || at.no_turns_until > now {
            return Vec::new();
        }
        let idle = if at.loading.is_none() { self.victims_of_turn(now, index, device) } else { None };
        let is_idle = idle.is_some();
        let Some(leave) = idle.or_else(|| self.victims_in_time(now, index, device)) else { return Vec::new() };
        let price = self.price(index, device, &leave);
        let ends = now.saturating_add(load).saturating_add(price);
        let urgent = at.rests_until <= now && self.outranks(now, index, &leave);
        if !urgent && !affords(at.turn_credit, price) {
            return Vec::new();
        }
        if !is_idle {
            return self.claim(now, index, device, before, leave);
        }
        self.begin_turn(now, index, device, leave, ends);
        let at = &mut self.devices[device];
        // One that is urgent leaves what is saved up to the oldest.
        match urgent {
            true => at.rests_until = ends.saturating_add(price),
            false => at.turn_credit = at.turn_credit.saturating_sub_unsigned(price),
        }
        Vec::new()
    }

    /// Clears a device for a model's turn: of the replicas that must leave, says which run no further.
    fn claim(
        &mut self,
        now: Nanos,
        index: usize,
        device: usize,
        before: Option<Claim>,
        leave: Vec<usize>,
    ) -> Vec<usize> {
        let since = before.filter(|before| before.model == index).map_or(now, |before| before.since);
        if now.saturating_sub(since) > CLEARING {
            self.devices[device].no_turns_until = now.saturating_add(CLEARING);
            return Vec::new();
        }
        let generates = |id: &usize| self.models[self.replicas[*id].model].is_generator();
        let (generators, others): (Vec<usize>, Vec<usize>) = leave.into_iter().partition(generates);
        // While the turn cannot begin, what is there runs, and beside long generations others are loaded.
        let generating = generators.iter().any(|id| self.replicas[*id].running > 0);
        let waits = generating || self.devices[device].loading.is_some();
        self.devices[device].claim = Some(Claim { model: index, since, generators, loads: generating });
        // What was brought for requests that still wait runs once.
        if waits { Vec::new() } else { others.into_iter().filter(|id| !self.is_awaited_load(*id)).collect() }
    }

    /// Whether a model's requests are all more urgent than what is asked of these replicas, by a priority at least.
    fn outranks(&self, now: Nanos, index: usize, leave: &[usize]) -> bool {
        let own = self.models[index].queue.mean_weight();
        leave.iter().all(|id| {
            let model = &self.models[self.replicas[*id].model];
            let waiting = if model.queue.is_empty() { 0.0 } else { model.queue.mean_weight() };
            let usual = if model.arrivals.rate_at(now) > SELDOM { model.arrivals.weight() } else { 0.0 };
            MORE_URGENT * waiting.max(usual) < own
        })
    }

    /// The claim of another model to a device, as long as it stands.
    fn claim_of_another(&self, now: Nanos, device: usize, index: usize) -> Option<&Claim> {
        self.devices[device].claim.as_ref().filter(|claim| {
            let model = &self.models[claim.model];
            let stands = model.replicas.is_empty() && !model.queue.is_empty();
            claim.model != index && stands && now.saturating_sub(claim.since) <= CLEARING
        })
    }

    /// Whether a device is being cleared for the turn of another model, so that none is loaded there.
    pub(super) fn is_claimed(&self, now: Nanos, device: usize, index: usize) -> bool {
        self.claim_of_another(now, device, index).is_some_and(|claim| !claim.loads)
    }

    /// Whether a generator is to begin no further generation, for another model's turn.
    pub(super) fn is_held_back(&self, now: Nanos, id: usize) -> bool {
        let replica = &self.replicas[id];
        let claim = self.claim_of_another(now, replica.device, replica.model);
        claim.is_some_and(|claim| claim.generators.contains(&id))
    }

    /// What it takes to bring a replica back that is wanted again at once.
    fn return_time(&self, id: usize) -> Nanos {
        let replica = &self.replicas[id];
        let awaited = !self.models[replica.model].queue.is_empty();
        if awaited { self.load_time(replica.model, replica.device) } else { 0 }
    }

    /// Whether a device could take a copy, but for the memory.
    fn may_hold(&mut self, now: Nanos, index: usize, device: usize) -> bool {
        let failed = self.models[index].failures.iter().any(|f| f.device == device && f.retry_at > now);
        let free = !failed && !self.is_on(index, device);
        // In the order of their numbers.
        free && self.suitable(index).binary_search(&device).is_ok()
    }

    fn begin_turn(&mut self, now: Nanos, index: usize, device: usize, leave: Vec<usize>, ends: Nanos) {
        if self.load_instead(now, index, device, leave) {
            let loading = self.devices[device].loading;
            self.devices[device].turn = loading.map(|replica| Turn { replica, ends });
        }
    }

    /// A model has had its turn: whoever waits for its place may have that, and it is one as others are.
    pub(super) fn end_turn(&mut self, now: Nanos, device: usize) {
        let Some(turn) = self.devices[device].turn else { return };
        let replica = &self.replicas[turn.replica];
        let waits_for_it = !replica.ran && !self.models[replica.model].queue.is_empty();
        if replica.serves() && replica.running == 0 && !waits_for_it && turn.ends <= now {
            self.devices[device].turn = None;
            self.place(now, Concern::Device(device));
        }
    }

    /// Whether a replica has had its turn and still runs: what it runs is its last, or others would never have its place.
    pub(super) fn is_after_its_turn(&self, now: Nanos, id: usize) -> bool {
        let replica = &self.replicas[id];
        let over = |turn: Turn| turn.replica == id && turn.ends <= now;
        replica.ran && replica.running > 0 && self.devices[replica.device].turn.is_some_and(over)
    }

    /// A replica is on its way out.
    pub(super) fn forget_turn(&mut self, device: usize, id: usize) {
        if self.devices[device].turn.is_some_and(|turn| turn.replica == id) {
            self.devices[device].turn = None;
        }
    }
}
