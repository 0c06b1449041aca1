//! Turns: a model that is nowhere, and fits beside nothing that runs, is brought although others are worth more.
//!
//! What must leave for it runs no further, nothing else is loaded, and a tenth of the time that the device spends on others
//! pays for the loads. A model that is wanted more urgently than all that must leave need not save up, but leaves the device
//! to others for as long as that took.

use super::{
    Core, Nanos,
    ageing::{MOST_CREDIT, OVERDUE_SHARE, affords},
    claim::Claim,
    placement::Concern,
};

/// A model that is asked for less often than once in ten seconds has no usual priority.
const SELDOM: f64 = 1e-10;
/// Weights of neighbouring priorities differ by 2; the mean of the last arrivals lags behind.
const MORE_URGENT: f64 = 1.5;

/// A model that was brought although others were worth more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub replica: usize,
    /// It stays as long as the loads took, or they would be for little.
    pub stays: Nanos,
    /// From when on others may have its place; none before it is loaded.
    pub ends: Option<Nanos>,
}

impl Turn {
    /// Whether it was over so long ago.
    pub(super) fn is_over(self, now: Nanos, since: Nanos) -> bool {
        self.ends.is_some_and(|ends| ends.saturating_add(since) <= now)
    }
}

impl<T, L: Clone> Core<T, L> {
    /// A model is loaded: its turn begins, if it has one. While a device loads what others wait for it saves up for turns:
    /// where they push each other out without end it runs little.
    pub(super) fn note_load(&mut self, now: Nanos, device: usize, id: usize) {
        let (load, awaited) = (self.load_time(self.replicas[id].model, device), self.is_awaited_load(id));
        let at = &mut self.devices[device];
        if let Some(turn) = at.turn.as_mut().filter(|turn| turn.replica == id) {
            turn.ends = Some(now.saturating_add(turn.stays));
        } else if awaited {
            at.turn_credit = at.turn_credit.saturating_add_unsigned(load / OVERDUE_SHARE).min(MOST_CREDIT as i64);
        }
    }

    /// What a turn costs: the load, and those of what it pushes out and is wanted again.
    pub(super) fn price(&self, index: usize, device: usize, leave: &[usize]) -> Nanos {
        let load = self.load_time(index, device);
        leave.iter().fold(load, |sum, id| sum.saturating_add(self.return_time(*id)))
    }

    /// Brings such a model once it is paid for and what must leave for it is idle; until then the device is being cleared.
    /// `before` is the claim that was made when the device was last asked.
    pub(super) fn make_way(&mut self, now: Nanos, index: usize, device: usize, before: Option<Claim>) {
        let (load, at) = (self.load_time(index, device), &self.devices[device]);
        if at.turn.is_some() || at.no_turns_until > now {
            return;
        }
        let idle = if at.loading.is_none() { self.victims_of_turn(now, index, device) } else { None };
        let is_idle = idle.is_some();
        let Some(leave) = idle.or_else(|| self.victims_in_time(now, index, device)) else { return };
        let price = self.price(index, device, &leave);
        let urgent = at.rests_until <= now && self.outranks(now, index, &leave);
        if !urgent && !affords(at.turn_credit, price) {
            return;
        }
        if !is_idle {
            return self.claim(now, index, device, before, leave);
        }
        self.begin_turn(now, index, device, leave, price);
        let at = &mut self.devices[device];
        // One that is urgent leaves what is saved up to the oldest.
        match urgent {
            true => at.rests_until = now.saturating_add(load).saturating_add(price).saturating_add(price),
            false => at.turn_credit = at.turn_credit.saturating_sub_unsigned(price),
        }
    }

    /// Whether a model's most urgent request is so by a priority at least against what is asked of these replicas.
    pub(super) fn outranks(&self, now: Nanos, index: usize, leave: &[usize]) -> bool {
        let own = self.models[index].queue.most_weight();
        leave.iter().all(|id| {
            let model = &self.models[self.replicas[*id].model];
            let usual = if model.arrivals.rate_at(now) > SELDOM { model.arrivals.weight() } else { 0.0 };
            MORE_URGENT * model.queue.most_weight().max(usual) < own
        })
    }

    /// What it takes to bring a replica back that is wanted again at once.
    fn return_time(&self, id: usize) -> Nanos {
        let replica = &self.replicas[id];
        let awaited = !self.models[replica.model].queue.is_empty();
        if awaited { self.load_time(replica.model, replica.device) } else { 0 }
    }

    fn begin_turn(&mut self, now: Nanos, index: usize, device: usize, leave: Vec<usize>, stays: Nanos) {
        if self.load_instead(now, index, device, leave) {
            let loading = self.devices[device].loading;
            self.devices[device].claims_from = (0, 0);
            self.devices[device].turn = loading.map(|replica| Turn { replica, stays, ends: None });
        }
    }

    /// A model has had its turn: whoever waits for its place may have that, and it is one as others are.
    pub(super) fn end_turn(&mut self, now: Nanos, device: usize) {
        let Some(turn) = self.devices[device].turn.filter(|turn| turn.is_over(now, 0)) else { return };
        // Where no other waits for a place, what it runs need not be its last.
        let idle = self.replicas[turn.replica].running == 0 || !self.is_asked_for(now, device);
        let replica = &self.replicas[turn.replica];
        let waits_for_it = !replica.ran && !self.models[replica.model].queue.is_empty();
        if replica.serves() && idle && !waits_for_it {
            self.devices[device].turn = None;
            self.place(now, Concern::Device(device));
        }
    }

    /// Whether a replica has had its turn and still runs: what it runs is its last, or others would never have its place.
    pub(super) fn is_after_its_turn(&self, now: Nanos, id: usize) -> bool {
        let replica = &self.replicas[id];
        let over = |turn: Turn| turn.replica == id && turn.is_over(now, 0);
        replica.ran && replica.running > 0 && self.devices[replica.device].turn.is_some_and(over)
    }

    /// A replica is on its way out: its number may be another's.
    pub(super) fn forget_turn(&mut self, device: usize, id: usize) {
        let at = &mut self.devices[device];
        at.turn = at.turn.filter(|turn| turn.replica != id);
        if let Some(claim) = &mut at.claim {
            claim.leaving.retain(|other| *other != id);
            claim.generators.retain(|other| *other != id);
        }
    }
}
