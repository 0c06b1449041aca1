//! What an idle device leaves to busier ones that are predicted to answer it sooner.

use std::cell::RefCell;

use super::{
    Core, Nanos,
    candidates::batch_from,
    curve::Line,
    order::Sight,
    queue::{Lane, LaneKey},
};

/// Batches of a queue that are looked at for one that this device should take.
const LOOK_AHEAD: usize = 512;
/// Holders that are looked at for one that would answer sooner.
const RIVALS: usize = 64;

/// Another device that holds a model: when a batch that it took next would be done, but for its rows.
struct Rival {
    free: f64,
    per_row: f64,
    base: f64,
}

/// Lanes that a device has left to others whole, while one model is offered to its holders: one that is no faster leaves
/// them too, as long as nothing was given out meanwhile.
#[derive(Debug, Default)]
pub(super) struct LeftLanes(RefCell<Option<Vec<LeftLane>>>);

#[derive(Debug)]
struct LeftLane {
    /// The next number that was to be given out.
    number: u64,
    model: usize,
    key: LaneKey,
    /// Requests and rows that wait, and rows of one batch.
    waiting: (usize, usize, usize),
    start: f64,
    line: Line,
}

impl LeftLane {
    /// Whether of the same lane as it was a device that is no faster leaves as much.
    fn holds_for(&self, other: &Self) -> bool {
        let of = |left: &Self| (left.number, left.model, left.key, left.waiting);
        let (own, line) = (&self.line, &other.line);
        let no_faster = self.start <= other.start && own.base <= line.base && own.per_row <= line.per_row;
        of(self) == of(other) && no_faster
    }
}

impl LeftLanes {
    /// A model is offered to its holders.
    pub(super) fn begin(&self) {
        self.0.borrow_mut().get_or_insert_default().clear();
    }

    pub(super) fn end(&self) {
        self.0.borrow_mut().take();
    }

    fn hold_for(&self, lane: &LeftLane) -> bool {
        self.0.borrow().iter().flatten().any(|left| left.holds_for(lane))
    }

    fn note(&self, lane: LeftLane) {
        if let Some(lanes) = self.0.borrow_mut().as_mut() {
            // Something was given out since: they hold no more.
            if lanes.last().is_some_and(|left| left.number != lane.number) {
                lanes.clear();
            }
            lanes.push(lane);
        }
    }
}

impl<T, L: Clone> Core<T, L> {
    /// How many requests of a lane devices that are busier would still finish sooner; none if all of them.
    pub(super) fn left_to_others(&self, sight: &Sight, id: usize, lane: &Lane, rows: usize) -> Option<usize> {
        let replica = &self.replicas[id];
        let model = &self.models[replica.model];
        if model.replicas.len() < 2 {
            return Some(0);
        }
        let mine = replica.line(lane.key.bucket);
        let start = (sight.way.start + sight.way.answer + replica.penalty(sight.now)) as f64;
        let waiting = (lane.waiting.len(), lane.rows, rows);
        let left =
            LeftLane { number: self.next_number, model: replica.model, key: lane.key, waiting, start, line: mine };
        if self.scratch.left.hold_for(&left) {
            return None;
        }
        let mut rivals = self.rivals(sight.now, id, lane.key.bucket);
        let mut skip = 0;
        for _ in 0..LOOK_AHEAD {
            let batch = batch_from(lane, skip, rows);
            if batch.requests == 0 {
                self.scratch.left.note(left);
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

    /// Other devices that hold a replica's model and run it.
    fn rivals(&self, now: Nanos, id: usize, bucket: u8) -> Vec<Rival> {
        let model = &self.models[self.replicas[id].model];
        let rivals = model.replicas.iter().filter(|other| **other != id).take(RIVALS);
        rivals
            .filter(|other| self.can_run(now, **other) && self.takes_part(self.replicas[**other].device))
            .map(|other| {
                let (device, line) = (self.replicas[*other].device, self.replicas[*other].line(bucket));
                // What else waits for it may go first.
                let others = self.devices[device].queued.saturating_sub(model.share);
                let penalty = self.replicas[*other].penalty(now);
                let free = self.available(now, device) + others + self.lead(device) + penalty;
                Rival { free: free as f64 + line.base, per_row: line.per_row, base: line.base }
            })
            .collect()
    }
}
