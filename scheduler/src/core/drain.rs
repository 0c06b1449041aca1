//! When what waits will be done: what a queue's limit is held against, and when a refused client is to come again.

use std::time::Duration;

use super::{
    Core, ModelState, Nanos,
    cost::SAMPLE,
    queue::{LaneKey, Queue},
};

/// Shortest and longest time after which a refused client is told to come again.
const RETRY_AFTER: (f64, f64) = (0.001, 60.0);

/// Requests of a lane that are added up for one that is due after them.
const BEFORE: usize = 1024;

/// Holders of a model of which it is seen what waits for whom.
const HOLDERS: usize = 16;

/// When a client that was refused for so much work is to come again.
pub(super) fn retry_after(work: Nanos) -> Duration {
    Duration::from_secs_f64((work as f64 / 1e9).clamp(RETRY_AFTER.0, RETRY_AFTER.1))
}

/// Predicted work of a device that goes before one request, nanoseconds.
struct Before {
    lane: LaneKey,
    /// Of higher priorities, and what has waited once already.
    surely: f64,
    /// Of its priority and its tenant.
    own: f64,
    /// Of its priority, by other tenants.
    others: Vec<(u32, f64)>,
}

impl Before {
    fn add(&mut self, queue: &Queue, row_time: f64) {
        let grouped = queue.groups.iter().flat_map(|group| &group.waiting).map(|waiting| waiting.rows);
        self.surely += grouped.sum::<usize>() as f64 * row_time;
        for lane in queue.lanes().iter().filter(|lane| lane.rows > 0 && lane.key.priority <= self.lane.priority) {
            let work = lane.rows as f64 * row_time;
            match self.others.iter_mut().find(|(tenant, _)| *tenant == lane.key.tenant) {
                _ if lane.key.priority < self.lane.priority => self.surely += work,
                _ if lane.key.tenant == self.lane.tenant => self.own += work,
                Some((_, sum)) => *sum += work,
                None => self.others.push((lane.key.tenant, work)),
            }
        }
    }

    /// Tenants share a priority: while the request's own is served, each other gets as much.
    fn total(&self) -> Nanos {
        let shared: f64 = self.others.iter().map(|(_, work)| work.min(self.own)).sum();
        (self.surely + self.own + shared) as Nanos
    }
}

impl<T, L: Clone> Core<T, L> {
    /// Whether what goes before a request of this lane is predicted to be done within `most`; if not, when it will be.
    pub(super) fn waits_within(
        &self,
        now: Nanos,
        index: usize,
        lane: LaneKey,
        most: Nanos,
    ) -> std::result::Result<(), Nanos> {
        // Nearly always all that waits is done by then, and nobody has to ask for whom.
        if self.takers(index).any(|id| self.drained_in(now, id) <= most) {
            return Ok(());
        }
        let holders = self.takers(index).take(HOLDERS).map(|id| self.waits_behind(now, id, lane));
        let waits = holders.min().unwrap_or_else(|| {
            let model = &self.models[index];
            let mut before = Before { lane, surely: 0.0, own: 0.0, others: Vec::new() };
            before.add(&model.queue, model.work as f64 / model.queue.rows().max(1) as f64);
            before.total()
        });
        if waits <= most { Ok(()) } else { Err(waits) }
    }

