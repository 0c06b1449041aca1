//! What has waited past its objective: a share of each device's time is its own, so that nothing starves.
//!
//! A device saves up a tenth of the time that it spends on others, for the oldest. Requests of a model that it holds are served from
//! that. A model that is nowhere and fits beside nothing that runs gets its *turn*: what must leave for it runs no further,
//! nothing else is loaded, and the loads are paid from savings of their own, another tenth: a long load would else be owed
//! for by what is there. A model that is wanted more urgently than all that must leave need not save
//! up, but leaves the device to others for as long as that took.

use super::{
    Core, Nanos,
    candidates::rows_for,
    device::Device,
    order::{Pick, Sight, Source, WEIGHTS},
    placement::Concern,
};

/// Device time of a hundred that requests past their objective may claim.
const OVERDUE_SHARE: u64 = 10;
/// Most of it that is saved up, nanoseconds.
const MOST_CREDIT: Nanos = 1_000_000_000;
/// Models past their objective that are looked at for one that a device can take.
const LOOKED_AT: usize = 16;
/// A model that is asked for less often than once in ten seconds has no usual priority.
const SELDOM: f64 = 1e-10;

/// A model that was brought although others were worth more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub replica: usize,
    /// From when on others may have its place. It stays as long as the loads took, or they would be for little.
    pub ends: Nanos,
}

/// Requests past their objective, as a batch.
struct Oldest {
    since: Nanos,
    service: Nanos,
    pick: Pick,
}

/// Whether enough is saved up for what takes so long, or as much as ever is.
fn affords(credit: i64, time: Nanos) -> bool {
    time.min(MOST_CREDIT) as i64 <= credit
}

impl<T, L: Clone> Core<T, L> {
    /// Requests that have waited for longer than their model's objective, the oldest first, once the device has saved up
    /// for them; those with a later deadline too, or it would pass while others are always worth more.
    pub(super) fn overdue(&self, sight: &Sight) -> Option<Pick> {
        let device = &self.devices[sight.device];
        if let Some(turn) = device.turn.filter(|turn| !self.replicas[turn.replica].ran) {
            // It was paid for with the load.
            let first = self.oldest_of(sight, turn.replica);
            if first.is_some() {
                return first.map(|oldest| oldest.pick);
            }
        }
        if device.overdue_credit <= 0 {
            return None;
        }
        let oldest = device.residents.iter().filter_map(|id| self.oldest_of(sight, *id)).min_by_key(|o| o.since)?;
        affords(device.overdue_credit, oldest.service).then_some(oldest.pick)
    }

    /// The oldest of a replica's requests past their objective.
    fn oldest_of(&self, sight: &Sight, id: usize) -> Option<Oldest> {
        let replica = &self.replicas[id];
        if !self.may_take(sight, id) {
            return None;
        }
        let model = &self.models[replica.model];
        let most = replica.most_rows(model.max_rows());
        let objective = self.objective(replica.model);
        let mut oldest: Option<Oldest> = None;
        let shared = model.queue.lanes().iter().enumerate().map(|lane| (false, lane));
        let bound = replica.bound.as_deref().map_or(&[][..], |queue| queue.lanes());
        for (bound, (at, lane)) in shared.chain(bound.iter().enumerate().map(|lane| (true, lane))) {
            let Some(head) = lane.waiting.front() else { continue };
            let since = head.overdue_from(objective);
            if since < sight.now && oldest.as_ref().is_none_or(|oldest| since < oldest.since) {
                let lines = [&replica.line(lane.key.bucket), &replica.least_line(lane.key.bucket)];
                let Some((rows, _)) = rows_for(head, lines, &sight.way, most) else { continue };
                let service = lines[0].predict(lane.rows.min(rows));
                let source = Source::Lane { lane: at, skip: 0 };
                let pick =
                    Pick { replica: id, bound, source, rows, score: f64::MAX, standing: f64::MAX, on_credit: true };
                oldest = Some(Oldest { since, service, pick });
            }
        }
        oldest
    }

    /// What a device earns for requests past their objective while it serves others, or spends on them.
    pub(super) fn count_overdue(&mut self, device: usize, service: Nanos, was_overdue: bool) {
        let Device { overdue_credit, turn_credit, .. } = &mut self.devices[device];
        if was_overdue {
            // A batch that is longer than can be saved up is owed for.
            *overdue_credit = overdue_credit.saturating_sub_unsigned(service);
            return;
        }
        for credit in [overdue_credit, turn_credit] {
            *credit = credit.saturating_add_unsigned(service / OVERDUE_SHARE).min(MOST_CREDIT as i64);
        }
    }

    /// The same while it loads what others wait for: where they push each other out without end it runs little.
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
    /// run no further.
    pub(super) fn make_way(&mut self, now: Nanos, index: usize, device: usize) -> Vec<usize> {
        let (load, at) = (self.load_time(index, device), &self.devices[device]);
        if at.turn.is_some() {
            return Vec::new();
        }
        let idle = if at.loading.is_none() { self.victims_of_turn(now, index, device) } else { None };
        let is_idle = idle.is_some();
        let Some(leave) = idle.or_else(|| self.victims_in_time(now, index, device)) else { return Vec::new() };
        let price = self.price(index, device, &leave);
        let ends = now.saturating_add(load).saturating_add(price);
        let affords = affords(at.turn_credit, price);
        if !affords && (at.rests_until > now || !self.outranks(now, index, &leave)) {
            return Vec::new();
        }
        if !is_idle {
            self.devices[device].claim = Some(index);
            // What was brought for requests that still wait runs once.
            return leave.into_iter().filter(|id| !self.is_awaited_load(*id)).collect();
        }
        self.begin_turn(now, index, device, leave, ends);
        let at = &mut self.devices[device];
        match affords {
            true => at.turn_credit = at.turn_credit.saturating_sub_unsigned(price),
            false => at.rests_until = ends.saturating_add(price),
        }
        Vec::new()
    }

    /// Whether a model's requests are all more urgent than what is asked of these replicas.
    fn outranks(&self, now: Nanos, index: usize, leave: &[usize]) -> bool {
        let own = self.models[index].queue.mean_weight();
        leave.iter().all(|id| {
            let model = &self.models[self.replicas[*id].model];
            let waiting = if model.queue.is_empty() { 0.0 } else { model.queue.mean_weight() };
            let usual = if model.arrivals.rate_at(now) > SELDOM { model.arrivals.weight() } else { 0.0 };
            waiting.max(usual) < own
        })
    }

    /// Whether a device is being cleared for the turn of another model.
    pub(super) fn is_claimed(&self, device: usize, index: usize) -> bool {
        self.devices[device].claim.is_some_and(|claimant| {
            let model = &self.models[claimant];
            claimant != index && model.replicas.is_empty() && !model.queue.is_empty()
        })
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
