//! The service curve of one model on one device: fitted at warm-up, corrected by every batch that runs.

use orion_proto::ServiceCurve;

use super::{Nanos, fade, fit::Sums};

/// A day, nanoseconds: what takes longer is as good as never, and sums of such must not overflow.
pub(super) const LONGEST: f64 = 86_400e9;
/// Weight that an observation keeps when the next one comes.
const KEPT: f64 = 0.92;
/// Weight of the newest batch in the ratio of observed to promised time.
const NEWEST: f64 = 0.3;
/// Weight of the promise in the fit, in observations, where batches were all of one size: they cannot tell both terms.
const PROMISE: f64 = 1.0;
/// The spread of sizes, as a share of their mean square, from which on the promise counts for nothing.
const TELLING: f64 = 0.125;
/// Batch sizes at which curves are held against each other.
const ANCHORS: [f64; 2] = [1.0, 8.0];
/// The share of batches that the inflated prediction is to cover.
const COVERED: f64 = 0.97;
/// Step of the quantile's tracking.
const STEP: f64 = 0.02;
/// So many times more or less than was expected, one batch alone is not believed.
const CREDIBLE: f64 = 4.0;
/// Batches as which what was learnt before a reload counts.
const RECALLED: f64 = 3.0;
/// How much longer a batch of the next length bucket takes, until it was seen.
pub(super) const NEXT_BUCKET: f64 = 2.0;
/// A promise of a nanosecond is none.
const UNKNOWN: f64 = 1.0;
/// Time without a batch in which half of what is believed beyond the promise is forgotten.
const HALF_LIFE: Nanos = 10_000_000_000;

/// `a + b·n` as decisions read it, nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Line {
    pub base: f64,
    pub per_row: f64,
    /// By how much a prediction is stretched where a deadline depends on it, at least 1.
    pub inflation: f64,
}

impl Line {
    pub(super) fn new(seconds: ServiceCurve) -> Self {
        Self { base: seconds.base_seconds * 1e9, per_row: seconds.per_row_seconds * 1e9, inflation: 1.0 }
    }

    /// Predicted time of a batch of `rows`.
    pub(super) fn predict(&self, rows: usize) -> Nanos {
        self.at(rows as f64).min(LONGEST) as Nanos
    }

    fn at(&self, rows: f64) -> f64 {
        self.base + self.per_row * rows
    }

    /// What each of so many rows takes in the largest batches that they fill, nanoseconds.
    pub(super) fn row_time(&self, rows: usize, most: usize) -> f64 {
        let batch = rows.min(most).max(1) as f64;
        (self.base + self.per_row * batch) / batch
    }

    /// Predicted time of so many rows in such batches.
    pub(super) fn drain(&self, rows: usize, most: usize) -> Nanos {
        (self.row_time(rows, most) * rows as f64).min(LONGEST) as Nanos
    }

    /// The same device, all times multiplied.
    pub(super) fn stretched(&self, factor: f64) -> Self {
        Self { base: self.base * factor, per_row: self.per_row * factor, ..*self }
    }

    /// Whether it predicts more than so many times what another does.
    pub(super) fn exceeds(&self, other: &Self, times: f64) -> bool {
        ANCHORS.iter().any(|rows| self.at(*rows) > other.at(*rows) * times)
    }

    pub(super) fn seconds(&self) -> ServiceCurve {
        ServiceCurve { base_seconds: self.base / 1e9, per_row_seconds: self.per_row / 1e9 }
    }
}

/// Predicted seconds, and how far off the prediction has been.
///
/// Exponentially weighted least squares of `a + b·n` over relative errors, drawn towards the warm-up's curve scaled by the
/// smoothed ratio of observed to promised: a device that slows down as a whole is believed after a few batches. One batch
/// that was held up is not, and what no batch confirms for a while is forgotten where it exceeds the promise.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Curve {
    /// What warm-up measured, or the seed.
    promised: Line,
    /// What batches have taught, as of the last; its inflation is the tracked quantile of observed over predicted.
    learnt: Line,
    /// What is believed now: the same, less what is forgotten.
    line: Line,
    /// Observed over promised, smoothed.
    ratio: Option<f64>,
    /// The same of the last batch alone.
    last: Option<f64>,
    sums: Sums,
    /// When the last batch was seen.
    seen: Nanos,
}

impl Curve {
    pub(super) fn new(promised: ServiceCurve) -> Self {
        let sane = |seconds: f64| if seconds.is_nan() { 0.0 } else { seconds.clamp(0.0, LONGEST / 1e9) };
        let promised = Line::new(ServiceCurve {
            base_seconds: sane(promised.base_seconds),
            per_row_seconds: sane(promised.per_row_seconds),
        });
        Self { promised, learnt: promised, line: promised, ..Self::default() }
    }

