//! Claims: which model's turn a device is being cleared for, and what must leave for it.

use super::{Core, Nanos, ageing::affords, order::WEIGHTS};

/// Models past their objective that are looked at together for one that a device can take.
const LOOKED_AT: usize = 16;
/// So long batches that are late keep a device from being cleared; then it is given up, for as long again. Generations
/// are interrupted after as long.
pub(super) const CLEARING: Nanos = 30_000_000_000;

/// A device is being cleared for a model.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub model: usize,
    /// Since when.
    pub since: Nanos,
    /// When the device was last asked whether it stands.
    pub seen: Nanos,
    /// From when on only batches have to end.
    pub clearing: Nanos,
    /// Replicas that must leave and run no further.
    pub leaving: Vec<usize>,
    /// Generators that must leave: they begin no further generation.
    pub generators: Vec<usize>,
    /// Whether others are loaded meanwhile.
    pub loads: bool,
}

impl<T, L: Clone> Core<T, L> {
    /// The model that is nowhere, has waited past its objective for longest and could come to a device; before it is paid
    /// for, one that is more urgent than all that must leave.
    pub(super) fn claimant(&mut self, now: Nanos, device: usize) -> Option<usize> {
        let at = &self.devices[device];
        let saved = at.turn_credit > 0;
        let least = self.tenants.least_urgent().filter(|_| at.rests_until <= now);
        if !saved && least.is_none() {
            return None;
        }
        let past = self.claims.range(at.claims_from..).take_while(|(since, _)| *since < now).take(LOOKED_AT);
        let past: Vec<(Nanos, usize)> = past.copied().collect();
        let found = self.claimant_of(now, device, &past, saved, least);
        if found.is_none() {
            // Those that it cannot take must not keep the younger ones from being looked at.
            let last = past.last().filter(|_| past.len() == LOOKED_AT);
            self.devices[device].claims_from = last.map_or((0, 0), |(since, index)| (*since, index + 1));
        }
        found
    }

    fn claimant_of(
        &mut self,
        now: Nanos,
        device: usize,
        past: &[(Nanos, usize)],
        saved: bool,
        least: Option<u8>,
    ) -> Option<usize> {
        let past = || past.iter().map(|(_, index)| *index);
        let oldest = if saved { past().find(|&index| self.may_claim(now, index, device)) } else { None };
        let Some(least) = least else { return oldest };
        let paid = |index: usize| {
            let price = self.victims_in_time(now, index, device).map(|leave| self.price(index, device, &leave));
            price.is_some_and(|price| affords(self.devices[device].turn_credit, price))
        };
        if oldest.is_some_and(paid) {
            return oldest;
        }
        let urgent = past().find(|&index| {
            self.models[index].queue.most_weight() > WEIGHTS[usize::from(least)]
                && self.victims_in_time(now, index, device).is_some_and(|leave| self.outranks(now, index, &leave))
                && self.may_claim(now, index, device)
        });
        urgent.or(oldest)
    }

    /// Whether a model that is nowhere could have its turn on a device.
    pub(super) fn is_asked_for(&mut self, now: Nanos, device: usize) -> bool {
        let past = self.claims.iter().take_while(|(since, _)| *since < now).take(LOOKED_AT);
        let past: Vec<usize> = past.map(|(_, index)| *index).collect();
        past.len() == LOOKED_AT || past.into_iter().any(|index| self.may_claim(now, index, device))
    }

    /// Whether a device could begin to load a model once what must leave is idle.
    pub(super) fn may_be_loaded(&mut self, now: Nanos, index: usize, device: usize) -> bool {
        let at = &self.devices[device];
        let free = at.loading.is_none() && !at.stalled;
        free && self.could_hold(now, index, device)
    }

    fn may_claim(&mut self, now: Nanos, index: usize, device: usize) -> bool {
        self.need(now, index).is_some() && self.could_hold(now, index, device)
    }

    fn could_hold(&mut self, now: Nanos, index: usize, device: usize) -> bool {
        self.may_hold(now, index, device) && self.has_room(index, device)
    }

