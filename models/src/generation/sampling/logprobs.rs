//! Log-probabilities of a token and of the likeliest others.

use super::choose::likeliest;
use crate::generation::kernels::{ExpSum, LANES, dispatch};

/// Of a token, then of so many likeliest; equal ones by their number.
pub(crate) fn log_probabilities(logits: &[f32], token: u32, alternatives: usize) -> Vec<(u32, f32)> {
    let greatest = likeliest(logits).map_or(0.0, |token| logits[token as usize]);
    let mut values = logits.to_vec();
    values.resize(values.len().next_multiple_of(LANES), f32::NEG_INFINITY);
    let total = dispatch(ExpSum { values: &mut values, greatest, scale: 1.0 });
    let log_total = libm::log(f64::from(total));
    let of = |token: u32| {
        let logit = logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
        (token, (f64::from(logit - greatest) - log_total) as f32)
    };
    let mut best: Vec<(u32, f32)> = Vec::with_capacity(alternatives + 1);
    for (token, &logit) in (0..).zip(logits) {
        if best.len() < alternatives || best.last().is_some_and(|(_, least)| logit > *least) {
            let at = best.partition_point(|(_, other)| *other >= logit);
            best.insert(at, (token, logit));
            best.truncate(alternatives);
        }
    }
    std::iter::once(of(token)).chain(best.into_iter().map(|(token, _)| of(token))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one_and_the_likeliest_come_first() {
        let logits = [0.0, 3.0, -1.0, 3.0, 1.0];
        let all = log_probabilities(&logits, 2, 5);
        assert_eq!(all.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [2, 1, 3, 4, 0, 2]);
        let sum: f64 = all[1..].iter().map(|(_, logprob)| f64::from(*logprob).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
        assert_eq!(log_probabilities(&logits, 0, 0).len(), 1);
    }
}
