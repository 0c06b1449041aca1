//! Predicted work that waits: by model, by device, in all. Kept with every change, so that no decision has to add it up.

use super::{Core, Nanos, curve::LONGEST};

/// Holders among which a model's waiting work is divided. Of more, each has next to nothing.
const HOLDERS: usize = 16;

/// Exponent of the time of copying: long copies are a little dearer than their time.
pub(super) const COPY_TIME: f64 = 1.1;

/// A model that a copy would help, with its density as ordered bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rank {
    /// It waits and is nowhere.
    Homeless(u64),
    /// Its holders drain its queue too late.
    Wanting(u64),
}

impl<T, L: Clone> Core<T, L> {
    /// A model's queue has changed.
    pub(super) fn requeued(&mut self, index: usize) {
        self.unshare(index);
        let rows = self.models[index].queue.rows();
        let work = (self.row_time(index, rows) * rows as f64).min(LONGEST) as Nanos;
        let model = &mut self.models[index];
        self.queued_work = self.queued_work - model.work + work;
        model.work = work;
        self.share_work(index);
    }

    /// What each of so many rows of a model takes on its holders, nanoseconds: each does as many as it is fast.
    fn row_time(&self, index: usize, rows: usize) -> f64 {
        let least = self.least_row_time(index, rows);
        let mut rates = (0.0, 0.0);
        for time in self.row_times(index, rows) {
            rates = (rates.0 + 1.0, rates.1 + least / time);
        }
        // Alike, or of no time at all, they are as the fastest.
        if rates.1 > 0.0 { least * (rates.0 / rates.1) } else { least }
    }

    /// The same on the fastest holder, or where there is none on the fastest kind of device that is known.
    pub(super) fn least_row_time(&self, index: usize, rows: usize) -> f64 {
        let model = &self.models[index];
        let held = self.row_times(index, rows).min_by(f64::total_cmp);
        let known = || model.known.iter().map(|known| known.curve.line().row_time(rows, model.max_rows()));
        held.or_else(|| known().min_by(f64::total_cmp)).unwrap_or(0.0)
    }

    fn row_times(&self, index: usize, rows: usize) -> impl Iterator<Item = f64> {
        let model = &self.models[index];
        let holders = model.replicas.iter().take(HOLDERS);
        holders.map(move |id| self.replicas[*id].line(0).row_time(rows, model.max_rows()))
    }

    /// Takes a model's waiting work off its holders, before they change.
    pub(super) fn unshare(&mut self, index: usize) {
        self.unrank(index);
        let model = &mut self.models[index];
        let share = std::mem::take(&mut model.share);
        // Among more it was not divided.
        if model.replicas.len() > HOLDERS {
            return;
        }
        for id in &model.replicas {
            let replica = &mut self.replicas[*id];
            if std::mem::take(&mut replica.shares) {
                self.devices[replica.device].queued -= share;
            }
        }
    }

    /// Divides a model's waiting work among its holders, those that are to be emptied left out; without any, the model is
    /// homeless.
    pub(super) fn share_work(&mut self, index: usize) {
        self.rank(index);
        let model = &self.models[index];
        if model.replicas.is_empty() || model.replicas.len() > HOLDERS {
            return;
        }
        let staying = self.staying(index);
        let share = model.work / self.sharers(index) as Nanos;
        self.models[index].share = share;
        for at in 0..self.models[index].replicas.len() {
            let id = self.models[index].replicas[at];
            if staying == 0 || self.stays(id) {
                self.replicas[id].shares = true;
                self.devices[self.replicas[id].device].queued += share;
            }
        }
    }

    /// Among how many holders a model's waiting work is divided.
    pub(super) fn sharers(&self, index: usize) -> usize {
        if self.models[index].replicas.len() > HOLDERS {
            return self.models[index].replicas.len();
        }
        match self.staying(index) {
            0 => self.models[index].replicas.len().max(1),
            staying => staying,
        }
    }

    /// The share of a model's queue that its holders are predicted to drain too late.
    pub(super) fn set_want(&mut self, index: usize, want: f64) {
        if self.models[index].want != want {
            self.unrank(index);
            self.models[index].want = want;
            self.rank(index);
        }
    }

    fn unrank(&mut self, index: usize) {
        match self.models[index].rank.take() {
            Some(Rank::Homeless(density)) => self.homeless.remove(&(density, index)),
            Some(Rank::Wanting(density)) => self.wanting.remove(&(density, index)),
            None => false,
        };
        if let Some(since) = self.models[index].claim.take() {
            self.claims.remove(&(since, index));
        }
    }

    /// A model's place among those that a copy would help: by requests, weighed by priority, for each second of copying.
    fn rank(&mut self, index: usize) {
        let (replicas, devices, workers) = (&self.replicas, &self.devices, &self.workers);
        let stays = |id: &usize| !workers[devices[replicas[*id].device].worker].is_draining();
        let model = &mut self.models[index];
        if model.queue.is_empty() {
            model.want = 0.0;
            return;
        }
        let load = model.known.iter().map(|known| known.load).min().unwrap_or(0).max(1) as f64;
        // Not negative, so the bits are ordered as the number is.
        let density = |share: f64| (model.queue.weight() * share / load.powf(COPY_TIME)).to_bits();
        if model.replicas.iter().all(|id| !stays(id)) {
            let density = density(1.0);
            model.rank = Some(Rank::Homeless(density));
            self.homeless.insert((density, index));
            let claim = self.models[index].queue.overdue_from(self.objective(index));
            self.models[index].claim = claim;
            self.claims.extend(claim.map(|since| (since, index)));
        } else if model.want > 0.0 {
            let density = density(model.want);
            model.rank = Some(Rank::Wanting(density));
            self.wanting.insert((density, index));
        }
    }
}