    /// A curve that batches have taught before, of a device on which `promised` was measured since.
    pub(super) fn recalled(now: Nanos, promised: ServiceCurve, learnt: Line) -> Self {
        let mut curve = Self::new(promised);
        if curve.promised.predict(1) == 0 {
            curve = Self::new(learnt.seconds());
        }
        let mut ratio = 0.0;
        for rows in ANCHORS {
            let promised = curve.promised.at(rows).max(UNKNOWN);
            curve.sums.add(RECALLED / (promised * promised), rows, learnt.at(rows));
            ratio += learnt.at(rows) / promised / ANCHORS.len() as f64;
        }
        Self { ratio: Some(ratio), learnt, line: learnt, seen: now, ..curve }
    }

    /// What batches have taught, whatever of it is forgotten by now.
    pub(super) fn learnt(&self) -> Line {
        self.learnt
    }

    /// As decisions read it.
    pub(super) fn line(&self) -> Line {
        self.line
    }

    /// Seconds as they are predicted now.
    pub(super) fn corrected(&self) -> ServiceCurve {
        self.line.seconds()
    }

    /// Whether a batch has told anything.
    pub(super) fn was_observed(&self) -> bool {
        self.ratio.is_some()
    }

    /// The same curve on a device that takes `factor` times as long.
    pub(super) fn scaled(&self, factor: f64) -> Self {
        Self::new(self.line.stretched(factor).seconds())
    }

    /// A batch of `rows` took `seconds`.
    pub(super) fn observe(&mut self, now: Nanos, rows: usize, seconds: f64) {
        if !(0.0..=LONGEST / 1e9).contains(&seconds) {
            return;
        }
        self.forget(now);
        let (x, y) = (rows as f64, (seconds * 1e9).max(1.0));
        let (promised, predicted) = (self.promised.at(x).max(UNKNOWN), self.learnt.at(x).max(UNKNOWN));
        let quantile = &mut self.learnt.inflation;
        *quantile += STEP * if y / predicted > *quantile * (1.0 + 1e-9) { COVERED } else { COVERED - 1.0 };
        *quantile = quantile.clamp(1.0, 4.0);
        let y = self.credible(promised, predicted, y);
        let newest = y / promised;
        let ratio = self.ratio.map_or(newest, |old| old + NEWEST * (newest - old));
        self.ratio = Some(ratio);
        self.sums.scale(KEPT);
        // Relative to the promise, not to what is believed: else slow batches would weigh less than fast ones before.
        self.sums.add(1.0 / (promised * promised), x, y);
        self.fit(ratio);
        (self.line, self.seen) = (self.learnt, now);
    }

    /// What a batch counts for that took `y`: far from what was expected, it is believed when the one before was as far.
    fn credible(&mut self, promised: f64, predicted: f64, y: f64) -> f64 {
        let before = self.last.replace(y / promised).map_or(predicted, |last| last * promised);
        // Where nothing was promised, the first batch is all that is known.
        if promised <= UNKNOWN {
            return y;
        }
        y.clamp(predicted.min(before) / CREDIBLE, predicted.max(before) * CREDIBLE)
    }

    fn fit(&mut self, ratio: f64) {
        let mut sums = self.sums;
        let weight = PROMISE * (1.0 - sums.spread() / TELLING).max(0.0);
        for x in ANCHORS {
            let promised = self.promised.at(x);
            if promised > UNKNOWN {
                sums.add(weight / (promised * promised), x, promised * ratio);
            }
        }
        if let Some((base, per_row)) = sums.solve() {
            (self.learnt.base, self.learnt.per_row) = (base, per_row);
        }
    }

    /// Time passes without a batch.
    pub(super) fn fade(&mut self, now: Nanos) {
        let left = self.left(now);
        if left < 1.0 {
            self.line = self.faded(left);
        }
    }

    fn left(&self, now: Nanos) -> f64 {
        if self.ratio.is_some() { fade::left(now.saturating_sub(self.seen), HALF_LIFE) } else { 1.0 }
    }

    /// What was learnt, of which this share is left where it exceeds the promise.
    fn faded(&self, left: f64) -> Line {
        let (learnt, promised) = (self.learnt, self.promised);
        let inflation = 1.0 + (learnt.inflation - 1.0) * left;
        if !learnt.exceeds(&promised, 1.0) {
            return Line { inflation, ..learnt };
        }
        let mix = |learnt: f64, promised: f64| promised + (learnt - promised) * left;
        Line { base: mix(learnt.base, promised.base), per_row: mix(learnt.per_row, promised.per_row), inflation }
    }

