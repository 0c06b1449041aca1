//! Weighted least squares of a line, kept as running sums.

/// Weighted sums of the normal equations of `a + b·x`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sums {
    w: f64,
    x: f64,
    xx: f64,
    y: f64,
    xy: f64,
}

impl Sums {
    pub(super) fn add(&mut self, weight: f64, x: f64, y: f64) {
        self.w += weight;
        self.x += weight * x;
        self.xx += weight * x * x;
        self.y += weight * y;
        self.xy += weight * x * y;
    }

    /// All that was added counts so many times as much.
    pub(super) fn scale(&mut self, factor: f64) {
        for sum in [&mut self.w, &mut self.x, &mut self.xx, &mut self.y, &mut self.xy] {
            *sum *= factor;
        }
    }

    /// What was added is taken to lie on this line.
    pub(super) fn lie_on(&mut self, a: f64, b: f64) {
        (self.y, self.xy) = (a * self.w + b * self.x, a * self.x + b * self.xx);
    }

    /// How far apart the sizes are: the square of their spread as a share of their mean square.
    pub(super) fn spread(&self) -> f64 {
        (self.w * self.xx - self.x * self.x) / (self.w * self.xx).max(f64::MIN_POSITIVE)
    }

    /// `a` and `b` with neither below 0.
    pub(super) fn solve(&self) -> Option<(f64, f64)> {
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
