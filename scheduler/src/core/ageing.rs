//! What has waited past its objective: a share of each device's time is its own, so that nothing starves.
//!
//! A device saves up a tenth of the time that it spends on others, for the oldest. Requests of a model that it holds are
//! served from that. Loads of models that are nowhere are paid from savings of their own, another tenth (`turn.rs`): a long
//! load would else be owed for by what is there.

use super::{
    Core, Nanos,
    candidates::rows_for,
    device::Device,
    order::{Pick, Sight, Source},
};

/// Device time of a hundred that requests past their objective may claim.
pub(super) const OVERDUE_SHARE: u64 = 10;
/// Most of it that is saved up, nanoseconds.
pub(super) const MOST_CREDIT: Nanos = 1_000_000_000;

/// Requests past their objective, as a batch.
struct Oldest {
    since: Nanos,
    service: Nanos,
    pick: Pick,
}

/// Whether enough is saved up for what takes so long, or as much as ever is.
pub(super) fn affords(credit: i64, time: Nanos) -> bool {
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
}