    /// What has faded counts as little against the batches to come.
    fn forget(&mut self, now: Nanos) {
        let left = self.left(now);
        if left >= 1.0 {
            return;
        }
        let exceeds = self.learnt.exceeds(&self.promised, 1.0);
        self.learnt = self.faded(left);
        if exceeds {
            self.sums.scale(left);
            self.sums.lie_on(self.learnt.base, self.learnt.per_row);
            self.ratio = self.ratio.map(|ratio| 1.0 + (ratio - 1.0) * left);
            self.last = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn promised() -> Curve {
        Curve::new(ServiceCurve { base_seconds: 0.001, per_row_seconds: 0.001 })
    }

    fn near(curve: &Curve, rows: usize, seconds: f64) {
        let predicted = curve.line().predict(rows) as f64 / 1e9;
        assert!((predicted / seconds - 1.0).abs() < 0.03, "{rows} rows: predicted {predicted}, is {seconds}");
    }

    #[test]
    fn batches_of_several_sizes_teach_both_terms() {
        let mut curve = promised();
        near(&curve, 3, 0.004);
        for round in 0..200 {
            let rows = 1 + round % 16;
            curve.observe(0, rows, 0.004 + 0.0002 * rows as f64);
        }
        near(&curve, 1, 0.0042);
        near(&curve, 16, 0.0072);
    }

    #[test]
    fn batches_of_one_size_scale_the_promise() {
        let mut curve = promised();
        (0..20).for_each(|_| curve.observe(0, 3, 0.012));
        near(&curve, 3, 0.012);
        near(&curve, 8, 0.027);
        curve.observe(0, 3, f64::NAN);
        near(&curve, 3, 0.012);
    }

    #[test]
    fn a_device_that_slows_down_is_believed_after_some_batches() {
        let mut curve = promised();
        (0..100).for_each(|_| curve.observe(0, 4, 0.005));
        (0..30).for_each(|_| curve.observe(0, 4, 0.015));
        assert!(curve.line().predict(4) > 13_000_000, "{}", curve.line().predict(4));
    }

    #[test]
    fn exact_batches_leave_no_inflation_and_noisy_ones_do() {
        let mut exact = promised();
        (0..500).for_each(|_| exact.observe(0, 4, 0.005));
        assert!(exact.line().inflation < 1.03, "{}", exact.line().inflation);
        let mut noisy = promised();
        (0..2000).for_each(|round| noisy.observe(0, 4, if round % 4 == 0 { 0.010 } else { 0.004 }));
        assert!(noisy.line().inflation > 1.3, "{}", noisy.line().inflation);
    }

    #[test]
    fn one_batch_that_was_held_up_is_not_believed_and_the_next_like_it_is() {
        for seconds in [30.0, 0.0] {
            let mut curve = promised();
            (0..300).for_each(|_| curve.observe(0, 1, 0.002));
            curve.observe(0, 1, seconds);
            let predicted = curve.line().predict(1);
            assert!((1_500_000..3_000_000).contains(&predicted), "{predicted} after one of {seconds} s");
            (0..5).for_each(|_| curve.observe(0, 1, 0.002));
            near(&curve, 1, if seconds > 0.0 { 0.00225 } else { 0.0019 });
        }
        let mut curve = promised();
        (0..300).for_each(|_| curve.observe(0, 1, 0.002));
        (0..6).for_each(|_| curve.observe(0, 1, 0.2));
        assert!(curve.line().predict(1) > 60_000_000, "{}", curve.line().predict(1));
    }

    #[test]
    fn what_exceeds_the_promise_is_forgotten_and_what_is_faster_is_not() {
        let minutes = 60_000_000_000;
        for (seconds, later) in [(2.0, 0.002), (0.0005, 0.0005)] {
            let mut curve = promised();
            (0..50).for_each(|_| curve.observe(minutes, 1, seconds));
            near(&curve, 1, seconds);
            curve.fade(minutes + 9_000_000_000);
            near(&curve, 1, seconds);
            curve.fade(4 * minutes);
            near(&curve, 1, later);
            curve.observe(4 * minutes, 1, later);
            near(&curve, 1, later);
        }
    }

    #[test]
    fn where_nothing_was_promised_the_first_batch_is_believed() {
        let mut curve = Curve::new(ServiceCurve { base_seconds: 0.0, per_row_seconds: 1e-170 });
        curve.observe(0, 4, 0.02);
        near(&curve, 4, 0.02);
        curve.observe(0, 4, 0.02);
        near(&curve, 4, 0.02);
    }
}
