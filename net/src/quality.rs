//! How good a link is, by what was seen of it while it was used.

use std::fmt;

/// What was seen of a link; what is not known is none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LinkQuality {
    /// Seconds of a usual round trip.
    pub round_trip_seconds: Option<f64>,
    /// Seconds that a slow round trip takes more.
    pub jitter_seconds: Option<f64>,
    /// The share of segments that were sent again, 0 to 1.
    pub loss: Option<f64>,
    /// Bytes a second.
    pub bytes_per_second: Option<f64>,
}

/// A link in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // the words say it
pub enum Grade {
    Excellent,
    Good,
    Fair,
    Poor,
    Critical,
}

impl Grade {
    const ALL: [Self; 5] = [Self::Excellent, Self::Good, Self::Fair, Self::Poor, Self::Critical];

    /// The word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Excellent => "excellent",
            Self::Good => "good",
            Self::Fair => "fair",
            Self::Poor => "poor",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Grade {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.name())
    }
}

/// The most that each grade but the last allows: a metropolitan network, a country, a continent, a satellite.
const ROUND_TRIPS: [f64; 4] = [0.005, 0.03, 0.1, 0.3];
const JITTERS: [f64; 4] = [0.002, 0.01, 0.04, 0.15];
const LOSSES: [f64; 4] = [0.000_1, 0.001, 0.01, 0.05];
/// The least: gigabit, a hundred megabits, a home's, a radio's.
const RATES: [f64; 4] = [100e6, 10e6, 2e6, 250e3];

impl LinkQuality {
    /// Its grade, that of its worst figure; none while nothing is known.
    pub fn grade(&self) -> Option<Grade> {
        let most = |value: Option<f64>, limits: [f64; 4]| {
            value.map(|value| Grade::ALL[limits.iter().filter(|limit| value > **limit).count()])
        };
        let least = self.bytes_per_second.map(|rate| Grade::ALL[RATES.iter().filter(|limit| rate < **limit).count()]);
        let grades = [
            most(self.round_trip_seconds, ROUND_TRIPS),
            most(self.jitter_seconds, JITTERS),
            most(self.loss, LOSSES),
            least,
        ];
        grades.into_iter().flatten().max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_as_good_as_its_worst_figure() {
        let fine = LinkQuality {
            round_trip_seconds: Some(0.000_2),
            jitter_seconds: Some(0.000_1),
            loss: Some(0.0),
            bytes_per_second: Some(1e9),
        };
        assert_eq!(LinkQuality::default().grade(), None);
        assert_eq!(fine.grade(), Some(Grade::Excellent));
        assert_eq!(LinkQuality { round_trip_seconds: Some(0.02), ..fine }.grade(), Some(Grade::Good));
        assert_eq!(LinkQuality { jitter_seconds: Some(0.03), ..fine }.grade(), Some(Grade::Fair));
        assert_eq!(LinkQuality { loss: Some(0.02), ..fine }.grade(), Some(Grade::Poor));
        assert_eq!(LinkQuality { bytes_per_second: Some(1e5), ..fine }.grade(), Some(Grade::Critical));
        assert_eq!(LinkQuality { loss: Some(0.02), ..Default::default() }.grade(), Some(Grade::Poor));
        assert_eq!(Grade::Critical.to_string(), "critical");
    }
}
