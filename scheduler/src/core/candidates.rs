//! The batches that a lane of a queue could give, and what deadlines leave of them.

use super::{
    Nanos,
    curve::Line,
    queue::{Lane, Waiting},
};

/// A batch that a lane could give.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub skip: usize,
    /// Rows that may run together.
    pub rows: usize,
    /// Rows that would, what shares the bucket included.
    pub batch: usize,
    /// Of these, rows of other lanes.
    pub fill: usize,
    /// Requests of the lane among them.
    pub requests: usize,
    /// Rows that it may still grow by.
    pub room: usize,
    /// Whether its head is in time only if it takes no longer than predicted.
    pub unsure: bool,
    pub line: Line,
}

/// The batches that a lane could give: the largest that meets its head's deadline, then, where leaving heads makes a
/// larger batch, each of those. Heads that are left stay in the queue. The first that is in time only if predictions hold
/// is among them: were it never run, predictions would stay as they are.
pub(super) struct Candidates<'a> {
    pub lane: &'a Lane,
    pub line: Line,
    pub least: Line,
    pub way: &'a Way,
    pub most: usize,
    /// Rows of other lanes that may fill the batch up.
    pub more: usize,
    pub next: usize,
    /// Rows of the largest so far; a request may have none.
    pub largest: Option<usize>,
    /// Whether one was unsure.
    pub unsure: bool,
}

impl Candidates<'_> {
    pub(super) fn next(&mut self) -> Option<Candidate> {
        loop {
            let skip = self.next;
            let head = self.lane.waiting.get(skip)?;
            let left = self.lane.waiting.len() - skip;
            // Rows are at least requests: a batch cannot grow beyond the most.
            let largest = self.largest.unwrap_or(0);
            if (self.largest.is_some() && largest >= self.most)
                || (largest > 0 && self.lane.rows == self.lane.waiting.len() && left <= largest)
            {
                return None;
            }
            self.next += 1;
            let rows = rows_for(head, [&self.line, &self.least], self.way, self.most);
            let Some((rows, unsure)) = rows.filter(|(_, unsure)| !unsure || !self.unsure) else { continue };
            let candidate = self.candidate(skip, rows, unsure);
            if unsure {
                self.unsure = true;
                return Some(candidate);
            }
            if self.largest.is_none_or(|largest| candidate.batch > largest) {
                self.largest = Some(candidate.batch);
                return Some(candidate);
            }
        }
    }

    fn candidate(&self, skip: usize, rows: usize, unsure: bool) -> Candidate {
        let size = batch_from(self.lane, skip, rows);
        let batch = if skip == 0 { size.rows.max((size.rows + self.more).min(rows)) } else { size.rows };
        let room = self.most.saturating_sub(batch);
        let fill = batch - size.rows;
        Candidate { skip, rows, batch, fill, requests: size.requests, room, unsure, line: self.line }
    }
}

/// A batch's size.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Size {
    pub requests: usize,
    pub rows: usize,
}

/// The batch that a lane would give from its `skip`th request on.
pub(super) fn batch_from(lane: &Lane, skip: usize, rows: usize) -> Size {
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

/// How a batch comes to a device, and its answers from there.
#[derive(Clone, Copy)]
pub(super) struct Way {
    /// When the device is done with what goes before.
    pub start: Nanos,
    /// When a batch without bytes would be there.
    pub arrival: Nanos,
    /// What each byte adds to that, nanoseconds.
    pub per_byte: f64,
    /// Until an answer is back.
    pub answer: Nanos,
}

/// Rows of a batch that has this head, and whether it is in time only if predictions hold: on the second of the lines. None
/// where it cannot be in time; another device may still meet it.
pub(super) fn rows_for(head: &Waiting, lines: [&Line; 2], way: &Way, most: usize) -> Option<(usize, bool)> {
    match rows_until(lines[0], way, head) {
        Some(rows) => Some((rows.min(most), false)),
        None if !head.hard => Some((most, false)),
        None => rows_until(lines[1], way, head).map(|rows| (rows.min(most), true)),
    }
}

/// Largest rows that still meet a request's deadline on this line, if one row does.
pub(super) fn rows_until(line: &Line, way: &Way, head: &Waiting) -> Option<usize> {
    let due = head.due.saturating_sub(way.answer);
    let rows = |start: Nanos, per_row: f64| {
        let room = due.saturating_sub(start) as f64 / line.inflation - line.base;
        if per_row > 0.0 {
            room / per_row + 1e-9
        } else if room >= 0.0 {
            f64::MAX
        } else {
            0.0
        }
    };
    // A batch starts when the device is free and its bytes are there, whichever is later.
    let carried = way.per_byte * head.bytes as f64 / head.rows.max(1) as f64 / line.inflation;
    let rows = rows(way.start, line.per_row).min(rows(way.arrival, line.per_row + carried));
    (rows >= 1.0).then_some(rows as usize)
}
