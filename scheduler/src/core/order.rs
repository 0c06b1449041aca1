//! Which batch a device takes next: of each priority the one of most requests per device-second, weighed by urgency, and of
//! these the one whose most urgent request weighs most. Were they weighed by requests alone, one request that is urgent would
//! wait for any flood that makes large batches.

use super::{
    Core, Nanos,
    candidates::{Candidate, Candidates, Way, rows_until},
    queue::{LaneKey, Queue, Waiting},
    tenants::PRIORITIES,
};

/// Weight of each priority's urgency: realtime, critical, high, normal, low.
pub(super) const WEIGHTS: [f64; 5] = [16.0, 8.0, 4.0, 2.0, 1.0];
/// τ as a share of the objective, with nothing and with an objective's worth of work waiting for the device: little work
/// is ordered by deadline, much by requests per second.
const TAU: (f64, f64) = (0.15, 0.37);
/// How much less a batch's later requests count for its urgency, with nothing and with much waiting.
const LATER: (f64, f64) = (0.45, 0.225);
/// Share of the arrivals expected within the slack by which a batch that may still grow counts less.
const GROWTH: f64 = 0.5;
/// A model with other copies counts less: they may take its requests.
const COPIES: f64 = 0.3;
/// Requests of a batch whose urgency is looked at.
const URGENCIES: usize = 32;
/// How much less a batch counts whose head is in time only if it takes no longer than predicted.
const UNSURE: f64 = 0.5;

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
    /// Requests per device-second, weighed: against others of its priority.
    pub score: f64,
    /// The greatest urgency of one request of its priority, weighed: against other priorities.
    pub standing: f64,
    /// Whether it is paid from what the device has saved up for what waits too long.
    pub on_credit: bool,
}

/// What a device sees when it chooses.
pub(super) struct Sight {
    pub now: Nanos,
    pub device: usize,
    pub way: Way,
    /// The predicted work that waits for the device, nanoseconds.
    backlog: f64,
    contended: bool,
}

impl Sight {
    /// How fast the urgency of a request falls with its slack, nanoseconds.
    fn tau(&self, head: &Waiting) -> f64 {
        let window = head.window.max(1) as f64;
        window * (TAU.0 + (TAU.1 - TAU.0) * (self.backlog / window).min(1.0))
    }

    /// Time that a request could still wait if its batch took so long, nanoseconds.
    fn slack(&self, head: &Waiting, service: f64) -> f64 {
        (head.due.saturating_sub(self.way.start + self.way.answer) as f64 - service).max(0.0)
    }
}

impl<T, L: Clone> Core<T, L> {
    /// The batch that a device should take now, if any. Requests that cannot be met even alone are answered on the way.
    pub(super) fn choose(&mut self, now: Nanos, device: usize) -> Option<Pick> {
        self.end_turn(now, device);
        let before = self.devices[device].claim.take();
        // One that was made for what leaves another device is renewed there.
        let moves = before.as_ref().filter(|claim| self.models[claim.model].demanded).cloned();
        if let Some(index) = self.claimant(now, device) {
            self.make_way(now, index, device, before);
        }
        if self.devices[device].claim.is_none() {
            self.devices[device].claim = moves;
        }
        let lead = self.lead(device);
        let way = Way {
            start: self.available(now, device),
            arrival: now.saturating_add(lead),
            per_byte: self.time_per_byte(device),
            answer: lead,
        };
        let mut sight =
            Sight { now, device, way, backlog: self.devices[device].queued as f64, contended: self.tenants.contend() };
        for at in 0..self.devices[device].residents.len() {
            let replica = self.devices[device].residents[at];
            if self.takes_batch(now, replica) {
                self.shed(now, replica);
            }
        }
        if sight.contended {
            self.grant_rounds(now, device);
        }
        if let Some(pick) = self.overdue(&sight) {
            return Some(pick);
        }
        let mut best = self.best(&sight);
        if best.is_none() && sight.contended {
            // Whose turn it is has nothing for this device now: it does not idle for that.
            sight.contended = false;
            best = self.best(&sight);
        }
        best
    }

