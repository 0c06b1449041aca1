//! The time that a run measures, after its warm-up.

use std::time::{Duration, Instant};

use indicatif::ProgressBar;

const REDRAW: Duration = Duration::from_millis(200);

/// When a run starts, starts to count, and ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    start: Instant,
    begin: Instant,
    end: Instant,
}

impl Window {
    /// A window that begins `warmup` from now and lasts `seconds`.
    pub(crate) fn from_now(warmup: Duration, seconds: Duration) -> Self {
        let start = Instant::now();
        Self { start, begin: start + warmup, end: start + warmup + seconds }
    }

    /// Whether an answer at this time counts.
    pub(crate) fn counts(&self, at: Instant) -> bool {
        (self.begin..self.end).contains(&at)
    }

    /// Whether no request may start any more.
    pub(crate) fn is_over(&self, at: Instant) -> bool {
        at >= self.end
    }

    /// How long until it ends.
    pub(crate) fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// Sleeps until counting starts.
    pub(crate) async fn wait_for_begin(&self, bar: &ProgressBar) {
        self.wait(self.begin, bar).await;
    }

    /// Sleeps until the run ends.
    pub(crate) async fn wait_for_end(&self, bar: &ProgressBar) {
        self.wait(self.end, bar).await;
    }

    async fn wait(&self, until: Instant, bar: &ProgressBar) {
        loop {
            let now = Instant::now();
            let share = (now - self.start).as_secs_f64() / (self.end - self.start).as_secs_f64();
            bar.set_position((share.clamp(0.0, 1.0) * 100.0) as u64);
            if now >= until {
                return;
            }
            // A hidden bar needs no redraw, and a sleeping client takes no CPU from the server it measures.
            let step = if bar.is_hidden() { until - now } else { REDRAW.min(until - now) };
            tokio::time::sleep(step).await;
        }
    }
}