    /// Whether a device could take a copy, but for the memory.
    fn may_hold(&mut self, now: Nanos, index: usize, device: usize) -> bool {
        let failed = self.models[index].failures.iter().any(|f| f.device == device && f.retry_at > now);
        let free = !failed && !self.is_on(index, device);
        // In the order of their numbers.
        free && self.suitable(index).binary_search(&device).is_ok()
    }

    /// Clears a device for a model's turn: what must leave runs no further. `before`: the claim that was made when the
    /// device was last asked.
    pub(super) fn claim(&mut self, now: Nanos, index: usize, device: usize, before: Option<Claim>, leave: Vec<usize>) {
        let generates = |id: &usize| self.models[self.replicas[*id].model].is_generator();
        let (generators, others): (Vec<usize>, Vec<usize>) = leave.into_iter().partition(generates);
        // While the turn cannot begin, what is there runs, and beside long generations others are loaded.
        let generating = generators.iter().any(|id| self.replicas[*id].running > 0);
        let waits = generating || self.devices[device].loading.is_some();
        // Whoever of several it is for.
        let (since, clearing) = before.map_or((now, now), |before| (before.since, before.clearing));
        // Generations that cannot be interrupted do not keep it for ever.
        let clearing = if waits && now.saturating_sub(since) <= 2 * CLEARING { now } else { clearing };
        let at = &mut self.devices[device];
        if now.saturating_sub(clearing) > CLEARING && at.booked_until <= now {
            at.no_turns_until = now.saturating_add(CLEARING);
            return;
        }
        // What was brought for requests that still wait runs once.
        let leaving = if waits { Vec::new() } else { others };
        let leaving = leaving.into_iter().filter(|id| !self.is_awaited_load(*id)).collect();
        let claim = Claim { model: index, since, seen: now, clearing, leaving, generators, loads: generating };
        self.devices[device].claim = Some(claim);
    }

    /// Clears a device for a model that must come there, since it leaves another: behind a link, one that is busy always has
    /// a batch ahead and is never seen idle.
    pub(super) fn clear_for(&mut self, now: Nanos, index: usize, device: usize) {
        if self.devices[device].no_turns_until > now || self.cleared_for(now, index).is_some_and(|at| at != device) {
            return;
        }
        if let Some(leave) = self.victims_in_time(now, index, device) {
            let before = self.devices[device].claim.take();
            self.claim(now, index, device, before, leave);
        }
    }

    /// The device that is being cleared for a model.
    pub(super) fn cleared_for(&self, now: Nanos, index: usize) -> Option<usize> {
        let claims = |claim: &Claim| claim.model == index && now.saturating_sub(claim.seen) <= CLEARING;
        self.devices.iter().find(|(_, device)| device.claim.as_ref().is_some_and(claims)).map(|(id, _)| id)
    }

    /// The claim of another model to a device, as long as it stands.
    fn claim_of_another(&self, now: Nanos, device: usize, index: usize) -> Option<&Claim> {
        self.devices[device].claim.as_ref().filter(|claim| {
            let model = &self.models[claim.model];
            let stands = self.staying(claim.model) == 0 && (model.demanded || !model.queue.is_empty());
            claim.model != index && stands && now.saturating_sub(claim.seen) <= CLEARING
        })
    }

    /// Whether a device is being cleared for the turn of another model, so that none is loaded there.
    pub(super) fn is_claimed(&self, now: Nanos, device: usize, index: usize) -> bool {
        self.claim_of_another(now, device, index).is_some_and(|claim| !claim.loads)
    }

    /// Whether a replica is to run no further, for another model's turn.
    pub(super) fn is_leaving(&self, now: Nanos, id: usize) -> bool {
        let replica = &self.replicas[id];
        self.claim_of_another(now, replica.device, replica.model).is_some_and(|claim| claim.leaving.contains(&id))
    }

    /// Whether a generator is to begin no further generation, for another model's turn.
    pub(super) fn is_held_back(&self, now: Nanos, id: usize) -> bool {
        let Some(replica) = self.replicas.get(id) else { return false };
        let claim = self.claim_of_another(now, replica.device, replica.model);
        claim.is_some_and(|claim| claim.generators.contains(&id))
    }
}
