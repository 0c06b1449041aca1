//! Requests of one model that wait: lanes in deadline order, and groups that were formed by a failure.

use std::collections::VecDeque;

use super::{Nanos, RequestKey, order::WEIGHTS};

/// A request that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    /// The deadline, or where there is none the objective by which it is ordered.
    pub due: Nanos,
    /// From arrival to `due`.
    pub window: Nanos,
    /// Whether `due` is a deadline: after it, the answer is worth nothing.
    pub hard: bool,
    pub rows: usize,
    pub bytes: usize,
    pub key: RequestKey,
}

impl Waiting {
    fn order(&self) -> (Nanos, u64) {
        (self.due, self.key.serial)
    }

    /// From when on it has waited for longer than its model's objective, whatever its deadline.
    pub(super) fn overdue_from(&self, objective: Nanos) -> Nanos {
        self.due.saturating_sub(self.window).saturating_add(self.window.min(objective))
    }
}

/// Which requests may share a lane. Sorted as batches are filled: the highest priority first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LaneKey {
    /// Of similar length, so that padding one to the other costs little.
    pub bucket: u8,
    pub priority: u8,
    pub tenant: u32,
}

/// Requests of one length bucket, priority and tenant, the earliest due first.
#[derive(Debug)]
pub(super) struct Lane {
    pub key: LaneKey,
    pub rows: usize,
    /// Requests with a deadline.
    pub hard: usize,
    pub waiting: VecDeque<Waiting>,
}

/// Requests that run together, and nowhere where one of them has failed.
#[derive(Debug)]
pub(super) struct Group {
    pub waiting: Vec<Waiting>,
    pub bucket: u8,
    /// Since when they wait again.
    pub since: Nanos,
    /// The highest among them.
    pub priority: u8,
    /// Part of a batch that failed: joined by others, it could not be told which request is to blame.
    pub alone: bool,
}

/// What waits for one model.
#[derive(Debug, Default)]
pub(super) struct Queue {
    lanes: Vec<Lane>,
    pub groups: VecDeque<Group>,
    len: usize,
    rows: usize,
}

/// Empty lanes that are kept for their next request.
const SPARE_LANES: usize = 4;

impl Queue {
    /// Requests that wait.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The same, each counted by the weight of its priority.
    pub(super) fn weight(&self) -> f64 {
        let lanes = self.lanes.iter().map(|lane| lane.waiting.len() as f64 * WEIGHTS[lane.key.priority as usize]);
        let groups = self.groups.iter().map(|group| group.waiting.len() as f64 * WEIGHTS[group.priority as usize]);
        lanes.sum::<f64>() + groups.sum::<f64>()
    }

    /// Mean weight of what waits.
    pub(super) fn mean_weight(&self) -> f64 {
        self.weight() / self.len.max(1) as f64
    }