    /// The least time until `rows` rows that are due then could be answered, if all holders ran nothing but the requests of
    /// their lane that are due before, each in time or not at all, in the largest batches. 0 where that is not known.
    pub(super) fn least_behind(&self, now: Nanos, index: usize, key: LaneKey, due: Nanos, rows: usize) -> Nanos {
        let model = &self.models[index];
        // What has no deadline may be left for later.
        let lane = model.queue.lanes().iter().find(|lane| lane.key == key && lane.hard == lane.waiting.len());
        let binds = model.balancer.is_some() || model.spec.as_ref().is_none_or(|spec| spec.policy.sequences);
        let known = !binds && (1..=SAMPLE).contains(&model.replicas.len());
        let Some(lane) = lane.filter(|lane| known && !lane.waiting.is_empty()) else { return 0 };
        let (mut at_once, mut rate) = (0usize, 0.0);
        let (mut busy, mut service) = (Nanos::MAX, Nanos::MAX);
        for id in &model.replicas {
            let (replica, most) = (&self.replicas[*id], model.max_rows().max(1));
            let line = replica.least_line(key.bucket);
            at_once = at_once.saturating_add(most);
            rate += 1.0 / line.row_time(most, most).max(1.0);
            busy = busy.min(self.devices[replica.device].remaining(now));
            service = service.min(line.predict(rows));
        }
        let alone = busy.saturating_add(service);
        let waits = |rows: usize| (rows.saturating_sub(at_once) as f64 / rate).min(1e18) as Nanos;
        // Nearly always there is time for all of them.
        if now.saturating_add(alone).saturating_add(waits(lane.rows.saturating_add(rows))) <= due {
            return 0;
        }
        let before = lane.waiting.partition_point(|waiting| waiting.due <= due);
        let mut spent = 0.0f64;
        for waiting in lane.waiting.range(before.saturating_sub(BEFORE)..before) {
            let in_time = waiting.due.saturating_sub(now.saturating_add(busy)) as f64;
            let done = spent + waiting.rows as f64 / rate;
            spent = if done <= in_time { done } else { spent };
        }
        let spent = spent + (rows as f64 - at_once as f64) / rate;
        alone.saturating_add(spent.clamp(0.0, 1e18) as Nanos)
    }

    /// Predicted time until a replica's device is done with what goes before a request of this lane.
    fn waits_behind(&self, now: Nanos, id: usize, lane: LaneKey) -> Nanos {
        let device = &self.devices[self.replicas[id].device];
        let mut before = Before { lane, surely: 0.0, own: 0.0, others: Vec::new() };
        for id in &device.residents {
            let replica = &self.replicas[*id];
            let model = &self.models[replica.model];
            if replica.state == ModelState::Unloading {
                continue;
            }
            let holders = self.sharers(replica.model) as f64;
            before.add(&model.queue, model.work as f64 / holders / model.queue.rows().max(1) as f64);
            if let Some(queue) = &replica.bound {
                before.add(queue, replica.line(0).row_time(queue.rows(), model.max_rows()));
            }
        }
        device.remaining(now).saturating_add(before.total()).saturating_add(self.held_back(id))
    }

    /// What a breaker that is not closed adds: it lets one request through, then pauses.
    fn held_back(&self, id: usize) -> Nanos {
        let replica = &self.replicas[id];
        let waiting = self.models[replica.model].queue.len() as Nanos;
        replica.breaker.pause().saturating_mul(waiting.saturating_add(1))
    }

    /// Predicted time until the first holder of a model is done with all that waits for it, whatever model it is for.
    pub(super) fn queue_time(&self, now: Nanos, index: usize) -> Nanos {
        let holders = self.takers(index).map(|id| self.drained_in(now, id));
        holders.min().unwrap_or(self.models[index].work)
    }

    pub(super) fn drain_after(&self, now: Nanos, index: usize) -> Duration {
        retry_after(self.queue_time(now, index))
    }

    /// Replicas whose devices take work.
    fn takers(&self, index: usize) -> impl Iterator<Item = usize> {
        let replicas = self.models[index].replicas.iter().take(SAMPLE).copied();
        replicas.filter(|id| self.takes_requests(*id))
    }

    /// Predicted time until a replica's device is done with what it runs and all that waits for it.
    fn drained_in(&self, now: Nanos, id: usize) -> Nanos {
        let replica = &self.replicas[id];
        let device = &self.devices[replica.device];
        // Of a model with many holders nothing is counted on each, nor on one that is to be emptied.
        let own =
            if replica.shares { 0 } else { self.models[replica.model].work / self.sharers(replica.model) as Nanos };
        let all = device.load(now).saturating_add(own).saturating_add(self.held_back(id));
        if !self.binds {
            return all;
        }
        device.residents.iter().fold(all, |sum, id| sum.saturating_add(self.bound_work(*id)))
    }

    /// Predicted time of what a balancer has bound to a replica.
    pub(super) fn bound_work(&self, id: usize) -> Nanos {
        let replica = &self.replicas[id];
        let rows = replica.bound.as_ref().map_or(0, |queue| queue.rows());
        if rows == 0 { 0 } else { replica.line(0).drain(rows, self.models[replica.model].max_rows()) }
    }
}
