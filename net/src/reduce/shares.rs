//! Who computes which parts: as many each as its speed lets it end together with the others.

use std::ops::Range;

/// How much of what was measured last counts.
const WEIGHT: f64 = 0.3;
/// What is left of a belief that nothing was measured for: who is given no part could never show that it is faster again.
const FADES: f64 = 0.99;

/// Seconds that each member takes for a part. Every member tells all others with each sum, so that all of them know the same
/// and shares need no coordinator.
#[derive(Clone, Debug, PartialEq)]
pub struct Speeds(Vec<f64>);

impl Speeds {
    /// Nothing is known of so many members.
    pub fn new(members: usize) -> Self {
        Self(vec![0.0; members])
    }

    /// What each told; 0: nothing new.
    pub fn told(&mut self, seconds: &[f64]) {
        for (known, told) in self.0.iter_mut().zip(seconds) {
            *known = match told.is_finite() && *told > 0.0 {
                true if *known > 0.0 => *known + WEIGHT * (told - *known),
                true => *told,
                false => *known * FADES,
            };
        }
    }

    /// The parts of each member, in the order of their ranks.
    pub fn shares(&self, parts: usize) -> Vec<Range<usize>> {
        shares(&self.0, parts)
    }
}

/// The parts of members that take these seconds for one (0: as the others): so many each that the last to end does so soonest.
pub fn shares(seconds: &[f64], parts: usize) -> Vec<Range<usize>> {
    let known: Vec<f64> = seconds.iter().copied().filter(|seconds| *seconds > 0.0).collect();
    let usual = if known.is_empty() { 1.0 } else { known.iter().sum::<f64>() / known.len() as f64 };
    let seconds: Vec<f64> = seconds.iter().map(|seconds| if *seconds > 0.0 { *seconds } else { usual }).collect();
    let rate: f64 = seconds.iter().map(|seconds| 1.0 / seconds).sum();
    let mut counts: Vec<usize> =
        seconds.iter().map(|seconds| (parts as f64 / seconds / rate).floor() as usize).collect();
    // Rounding may have given too many by one, never more: what is over is taken from the slowest.
    let mut given: usize = counts.iter().sum();
    while given != parts {
        let after = |rank: usize, count: usize| seconds[rank] * count as f64;
        let ranks = 0..counts.len();
        if given < parts {
            let next = ranks.min_by(|a, b| after(*a, counts[*a] + 1).total_cmp(&after(*b, counts[*b] + 1)));
            let Some(next) = next else { break };
            counts[next] += 1;
            given += 1;
        } else {
            let last = ranks.filter(|rank| counts[*rank] > 0);
            let last = last.max_by(|a, b| after(*a, counts[*a]).total_cmp(&after(*b, counts[*b])));
            let Some(last) = last else { break };
            counts[last] -= 1;
            given -= 1;
        }
    }
    let mut start = 0;
    let share = |count: usize| {
        start += count;
        start - count..start
    };
    counts.into_iter().map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn unequal_members_end_together() {
        assert_eq!(shares(&[0.0, 0.0], 8), [0..4, 4..8]);
        assert_eq!(shares(&[1.0, 2.0], 12), [0..8, 8..12]);
        assert_eq!(shares(&[1.0, 100.0], 8), [0..8, 8..8]);
        assert_eq!(shares(&[0.5, 0.0, 0.5], 3), [0..1, 1..2, 2..3]);
        let mut speeds = Speeds::new(2);
        assert_eq!(speeds.shares(6), [0..3, 3..6]);
        (0..20).for_each(|_| speeds.told(&[1.0, 2.0]));
        speeds.told(&[f64::NAN, 0.0]);
        assert_eq!(speeds.shares(6), [0..4, 4..6]);
        // One that was given nothing is tried again.
        let mut speeds = Speeds::new(2);
        speeds.told(&[1.0, 100.0]);
        assert_eq!(speeds.shares(6)[1].len(), 0);
        let tried = (0..1000).find(|_| {
            speeds.told(&[1.0, 0.0]);
            !speeds.shares(6)[1].is_empty()
        });
        assert!(tried.is_some());
    }

    proptest! {
        #[test]
        fn each_part_is_somebody_s_and_nobody_could_end_sooner_with_one_less(
            seconds in prop::collection::vec(1e-4f64..10.0, 1..12), parts in 0usize..200,
        ) {
            let shares = shares(&seconds, parts);
            prop_assert_eq!(shares.len(), seconds.len());
            prop_assert!(shares.windows(2).all(|pair| pair[0].end == pair[1].start));
            prop_assert_eq!((shares[0].start, shares[seconds.len() - 1].end), (0, parts));
            let ends = |rank: usize, count: usize| seconds[rank] * count as f64;
            let last = (0..seconds.len()).map(|rank| ends(rank, shares[rank].len())).fold(0.0, f64::max);
            let sooner = (0..seconds.len()).map(|rank| ends(rank, shares[rank].len() + 1)).fold(f64::INFINITY, f64::min);
            prop_assert!(parts == 0 || last <= sooner * (1.0 + 1e-9), "{last} {sooner}");
        }
    }
}