    /// Weight of the highest priority of what waits: what is less urgent comes along with it. 0 where nothing waits.
    pub(super) fn most_weight(&self) -> f64 {
        let lanes = self.lanes.iter().filter(|lane| !lane.waiting.is_empty()).map(|lane| lane.key.priority);
        let most = lanes.chain(self.groups.iter().map(|group| group.priority)).min();
        most.map_or(0.0, |priority| WEIGHTS[priority as usize])
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Rows that wait.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// Puts a request in its place.
    pub(super) fn push(&mut self, key: LaneKey, waiting: Waiting) {
        let at = match self.lanes.binary_search_by_key(&key, |lane| lane.key) {
            Ok(at) => at,
            Err(at) => {
                self.lanes.insert(at, Lane { key, rows: 0, hard: 0, waiting: VecDeque::new() });
                at
            }
        };
        let lane = &mut self.lanes[at];
        // Nearly always the last: due times mostly grow.
        let place = match lane.waiting.back() {
            Some(last) if last.order() > waiting.order() => {
                lane.waiting.partition_point(|other| other.order() <= waiting.order())
            }
            _ => lane.waiting.len(),
        };
        lane.waiting.insert(place, waiting);
        lane.rows += waiting.rows;
        lane.hard += usize::from(waiting.hard);
        self.count(1, waiting.rows as isize);
    }

    /// Puts a group in line; it goes before the lanes.
    pub(super) fn push_group(&mut self, group: Group) {
        let rows: usize = group.waiting.iter().map(|waiting| waiting.rows).sum();
        self.count(group.waiting.len() as isize, rows as isize);
        self.groups.push_back(group);
    }

    pub(super) fn take_group(&mut self, at: usize) -> Option<Group> {
        let group = self.groups.remove(at)?;
        let rows: usize = group.waiting.iter().map(|waiting| waiting.rows).sum();
        self.count(-(group.waiting.len() as isize), -(rows as isize));
        Some(group)
    }

    fn count(&mut self, requests: isize, rows: isize) {
        self.len = self.len.saturating_add_signed(requests);
        self.rows = self.rows.saturating_add_signed(rows);
    }

    /// Takes the first request of a lane.
    pub(super) fn pop(&mut self, lane: usize) -> Option<Waiting> {
        let lane = self.lanes.get_mut(lane)?;
        let waiting = lane.waiting.pop_front()?;
        lane.rows -= waiting.rows;
        lane.hard -= usize::from(waiting.hard);
        self.count(-1, -(waiting.rows as isize));
        Some(waiting)
    }

    /// Takes a request out of its lane or group.
    pub(super) fn remove(&mut self, key: LaneKey, due: Nanos, request: RequestKey) -> bool {
        if let Ok(at) = self.lanes.binary_search_by_key(&key, |lane| lane.key) {
            let lane = &mut self.lanes[at];
            let place = lane.waiting.binary_search_by_key(&(due, request.serial), Waiting::order);
            if let Some(waiting) = place.ok().and_then(|place| lane.waiting.remove(place)) {
                lane.rows -= waiting.rows;
                lane.hard -= usize::from(waiting.hard);
                self.count(-1, -(waiting.rows as isize));
                return true;
            }
        }
        for group in &mut self.groups {
            if let Some(place) = group.waiting.iter().position(|waiting| waiting.key == request) {
                let rows = group.waiting.remove(place).rows;
                self.count(-1, -(rows as isize));
                self.groups.retain(|group| !group.waiting.is_empty());
                return true;
            }
        }
        false
    }

    /// Everything that waits, in no order; the queue is empty afterwards.
    pub(super) fn drain(&mut self) -> Vec<RequestKey> {
        let groups = self.groups.drain(..).flat_map(|group| group.waiting);
        let all = groups
            .map(|waiting| waiting.key)
            .chain(self.lanes.drain(..).flat_map(|lane| lane.waiting.into_iter().map(|waiting| waiting.key)));
        let all = all.collect();
        (self.len, self.rows) = (0, 0);
        all
    }

    /// Forgets lanes that nobody uses.
    pub(super) fn tidy(&mut self) {
        if self.lanes.len() > SPARE_LANES {
            self.lanes.retain(|lane| !lane.waiting.is_empty());
        }
    }

    /// The earliest due of each lane, and what waits in groups.
    fn heads(&self) -> impl Iterator<Item = &Waiting> {
        let lanes = self.lanes.iter().filter_map(|lane| lane.waiting.front());
        lanes.chain(self.groups.iter().flat_map(|group| &group.waiting))
    }

    /// The earliest due of all that waits.
    pub(super) fn head(&self) -> Option<Waiting> {
        match (self.lanes.as_slice(), self.groups.is_empty()) {
            ([lane], true) => lane.waiting.front().copied(),
            _ => self.heads().min_by_key(|waiting| waiting.order()).copied(),
        }
    }

    /// From when on a head has waited for longer than the objective.
    pub(super) fn overdue_from(&self, objective: Nanos) -> Option<Nanos> {
        self.heads().map(|waiting| waiting.overdue_from(objective)).min()
    }

    /// Whether anything waits that is wanted whenever it comes.
    pub(super) fn has_patient(&self) -> bool {
        let soft = |group: &Group| group.waiting.iter().any(|waiting| !waiting.hard);
        self.lanes.iter().any(|lane| lane.hard < lane.waiting.len()) || self.groups.iter().any(soft)
    }

    /// The latest due of all that waits.
    pub(super) fn last_due(&self) -> Option<Nanos> {
        self.lanes.iter().filter_map(|lane| lane.waiting.back()).map(|waiting| waiting.due).max()
    }

    /// Requests that are due at `limit` or later, or have no deadline.
    pub(super) fn due_from(&self, limit: Nanos) -> usize {
        let lost = |lane: &Lane| lane.waiting.partition_point(|waiting| waiting.due < limit).min(lane.hard);
        let lanes: usize = self.lanes.iter().map(|lane| lane.waiting.len() - lost(lane)).sum();
        let grouped = self.groups.iter().flat_map(|group| &group.waiting);
        lanes + grouped.filter(|waiting| !waiting.hard || waiting.due >= limit).count()
    }

    /// Rows of one bucket that wait in lanes.
    pub(super) fn bucket_rows(&self, bucket: u8) -> usize {
        match self.lanes.as_slice() {
            [lane] => lane.rows,
            lanes => lanes.iter().filter(|lane| lane.key.bucket == bucket).map(|lane| lane.rows).sum(),
        }
    }
}
