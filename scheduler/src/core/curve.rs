//! The service curve of one model on one device: fitted at warm-up, corrected by every batch that runs.

use orion_proto::ServiceCurve;

use super::Nanos;

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
/// Batch sizes at which the promise is held against the fit.
const ANCHORS: [f64; 2] = [1.0, 8.0];
/// The share of batches that the inflated prediction is to cover.
const COVERED: f64 = 0.97;
/// Step of the quantile's tracking.
const STEP: f64 = 0.02;

/// `a + b·n` as decisions read it, nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Line {
    pub base: f64,
    pub per_row: f64,
    /// By how much a prediction is stretched where a deadline depends on it, at least 1.
    pub inflation: f64,
}

impl Line {
    /// Predicted time of a batch of `rows`.
    pub(super) fn predict(&self, rows: usize) -> Nanos {
        (self.base + self.per_row * rows as f64).min(LONGEST) as Nanos
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
}

/// Predicted seconds, and how far off the prediction has been.
///
/// Exponentially weighted least squares of `a + b·n` over relative errors, drawn towards the warm-up's curve scaled by the
/// smoothed ratio of observed to promised: a device that slows down as a whole is believed after a few batches.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Curve {
    /// What warm-up measured, or the seed.
    promised: ServiceCurve,
    /// What is believed; its inflation is the tracked quantile of observed over predicted.
    line: Line,
    /// Observed over promised, smoothed.
    ratio: Option<f64>,
    sums: Sums,
}

/// Weighted sums of the normal equations.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    w: f64,
    x: f64,
    xx: f64,
    y: f64,
    xy: f64,
}

impl Sums {
    fn add(&mut self, weight: f64, x: f64, y: f64) {
        self.w += weight;
        self.x += weight * x;
        self.xx += weight * x * x;
        self.y += weight * y;
        self.xy += weight * x * y;
    }

    fn fade(&mut self) {
        for sum in [&mut self.w, &mut self.x, &mut self.xx, &mut self.y, &mut self.xy] {
            *sum *= KEPT;
        }
    }

    /// `a` and `b` with neither below 0.
    fn solve(&self) -> Option<(f64, f64)> {
        let determinant = self.w * self.xx - self.x * self.x;
        if self.w <= 0.0 || self.xx <= 0.0 {
            return None;
        }
        let (a, b) = match determinant > 1e-9 * self.w * self.xx {
            true => (
                (self.y * self.xx - self.x * self.xy) / determinant,
                (self.w * self.xy - self.x * self.y) / determinant,
            ),
            false => (0.0, self.xy / self.xx),
        };
        Some(match (a < 0.0, b < 0.0) {
            (true, _) => (0.0, (self.xy / self.xx).max(0.0)),
            (_, true) => ((self.y / self.w).max(0.0), 0.0),
            _ => (a, b),
        })
    }
}

impl Curve {
    pub(super) fn new(promised: ServiceCurve) -> Self {
        let sane = |seconds: f64| if seconds.is_nan() { 0.0 } else { seconds.clamp(0.0, LONGEST / 1e9) };
        let promised =
            ServiceCurve { base_seconds: sane(promised.base_seconds), per_row_seconds: sane(promised.per_row_seconds) };
        Self {
            promised,
            line: Line { base: promised.base_seconds * 1e9, per_row: promised.per_row_seconds * 1e9, inflation: 1.0 },
            ratio: None,
            sums: Sums::default(),
        }
    }

    /// As decisions read it.
    pub(super) fn line(&self) -> Line {
        self.line
    }

    /// Seconds as they are predicted now.
    pub(super) fn corrected(&self) -> ServiceCurve {
        ServiceCurve { base_seconds: self.line.base / 1e9, per_row_seconds: self.line.per_row / 1e9 }
    }

    /// Whether a batch has told anything.
    pub(super) fn was_observed(&self) -> bool {
        self.ratio.is_some()
    }

    /// The same curve on a device that takes `factor` times as long.
    pub(super) fn scaled(&self, factor: f64) -> Self {
        let ServiceCurve { base_seconds, per_row_seconds } = self.corrected();
        Self::new(ServiceCurve { base_seconds: base_seconds * factor, per_row_seconds: per_row_seconds * factor })
    }

    /// A batch of `rows` took `seconds`.
    pub(super) fn observe(&mut self, rows: usize, seconds: f64) {
        let promised = self.promised.seconds(rows);
        let predicted = self.line.base + self.line.per_row * rows as f64;
        if promised <= 0.0 || predicted <= 0.0 || !(0.0..=LONGEST / 1e9).contains(&seconds) {
            return;
        }
        let (x, y) = (rows as f64, seconds * 1e9);
        let error = (y / predicted).clamp(0.001, 1000.0);
        let quantile = &mut self.line.inflation;
        *quantile += STEP * if error > *quantile * (1.0 + 1e-9) { COVERED } else { COVERED - 1.0 };
        *quantile = quantile.clamp(1.0, 4.0);
        let newest = (seconds / promised).clamp(0.001, 1000.0);
        let ratio = self.ratio.map_or(newest, |old| old + NEWEST * (newest - old));
        self.ratio = Some(ratio);
        self.sums.fade();
        // Relative to the promise, not to what is believed: else slow batches would weigh less than fast ones before.
        self.sums.add(1.0 / (promised * promised * 1e18), x, y);
        self.fit(ratio);
    }

    fn fit(&mut self, ratio: f64) {
        let mut sums = self.sums;
        let spread = (sums.w * sums.xx - sums.x * sums.x) / (sums.w * sums.xx).max(f64::MIN_POSITIVE);
        let weight = PROMISE * (1.0 - spread / TELLING).max(0.0);
        for x in ANCHORS {
            let promised = (self.promised.base_seconds + self.promised.per_row_seconds * x) * 1e9;
            if promised > 0.0 {
                sums.add(weight / (promised * promised), x, promised * ratio);
            }
        }
        if let Some((base, per_row)) = sums.solve() {
            (self.line.base, self.line.per_row) = (base, per_row);
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
            curve.observe(rows, 0.004 + 0.0002 * rows as f64);
        }
        near(&curve, 1, 0.0042);
        near(&curve, 16, 0.0072);
    }

    #[test]
    fn batches_of_one_size_scale_the_promise() {
        let mut curve = promised();
        (0..20).for_each(|_| curve.observe(3, 0.012));
        near(&curve, 3, 0.012);
        near(&curve, 8, 0.027);
        curve.observe(3, f64::NAN);
        near(&curve, 3, 0.012);
    }

    #[test]
    fn a_device_that_slows_down_is_believed_after_some_batches() {
        let mut curve = promised();
        (0..100).for_each(|_| curve.observe(4, 0.005));
        (0..30).for_each(|_| curve.observe(4, 0.015));
        assert!(curve.line().predict(4) > 13_000_000, "{}", curve.line().predict(4));
    }

    #[test]
    fn exact_batches_leave_no_inflation_and_noisy_ones_do() {
        let mut exact = promised();
        (0..500).for_each(|_| exact.observe(4, 0.005));
        assert!(exact.line().inflation < 1.03, "{}", exact.line().inflation);
        let mut noisy = promised();
        (0..2000).for_each(|round| noisy.observe(4, if round % 4 == 0 { 0.010 } else { 0.004 }));
        assert!(noisy.line().inflation > 1.3, "{}", noisy.line().inflation);
    }
}
