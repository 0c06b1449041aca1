//! Which batch a device takes next: requests per device-second, weighed by urgency.

use super::{
    Core, Nanos,
    curve::Line,
    queue::{Lane, Queue, Waiting},
};

/// Weight of each priority's urgency: realtime, critical, high, normal, low.
const WEIGHTS: [f64; 5] = [16.0, 8.0, 4.0, 2.0, 1.0];
/// Bounds of τ as shares of the objective: little work is ordered by deadline, much by requests per second.
const TAU_IDLE: f64 = 0.10;
const TAU_LOADED: f64 = 0.27;
/// Device time of a hundred that requests past their objective may claim: nothing starves.
const OVERDUE_SHARE: u64 = 10;
/// Batches of a queue that are looked at for one that this device should take.
const LOOK_AHEAD: usize = 512;
/// Holders that are looked at for one that would answer sooner.
const RIVALS: usize = 64;

/// Where a batch's requests come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Group(usize),
    /// From this lane on, so many of its requests left to others.
    Lane {
        lane: usize,
        skip: usize,
    },
}

/// The batch that a device takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pick {
    pub replica: usize,
    pub bound: bool,
    pub source: Source,
    /// Rows that may run together.
    pub rows: usize,
    pub score: f64,
}

/// What a device sees when it chooses.
struct Sight {
    now: Nanos,
    device: usize,
    /// When a batch would start.
    start: Nanos,
    /// The predicted work that waits for each device, nanoseconds.
    backlog: f64,
    contended: bool,
}

/// Another device that holds a model: when a batch that it took next would be done, but for its rows.
struct Rival {
    free: f64,
    per_row: f64,
    base: f64,
}

/// Largest rows that still meet a deadline on this line, if one row does.
fn rows_until(line: &Line, start: Nanos, due: Nanos) -> Option<usize> {
    let room = due.saturating_sub(start) as f64 / line.inflation - line.base;
    let rows = if line.per_row > 0.0 {
        room / line.per_row + 1e-9
    } else if room >= 0.0 {
        f64::MAX
    } else {
        0.0
    };
    (rows >= 1.0).then_some(rows as usize)
}

impl<T, L: Clone> Core<T, L> {
    /// The batch that a device should take now, if any. Requests that cannot be met even alone are answered on the way.
    pub(super) fn choose(&mut self, now: Nanos, device: usize) -> Option<Pick> {
        let sight = Sight {
            now,
            device,
            start: self.available(now, device),
            backlog: self.queued_work as f64 / self.devices.len().max(1) as f64,
            contended: self.tenants.contend(),
        };
        for at in 0..self.devices[device].residents.len() {
            let replica = self.devices[device].residents[at];
            if self.can_run(now, replica) {
                self.shed(now, replica);
            }
        }
        if sight.contended {
            self.grant_rounds(device);
        }
        if let Some(pick) = self.overdue(&sight) {
            return Some(pick);
        }
        let mut best: Option<Pick> = None;
        for at in 0..self.devices[device].residents.len() {
            let replica = self.devices[device].residents[at];
            if !self.can_run(now, replica) {
                continue;
            }
            let bound = self.replicas[replica].bound.as_deref();
            let shared = &self.models[self.replicas[replica].model].queue;
            for (queue, is_bound) in [(Some(shared), false), (bound, true)] {
                let Some(queue) = queue.filter(|queue| !queue.is_empty()) else { continue };
                let pick = self.best_of(&sight, replica, queue, is_bound);
                if let Some(pick) = pick.filter(|pick| best.is_none_or(|best| pick.score > best.score)) {
                    best = Some(pick);
                }
            }
        }
        best
    }

    fn can_run(&self, now: Nanos, replica: usize) -> bool {
        let replica = &self.replicas[replica];
        replica.serves() && replica.breaker.allows(now)
    }

    fn best_of(&self, sight: &Sight, id: usize, queue: &Queue, bound: bool) -> Option<Pick> {
        let replica = &self.replicas[id];
        let fits = |group: &&super::queue::Group| self.may_run_on(group, sight.device);
        if let Some(at) = queue.groups.iter().position(|group| fits(&group)) {
            let rows: usize = queue.groups[at].waiting.iter().map(|waiting| waiting.rows).sum();
            // It waited once already: nothing goes before it.
            return Some(Pick { replica: id, bound, source: Source::Group(at), rows, score: f64::MAX });
        }
        let most = self.models[replica.model].max_rows().min(replica.rows_limit.unwrap_or(usize::MAX));
        let mut best: Option<Pick> = None;
        for (at, lane) in queue.lanes().iter().enumerate() {
            let Some(head) = lane.waiting.front() else { continue };
            if sight.contended && !self.tenants.is_due(lane.key.priority, lane.key.tenant) {
                continue;
            }
            let line = replica.line(lane.key.bucket);
            let until = rows_until(&line, sight.start, head.due);
            let rows = match (until, head.hard) {
                (Some(rows), _) => rows.min(most),
                (None, false) => most,
                // Another device may still meet it.
                (None, true) => continue,
            };
            let Some(skip) = (if bound { Some(0) } else { self.left_to_others(sight, id, lane, rows) }) else {
                continue;
            };
            let score = self.score(sight, &line, queue, lane, head, rows);
            if best.is_none_or(|best| score > best.score) {
                best = Some(Pick { replica: id, bound, source: Source::Lane { lane: at, skip }, rows, score });
            }
        }
        best
    }