    fn best(&self, sight: &Sight) -> Option<Pick> {
        let mut best: [Option<Pick>; PRIORITIES] = [None; PRIORITIES];
        for &replica in &self.devices[sight.device].residents {
            if !self.may_take(sight, replica) {
                continue;
            }
            let bound = self.replicas[replica].bound.as_deref();
            let shared = &self.models[self.replicas[replica].model].queue;
            for (queue, is_bound) in [(Some(shared), false), (bound, true)] {
                let Some(queue) = queue.filter(|queue| !queue.is_empty()) else { continue };
                if let Some(pick) = self.group_of(sight, replica, queue, is_bound) {
                    return Some(pick);
                }
                self.best_of(sight, replica, queue, is_bound, &mut best);
            }
        }
        best.into_iter().flatten().reduce(|best, pick| if pick.standing > best.standing { pick } else { best })
    }

    /// Whether a replica's queue is the device's to choose from: a generator's requests begin beside it.
    fn takes_batch(&self, now: Nanos, replica: usize) -> bool {
        let index = self.replicas[replica].model;
        self.takes_requests(replica) && !self.models[index].is_generator() && self.can_run(now, replica)
    }

    /// Whether a replica is there and its breaker lets a batch through.
    pub(super) fn can_run(&self, now: Nanos, id: usize) -> bool {
        let replica = &self.replicas[id];
        replica.serves() && !self.is_stalled(id) && replica.breaker.allows(now) && !self.is_after_its_turn(now, id)
    }

    /// Whether a batch of a replica stands still, or another on its device.
    pub(super) fn is_stalled(&self, id: usize) -> bool {
        let replica = &self.replicas[id];
        replica.stalled || self.devices[replica.device].stalled
    }

    /// Whether a device may choose a batch of a replica.
    pub(super) fn may_take(&self, sight: &Sight, id: usize) -> bool {
        self.takes_batch(sight.now, id) && !self.is_leaving(sight.now, id)
    }

    /// What failed together and may run here. It waited once already: nothing goes before it.
    fn group_of(&self, sight: &Sight, id: usize, queue: &Queue, bound: bool) -> Option<Pick> {
        let replica = &self.replicas[id];
        let at = queue.groups.iter().position(|group| self.may_run_on(group, sight.device))?;
        let group = &queue.groups[at];
        let most = replica.most_rows(self.models[replica.model].max_rows());
        let own: usize = group.waiting.iter().map(|waiting| waiting.rows).sum();
        let head = group.waiting.iter().filter(|waiting| waiting.hard).min_by_key(|waiting| waiting.due);
        let line = replica.line(group.bucket);
        let meets = head.map_or(most, |head| rows_until(&line, &sight.way, head).unwrap_or(0).min(most));
        let rows = if group.alone { own } else { own.max(meets) };
        let (score, standing) = (f64::MAX, f64::MAX);
        Some(Pick { replica: id, bound, source: Source::Group(at), rows, score, standing, on_credit: false })
    }

    /// The best batches of a queue's lanes, by priority, where they are better than what is known.
    fn best_of(&self, sight: &Sight, id: usize, queue: &Queue, bound: bool, best: &mut [Option<Pick>; PRIORITIES]) {
        let replica = &self.replicas[id];
        let most = replica.most_rows(self.models[replica.model].max_rows());
        // The last lane with a batch that others fill up.
        let mut before: Option<LaneKey> = None;
        for (at, lane) in queue.lanes().iter().enumerate() {
            // What fills up the batch of a higher priority in its bucket goes with that.
            let rides = |key: LaneKey| key.bucket == lane.key.bucket && key.priority < lane.key.priority;
            if lane.waiting.is_empty() || before.is_some_and(rides) {
                continue;
            }
            if sight.contended && !self.tenants.is_due(lane.key.priority, lane.key.tenant) {
                continue;
            }
            let line = replica.line(lane.key.bucket);
            let Some(first) = (if bound { Some(0) } else { self.left_to_others(sight, id, lane, most) }) else {
                continue;
            };
            let more = queue.bucket_rows(lane.key.bucket) - lane.rows;
            let least = replica.least_line(lane.key.bucket);
            let (next, way) = (first, &sight.way);
            let mut candidates = Candidates { lane, line, least, way, most, more, next, largest: None, unsure: false };
            while let Some(candidate) = candidates.next() {
                if candidate.fill > 0 {
                    before = Some(lane.key);
                }
                let (score, standing) = self.score(sight, id, queue, at, &candidate);
                let best = &mut best[lane.key.priority as usize];
                // However much less it is worth than another of its priority, it stands for that against the others.
                let standing = best.map_or(standing, |best| best.standing.max(standing));
                match best {
                    Some(best) if score <= best.score => best.standing = standing,
                    best => {
                        let (source, rows) = (Source::Lane { lane: at, skip: candidate.skip }, candidate.rows);
                        *best = Some(Pick { replica: id, bound, source, rows, score, standing, on_credit: false });
                    }
                }
            }
        }
    }

