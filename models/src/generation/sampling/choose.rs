//! The choice itself: temperature, then top-k, top-p and min-p, then a draw.

use std::cmp::Ordering;

use llguidance::toktrie::SimpleVob;
use orion_proto::Sampling;

use super::{
    penalties::{Counts, leaves_logits},
    random::draw,
};
use crate::generation::kernels::{ExpSum, LANES, dispatch};

/// So many of the likeliest are put in order first where only their sum tells how many are needed.
const FIRST_ORDERED: usize = 256;

/// A lower temperature is no other: what it leaves is the likeliest.
const LEAST_TEMPERATURE: f32 = 1e-6;
/// What exp makes of the greatest difference; who weighs no more is never drawn.
const NO_WEIGHT: f32 = 2e-38;

/// The likeliest token, the lowest of equal ones; none where no logit is a number.
pub(crate) fn likeliest(logits: &[f32]) -> Option<u32> {
    let (vectors, rest) = logits.as_chunks::<LANES>();
    let mut most = [f32::NEG_INFINITY; LANES];
    for vector in vectors {
        for (most, value) in most.iter_mut().zip(vector) {
            *most = if *value > *most { *value } else { *most };
        }
    }
    let greatest =
        most.iter().chain(rest).fold(f32::NEG_INFINITY, |most, value| if *value > most { *value } else { most });
    logits.iter().position(|logit| *logit == greatest).map(|index| index as u32)
}

/// Chooses tokens; keeps its memory from one to the next.
#[derive(Default)]
pub(crate) struct Chooser {
    logits: Vec<f32>,
    candidates: Vec<(f32, u32)>,
}

impl Chooser {
    /// The token at a position. Only those that are `allowed` may be chosen; without it, all may. None where the
    /// logits are no numbers, or none is allowed.
    pub(crate) fn choose(
        &mut self,
        logits: &[f32],
        sampling: &Sampling,
        counts: &Counts,
        position: u64,
        allowed: Option<&SimpleVob>,
    ) -> Option<u32> {
        let greedy = sampling.temperature == 0.0;
        if greedy && leaves_logits(sampling) && allowed.is_none() {
            return likeliest(logits);
        }
        self.logits.clear();
        self.logits.extend_from_slice(logits);
        counts.apply(sampling, &mut self.logits);
        if let Some(allowed) = allowed {
            allowed.iter_unset_entries(|token| {
                if let Some(logit) = self.logits.get_mut(token) {
                    *logit = f32::NEG_INFINITY;
                }
            });
        }
        let best = likeliest(&self.logits)?;
        let greatest = self.logits.get(best as usize).copied().filter(|greatest| greatest.is_finite())?;
        if greedy { Some(best) } else { self.draw(greatest, sampling, draw(sampling.seed, position)) }
    }

    /// The token that a number from 0 to 1 falls on.
    fn draw(&mut self, greatest: f32, sampling: &Sampling, number: f64) -> Option<u32> {
        let vocabulary = self.logits.len();
        self.logits.resize(vocabulary.next_multiple_of(LANES), f32::NEG_INFINITY);
        dispatch(ExpSum {
            values: &mut self.logits,
            greatest,
            scale: 1.0 / sampling.temperature.max(LEAST_TEMPERATURE),
        });
        let weights = &self.logits[..vocabulary];
        let plain = sampling.top_k == 0 && sampling.top_p >= 1.0 && sampling.min_p == 0.0;
        self.candidates.clear();
        self.candidates.extend(weights.iter().copied().zip(0..).filter(|(weight, _)| *weight > NO_WEIGHT));
        if !plain {
            self.narrow(sampling);
        }
        let total: f64 = self.candidates.iter().map(|(weight, _)| f64::from(*weight)).sum();
        let (mut sum, wanted) = (0.0, number * total);
        let fallen = self.candidates.iter().find(|(weight, _)| {
            sum += f64::from(*weight);
            sum > wanted
        });
        // Rounding may leave the sum just below.
        fallen.or(self.candidates.last()).map(|(_, token)| *token)
    }

    /// Leaves the candidates that top-k, top-p and min-p let through, the likeliest first.
    fn narrow(&mut self, sampling: &Sampling) {
        let candidates = &mut self.candidates;
        let most = if sampling.top_k == 0 { candidates.len() } else { candidates.len().min(sampling.top_k as usize) };
        if most < candidates.len() {
            order_first(candidates, most);
            candidates.truncate(most);
        }
        if sampling.top_p < 1.0 {
            let total: f64 = candidates.iter().map(|(weight, _)| f64::from(*weight)).sum();
            let wanted = total * f64::from(sampling.top_p);
            let mut ordered = FIRST_ORDERED;
            let needed = loop {
                order_first(candidates, ordered);
                let mut sum = 0.0;
                let reached = candidates.iter().take(ordered).position(|(weight, _)| {
                    sum += f64::from(*weight);
                    sum >= wanted
                });
                match reached {
                    Some(index) => break index + 1,
                    None if ordered >= candidates.len() => break candidates.len(),
                    None => ordered *= 8,
                }
            };
            candidates.truncate(needed);
        }
        candidates.sort_unstable_by(likelier);
        // The likeliest has the weight exp(0).
        let least = candidates.first().map_or(0.0, |(weight, _)| weight * sampling.min_p);
        candidates.retain(|(weight, _)| *weight >= least);
    }
}

