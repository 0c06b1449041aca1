//! Results of jobs that were delivered lately. A scheduler may be gone before it has written one down: whoever follows it on asks.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use orion_net::WORK_LEASE;

use super::Answer;

/// Results that are kept, and bytes of their tensors: beyond, the oldest are run again where they are asked for.
const MOST: usize = 256;
const MOST_BYTES: usize = 32 << 20;
/// How long: what a scheduler has had for so long is on its disk.
const KEPT: Duration = WORK_LEASE;

/// Results of jobs that were delivered, the newest last.
#[derive(Default)]
pub(super) struct Answered {
    kept: VecDeque<(Instant, usize, Answer)>,
    bytes: usize,
}

impl Answered {
    /// Keeps one for a while.
    pub(super) fn keep(&mut self, answer: Answer) {
        let outputs = answer.result.results.iter().filter_map(|done| done.outcome.as_ref().ok());
        let bytes = outputs.flat_map(|answer| &answer.outputs).map(|tensor| tensor.data.len()).sum();
        self.let_go();
        self.bytes += bytes;
        self.kept.push_back((Instant::now(), bytes, answer));
        while self.kept.len() > MOST || self.bytes > MOST_BYTES {
            self.pop();
        }
    }

    /// Those that are kept.
    pub(super) fn iter(&mut self) -> impl Iterator<Item = &Answer> {
        self.let_go();
        self.kept.iter().map(|(_, _, answer)| answer)
    }

    /// Takes those out that schedulers of other epochs got.
    pub(super) fn of_others(&mut self, epoch: u64) -> Vec<Answer> {
        self.let_go();
        let (others, own) = self.kept.drain(..).partition(|(_, _, answer)| answer.result.epoch != epoch);
        self.kept = own;
        self.bytes = self.kept.iter().map(|(_, bytes, _)| bytes).sum();
        let others: VecDeque<(Instant, usize, Answer)> = others;
        others.into_iter().map(|(_, _, answer)| answer).collect()
    }

    /// Nobody waits for this batch's any more; whether it was kept.
    pub(super) fn forget(&mut self, batch: u64) -> bool {
        let before = self.kept.len();
        self.kept.retain(|(_, _, answer)| answer.result.batch != batch);
        self.bytes = self.kept.iter().map(|(_, bytes, _)| bytes).sum();
        self.kept.len() < before
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn let_go(&mut self) {
        while self.kept.front().is_some_and(|(since, ..)| since.elapsed() > KEPT) {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some((_, bytes, _)) = self.kept.pop_front() {
            self.bytes -= bytes;
        }
    }
}