    /// `weight · urgent requests / service(b) · exp(−slack / τ)`, less where the batch may still grow or others may take it;
    /// and `weight · exp(−slack / τ)` of its most urgent request.
    fn score(&self, sight: &Sight, id: usize, queue: &Queue, at: usize, candidate: &Candidate) -> (f64, f64) {
        let (lane, line) = (&queue.lanes()[at], candidate.line);
        let Some(head) = lane.waiting.get(candidate.skip) else { return (0.0, 0.0) };
        let model = &self.models[self.replicas[id].model];
        let window = head.window.max(1) as f64;
        let loaded = (sight.backlog / window).min(1.0);
        let tau = sight.tau(head);
        let later = LATER.0 + (LATER.1 - LATER.0) * loaded;
        let service = (line.base + line.per_row * candidate.batch as f64).max(1.0);
        let slack = sight.slack(head, service * line.inflation);
        let batch = lane.waiting.iter().skip(candidate.skip).take(candidate.requests.min(URGENCIES));
        let urgent: f64 = batch.map(|waiting| (-later * (waiting.due - head.due) as f64 / tau).exp()).sum();
        let urgent = urgent * candidate.requests as f64 / candidate.requests.clamp(1, URGENCIES) as f64;
        let growth = (candidate.room as f64).min(GROWTH * model.arrivals.rate_at(sight.now) * slack)
            / candidate.batch.max(1) as f64;
        let copies = (model.replicas.len() as f64).powf(COPIES);
        let sure = if candidate.unsure { UNSURE } else { 1.0 };
        let (weight, urgency) = (WEIGHTS[lane.key.priority as usize], (-slack / tau).exp());
        let (mut score, mut standing) =
            (weight * urgent / service * urgency * sure / (1.0 + growth) / copies, weight * urgency);
        let mut room = candidate.fill;
        // Those that are more urgent have no batch here that would be in time.
        let rides =
            |key: LaneKey| key.bucket == lane.key.bucket && key.priority >= lane.key.priority && key != lane.key;
        for rider in queue.lanes().iter().filter(|rider| rides(rider.key)) {
            let Some(head) = rider.waiting.front().filter(|_| room > 0) else { continue };
            let rows = room.min(rider.rows);
            let requests = (rider.waiting.len() * rows) as f64 / rider.rows.max(1) as f64;
            let slack = sight.slack(head, service * line.inflation);
            let urgency = WEIGHTS[rider.key.priority as usize] * (-slack / sight.tau(head)).exp();
            score += requests * urgency / service * sure / (1.0 + growth) / copies;
            standing = standing.max(urgency);
            room -= rows;
        }
        (score, standing * sure)
    }

    /// Where no tenant that waits on this device may be served in this round, the next begins.
    fn grant_rounds(&mut self, now: Nanos, device: usize) {
        for priority in 0..super::tenants::PRIORITIES as u8 {
            let mut present: Vec<u32> = Vec::new();
            for &id in &self.devices[device].residents {
                if !self.takes_batch(now, id) {
                    continue;
                }
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
