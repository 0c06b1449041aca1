//! Batches that straggle are run a second time, where the curve says that the copy would win.

use super::{Core, Nanos, RequestKey, dispatch::Running, order::WEIGHTS};

/// A batch straggles when it is late by so many times its predicted time.
const STRAGGLES: f64 = 1.0;

impl<T, L: Clone> Core<T, L> {
    /// Runs stragglers a second time where the curve says that the copy would win, for models that ask for it.
    pub(super) fn hedge_stragglers(&mut self, now: Nanos) {
        for number in self.stragglers(now) {
            self.hedge(now, number, None);
        }
        let from = self.batches.values().filter_map(|running| self.straggles(running)).min();
        self.straggles_from = from.unwrap_or(Nanos::MAX);
    }

    /// The same on a device that takes a batch, or none would be run twice while much is asked; before what is no more
    /// urgent than this.
    pub(super) fn hedge_on(&mut self, now: Nanos, device: usize, standing: f64) -> bool {
        let urgent = |core: &Self, number: &u64| {
            let requests = core.batches[number].attempts.iter().filter_map(|(_, key)| core.request(*key));
            requests.map(|request| WEIGHTS[request.lane.priority as usize]).any(|weight| weight >= standing)
        };
        let late = if now > self.straggles_from { self.stragglers(now) } else { Vec::new() };
        late.into_iter().any(|number| urgent(self, &number) && self.hedge(now, number, Some(device)))
    }

    fn stragglers(&self, now: Nanos) -> Vec<u64> {
        let late = |running: &Running| self.straggles(running).is_some_and(|from| from < now);
        self.batches.iter().filter(|(_, running)| late(running)).map(|(number, _)| *number).collect()
    }

    /// From when on a batch straggles, if it may be run a second time.
    fn straggles(&self, running: &Running) -> Option<Nanos> {
        let hedges = self.models[running.model].spec.as_ref().is_some_and(|spec| spec.policy.hedge);
        let may = hedges && !running.hedged && !running.beside;
        may.then(|| running.expected.saturating_add((running.predicted as f64 * STRAGGLES) as Nanos))
    }

    /// A batch was given to a device.
    pub(super) fn note_straggling(&mut self, number: u64) {
        let from = self.batches.get(&number).and_then(|running| self.straggles(running));
        self.straggles_from = self.straggles_from.min(from.unwrap_or(Nanos::MAX));
    }

    /// Runs a batch a second time, on this device or on any; says whether it does.
    fn hedge(&mut self, now: Nanos, number: u64, there: Option<usize>) -> bool {
        let Some(running) = self.batches.get(&number) else { return false };
        let left = self.devices[running.device].remaining(now);
        let (index, own, rows, bucket) = (running.model, running.replica, running.rows, running.bucket);
        let done = |id: &&usize| {
            let replica = &self.replicas[**id];
            self.devices[replica.device].remaining(now).saturating_add(replica.line(bucket).predict(rows))
        };
        let wins = |id: &&usize| {
            let replica = &self.replicas[**id];
            let takes = self.takes_part(replica.device) && self.takes_work(now, replica.device);
            let may = self.can_run(now, **id) && !self.is_leaving(now, **id);
            let fits = rows <= replica.most_rows(usize::MAX) && may;
            **id != own && there.is_none_or(|there| there == replica.device) && fits && takes && done(id) < left
        };
        let found = self.models[index].replicas.iter().filter(wins).min_by_key(done).copied();
        let Some(id) = found else { return false };
        let repeats = |key: &RequestKey| {
            let request = self.request(*key);
            let there = self.replicas[id].device;
            request
                .is_some_and(|r| r.request.parameters.idempotent && r.hedge.is_none() && !r.failed_on.contains(&there))
        };
        let keys: Vec<RequestKey> = running.attempts.iter().map(|(_, key)| *key).filter(repeats).collect();
        if keys.is_empty() || !self.budget.withdraw_all(now, keys.len()) {
            return false;
        }
        if let Some(running) = self.batches.get_mut(&number) {
            running.hedged = true;
        }
        self.totals.hedged += 1;
        self.send_batch(now, id, keys, bucket, true)
    }
}
