//! The service curve of one model on one device, corrected by what batches took.

use orion_proto::ServiceCurve;

use super::Nanos;

/// Weight of the newest batch in the correction.
const NEWEST: f64 = 0.1;

/// Predicted seconds, and how far off the prediction has been.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Curve {
    measured: ServiceCurve,
    /// Observed over predicted, smoothed.
    ratio: Option<f64>,
}

impl Curve {
    pub(super) fn new(measured: ServiceCurve) -> Self {
        Self { measured, ratio: None }
    }

    /// Predicted time of a batch of `rows`.
    pub(super) fn predict(&self, rows: usize) -> Nanos {
        (self.corrected().seconds(rows) * 1e9) as Nanos
    }

    pub(super) fn corrected(&self) -> ServiceCurve {
        let ratio = self.ratio.unwrap_or(1.0);
        ServiceCurve {
            base_seconds: self.measured.base_seconds * ratio,
            per_row_seconds: self.measured.per_row_seconds * ratio,
        }
    }

    /// A batch of `rows` took `seconds`.
    pub(super) fn observe(&mut self, rows: usize, seconds: f64) {
        let predicted = self.measured.seconds(rows);
        if predicted <= 0.0 || !seconds.is_finite() || seconds < 0.0 {
            return;
        }
        let newest = (seconds / predicted).clamp(0.001, 1000.0);
        self.ratio = Some(self.ratio.map_or(newest, |old| old + NEWEST * (newest - old)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_batches_take_corrects_the_prediction() {
        let mut curve = Curve::new(ServiceCurve { base_seconds: 0.001, per_row_seconds: 0.001 });
        assert_eq!(curve.predict(3), 4_000_000);
        (0..100).for_each(|_| curve.observe(3, 0.008));
        assert!((7_900_000..=8_100_000).contains(&curve.predict(3)), "{}", curve.predict(3));
        curve.observe(3, f64::NAN);
        assert!((7_900_000..=8_100_000).contains(&curve.predict(3)));
    }
}
