//! When to try whether this node's link takes more.

/// Chunks from one trial to the next: at first, and at most.
const OFTEN: usize = 2;
const SELDOM: usize = 64;
/// A trial is a success if the link then takes so many times more.
const MORE: f64 = 1.1;

/// Trials, each of one chunk more than seems enough; they get rarer while they fail.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    due: usize,
    pause: usize,
    /// Whether the last one succeeded: the next need not be cautious.
    bold: bool,
    /// Bytes a second that the link took before the last trial.
    before: f64,
}

impl Default for Probe {
    fn default() -> Self {
        Self { due: OFTEN, pause: OFTEN, bold: false, before: f64::INFINITY }
    }
}

impl Probe {
    /// Whether it is time for one, now that so many chunks are here.
    pub(super) fn is_due(&self, chunks: usize) -> bool {
        chunks >= self.due
    }

    /// Whether it is likely to succeed.
    pub(super) fn is_bold(&self) -> bool {
        self.bold
    }

    /// One begins, on a link that takes so many bytes a second.
    pub(super) fn begin(&mut self, chunks: usize, rate: f64) {
        self.pause = (2 * self.pause).min(SELDOM);
        (self.bold, self.due, self.before) = (false, chunks.saturating_add(self.pause), rate);
    }

    /// A chunk came, and the link takes so many bytes a second.
    pub(super) fn see(&mut self, chunks: usize, rate: f64) {
        if rate > MORE * self.before {
            *self = Self { due: chunks, bold: true, ..Self::default() };
        }
    }
}