    /// `weight · b / service(b) · exp(−slack / τ)`, b being the largest batch that still meets its head's deadline.
    fn score(&self, sight: &Sight, line: &Line, queue: &Queue, lane: &Lane, head: &Waiting, rows: usize) -> f64 {
        let batch = queue.bucket_rows(lane.key.bucket).min(rows) as f64;
        let service = (line.base + line.per_row * batch).max(1.0);
        let requests = batch * lane.waiting.len() as f64 / lane.rows.max(1) as f64;
        let window = head.window.max(1) as f64;
        let tau = window * (TAU_IDLE + TAU_LOADED * (sight.backlog / window).min(1.0));
        let slack = head.due.saturating_sub(sight.start) as f64 - service * line.inflation;
        // Late is late: how late must not outweigh everything else.
        let urgency = (-slack.max(0.0) / tau).exp();
        WEIGHTS[lane.key.priority as usize] * requests / service * urgency
    }

    /// How many requests of a lane devices that are busier would still finish sooner; none if all of them.
    fn left_to_others(&self, sight: &Sight, id: usize, lane: &Lane, rows: usize) -> Option<usize> {
        let replica = &self.replicas[id];
        let model = &self.models[replica.model];
        if model.replicas.len() < 2 {
            return Some(0);
        }
        let mine = replica.line(lane.key.bucket);
        let start = (sight.start + self.lead(sight.device)) as f64;
        let rivals = model.replicas.iter().filter(|other| **other != id).take(RIVALS);
        let mut rivals: Vec<Rival> = rivals
            .filter(|other| self.can_run(sight.now, **other) && self.takes_part(self.replicas[**other].device))
            .map(|other| {
                let (device, line) = (self.replicas[*other].device, self.replicas[*other].line(lane.key.bucket));
                // What else waits for it may go first.
                let others = self.devices[device].queued.saturating_sub(model.share);
                let free = self.available(sight.now, device) + others + self.lead(device);
                Rival { free: free as f64 + line.base, per_row: line.per_row, base: line.base }
            })
            .collect();
        let mut skip = 0;
        for _ in 0..LOOK_AHEAD {
            let batch = batch_from(lane, skip, rows);
            if batch.requests == 0 {
                return None;
            }
            let rows_here = batch.rows as f64;
            let done = start + mine.base + mine.per_row * rows_here;
            let (mut soonest, mut at) = (f64::MAX, 0);
            for (place, rival) in rivals.iter().enumerate() {
                let finish = rival.free + rival.per_row * rows_here;
                if finish < soonest {
                    (soonest, at) = (finish, place);
                }
            }
            if soonest >= done {
                return Some(skip);
            }
            rivals[at].free = soonest + rivals[at].base;
            skip += batch.requests;
        }
        None
    }

    /// Requests past their objective claim a tenth of the device's time, the oldest first.
    fn overdue(&self, sight: &Sight) -> Option<Pick> {
        let credit = self.devices[sight.device].overdue_credit;
        if credit == 0 {
            return None;
        }
        let mut oldest: Option<(Nanos, Pick)> = None;
        for &id in &self.devices[sight.device].residents {
            let replica = &self.replicas[id];
            let queue = &self.models[replica.model].queue;
            if queue.is_empty() || !self.can_run(sight.now, id) {
                continue;
            }
            for (at, lane) in queue.lanes().iter().enumerate() {
                let Some(head) = lane.waiting.front().filter(|head| head.due < sight.now) else { continue };
                let rows = self.models[replica.model].max_rows().min(replica.rows_limit.unwrap_or(usize::MAX));
                let service = replica.line(lane.key.bucket).predict(lane.rows.min(rows));
                if service <= credit && oldest.as_ref().is_none_or(|(due, _)| head.due < *due) {
                    let source = Source::Lane { lane: at, skip: 0 };
                    oldest = Some((head.due, Pick { replica: id, bound: false, source, rows, score: f64::MAX }));
                }
            }
        }
        oldest.map(|(_, pick)| pick)
    }

    /// What a device earns for requests past their objective while it serves others, or spends on them.
    pub(super) fn count_overdue(&mut self, device: usize, service: Nanos, was_overdue: bool) {
        let credit = &mut self.devices[device].overdue_credit;
        // Enough for one long batch; no more is saved up.
        let most = service.saturating_mul(2).max(*credit);
        *credit = match was_overdue {
            true => credit.saturating_sub(service),
            false => credit.saturating_add(service / OVERDUE_SHARE).min(most.max(1_000_000_000)),
        };
    }

    /// Where no tenant that waits on this device may be served in this round, the next begins.
    fn grant_rounds(&mut self, device: usize) {
        for priority in 0..super::tenants::PRIORITIES as u8 {
            let mut present: Vec<u32> = Vec::new();
            for &id in &self.devices[device].residents {
                let replica = &self.replicas[id];
                let queues = [Some(&self.models[replica.model].queue), replica.bound.as_deref()];
                let lanes = queues.into_iter().flatten().flat_map(|queue| queue.lanes());
                let waits = lanes.filter(|lane| lane.key.priority == priority && !lane.waiting.is_empty());
                present.extend(waits.map(|lane| lane.key.tenant));
            }
            if !present.is_empty() && !present.iter().any(|tenant| self.tenants.is_due(priority, *tenant)) {
                self.tenants.next_round(priority, &present);
            }
        }
    }
}

/// A batch's size.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    requests: usize,
    rows: usize,
}

/// The batch that a lane would give from its `skip`th request on.
fn batch_from(lane: &Lane, skip: usize, rows: usize) -> Size {
    let mut size = Size::default();
    for waiting in lane.waiting.iter().skip(skip) {
        let together = size.rows.saturating_add(waiting.rows);
        if size.requests > 0 && together > rows {
            break;
        }
        size = Size { requests: size.requests + 1, rows: together };
    }
    size
}
