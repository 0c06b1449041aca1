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
/// What a step takes beside its text and tokens, about.
const STEP_BYTES: usize = 64;
/// How long: as long as whoever leads next waits for it.
const KEPT: Duration = WORK_LEASE;

/// Results of jobs that were delivered, the newest last.
#[derive(Default)]
pub(super) struct Answered {
    kept: VecDeque<(Instant, usize, Answer)>,
    bytes: usize,
}

impl Answered {
    /// Keeps what jobs have to show of one for a while.
    pub(super) fn keep(&mut self, mut answer: Answer) {
        let is_good = |attempt: u64| {
            let done = answer.result.results.iter().find(|done| done.attempt == attempt);
            done.is_some_and(|done| done.outcome.is_ok())
        };
        answer.jobs.attempts.retain(|(attempt, _)| is_good(*attempt));
        if answer.jobs.attempts.is_empty() {
            return;
        }
        let outputs = answer.result.results.iter().filter_map(|done| done.outcome.as_ref().ok());
        let outputs: usize = outputs.flat_map(|answer| &answer.outputs).map(|tensor| tensor.data.len()).sum();
        let steps =
            answer.jobs.steps.iter().map(|step| STEP_BYTES + step.delta.text.len() + 4 * step.delta.tokens.len());
        let bytes = outputs + steps.sum::<usize>();
        self.let_go();
        self.bytes += bytes;
        self.kept.push_back((Instant::now(), bytes, answer));
        while self.kept.len() > MOST || self.bytes > MOST_BYTES {
            self.pop();
        }
    }

    /// Those that are kept, the oldest first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Answer> {
        self.kept.iter().map(|(_, _, answer)| answer)
    }

    /// Nobody waits for these attempts of a batch any more (none: for any); whether it was kept.
    pub(super) fn forget(&mut self, batch: u64, attempts: &[u64]) -> bool {
        let Some((_, _, answer)) = self.kept.iter_mut().find(|(_, _, answer)| answer.result.batch == batch) else {
            return false;
        };
        answer.jobs.attempts.retain(|(attempt, _)| !attempts.is_empty() && !attempts.contains(attempt));
        self.kept.retain(|(_, _, answer)| !answer.jobs.attempts.is_empty());
        self.bytes = self.kept.iter().map(|(_, bytes, _)| bytes).sum();
        true
    }

    /// Those that were kept for long enough go.
    pub(super) fn let_go(&mut self) {
        while self.kept.front().is_some_and(|(since, ..)| since.elapsed() > KEPT) {
            self.pop();
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn pop(&mut self) {
        if let Some((_, bytes, _)) = self.kept.pop_front() {
            self.bytes -= bytes;
        }
    }
}