fn likelier(a: &(f32, u32), b: &(f32, u32)) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

/// Brings so many of the likeliest to the front, in order.
fn order_first(candidates: &mut [(f32, u32)], count: usize) {
    if count < candidates.len() {
        candidates.select_nth_unstable_by(count, likelier);
    }
    let count = count.min(candidates.len());
    candidates[..count].sort_unstable_by(likelier);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(count: usize, tokens: &[u32]) -> SimpleVob {
        let mut allowed = SimpleVob::alloc(count);
        tokens.iter().for_each(|token| allowed.allow_token(*token));
        allowed
    }

    fn shares(logits: &[f32], sampling: &Sampling, allowed: Option<&SimpleVob>) -> Vec<f64> {
        let mut chooser = Chooser::default();
        let mut counts = vec![0.0; logits.len()];
        const DRAWS: u64 = 20_000;
        for position in 0..DRAWS {
            let token = chooser.choose(logits, sampling, &Counts::default(), position, allowed).unwrap();
            counts[token as usize] += 1.0 / DRAWS as f64;
        }
        counts
    }

    fn near(got: &[f64], want: &[f64]) {
        assert!(got.iter().zip(want).all(|(got, want)| (got - want).abs() < 0.015), "{got:?}, not {want:?}");
    }

    #[test]
    fn draws_follow_the_probabilities_that_are_left() {
        let logits: Vec<f32> = [0.4f32, 0.3, 0.2, 0.1].iter().map(|p| p.ln() + 5.0).collect();
        let warm = Sampling { temperature: 1.0, seed: 7, ..Sampling::default() };
        near(&shares(&logits, &warm, None), &[0.4, 0.3, 0.2, 0.1]);
        near(&shares(&logits, &Sampling { top_k: 2, ..warm.clone() }, None), &[4.0 / 7.0, 3.0 / 7.0, 0.0, 0.0]);
        near(&shares(&logits, &Sampling { top_p: 0.6, ..warm.clone() }, None), &[4.0 / 7.0, 3.0 / 7.0, 0.0, 0.0]);
        near(&shares(&logits, &Sampling { min_p: 0.4, ..warm.clone() }, None), &[4.0 / 9.0, 3.0 / 9.0, 2.0 / 9.0, 0.0]);
        near(&shares(&logits, &warm, Some(&only(4, &[1, 2, 3]))), &[0.0, 0.5, 1.0 / 3.0, 1.0 / 6.0]);
        let squares: f64 = 0.16 + 0.09 + 0.04 + 0.01;
        let cold = Sampling { temperature: 0.5, ..warm };
        near(&shares(&logits, &cold, None), &[0.16, 0.09, 0.04, 0.01].map(|p| p / squares));
    }

    #[test]
    fn top_p_over_many_equals_a_full_sort() {
        let logits: Vec<f32> = (0..5000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 20) as f32 / 4096.0).collect();
        let sampling = Sampling { temperature: 1.0, top_p: 0.7, ..Sampling::default() };
        let mut all: Vec<(f32, u32)> = logits.iter().copied().zip(0..).collect();
        all.sort_by(likelier);
        let mut chooser = Chooser { logits, ..Chooser::default() };
        chooser.draw(all[0].0, &sampling, 0.0);
        let left: Vec<u32> = chooser.candidates.iter().map(|(_, token)| *token).collect();
        assert!(left.len() > FIRST_ORDERED && left.len() < 4000, "{}", left.len());
        assert_eq!(left, all[..left.len()].iter().map(|(_, token)| *token).collect::<Vec<_>>());
    }

    #[test]
    fn a_number_just_below_one_falls_on_what_is_allowed() {
        for (temperature, number) in [(1.0, 1.0), (1.0, 0.999_999_999), (1e-40, 0.5), (100.0, 1.0)] {
            let sampling = Sampling { temperature, ..Sampling::default() };
            let mut chooser = Chooser { logits: vec![f32::NEG_INFINITY, 2.0, f32::NEG_INFINITY], ..Chooser::default() };
            assert_eq!(chooser.draw(2.0, &sampling, number), Some(1), "{temperature} {number}");
        }
    }

    #[test]
    fn ties_go_to_the_lowest_and_no_number_to_none() {
        let choose = |logits: &[f32], allowed: Option<&SimpleVob>| {
            Chooser::default().choose(logits, &Sampling::default(), &Counts::default(), 0, allowed)
        };
        assert_eq!(choose(&[1.0, 3.0, 3.0], None), Some(1));
        assert_eq!(choose(&[1.0, 3.0, 3.0], Some(&only(3, &[2]))), Some(2));
        assert_eq!(choose(&[1.0, 3.0], Some(&only(2, &[]))), None);
        assert_eq!(choose(&[f32::NAN, 2.0], None), Some(1));
        assert_eq!(choose(&[], None), None);
    }
}
