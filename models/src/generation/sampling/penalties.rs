//! Which tokens were there, and what that takes off their logits.

use std::collections::HashMap;

use orion_proto::Sampling;

/// How often each token was there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// Of a token: whether it is in the prompt or was generated, and how often it was generated.
    seen: HashMap<u32, u32>,
}

impl Counts {
    /// Of a prompt.
    pub(crate) fn new(prompt: &[u32]) -> Self {
        Self { seen: prompt.iter().map(|token| (*token, 0)).collect() }
    }

    /// A token was generated.
    pub(crate) fn add(&mut self, token: u32) {
        *self.seen.entry(token).or_default() += 1;
    }

    /// Biases, then penalties.
    pub(super) fn apply(&self, sampling: &Sampling, logits: &mut [f32]) {
        for (token, bias) in &sampling.logit_bias {
            if let Some(logit) = logits.get_mut(*token as usize) {
                *logit += bias;
            }
        }
        if !penalises(sampling) {
            return;
        }
        for (token, count) in &self.seen {
            let Some(logit) = logits.get_mut(*token as usize) else { continue };
            *logit =
                if *logit > 0.0 { *logit / sampling.repetition_penalty } else { *logit * sampling.repetition_penalty };
            if *count > 0 {
                *logit -= sampling.presence_penalty + sampling.frequency_penalty * *count as f32;
            }
        }
    }
}

fn penalises(sampling: &Sampling) -> bool {
    sampling.repetition_penalty != 1.0 || sampling.presence_penalty != 0.0 || sampling.frequency_penalty != 0.0
}

/// Whether the logits are taken as they are.
pub(super) fn leaves_logits(sampling: &Sampling) -> bool {
    sampling.logit_bias.is_empty() && !penalises(sampling)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_penalty_takes_its_own() {
        let mut counts = Counts::new(&[0, 1]);
        counts.add(1);
        counts.add(1);
        counts.add(2);
        let apply = |sampling: Sampling| {
            let mut logits = [2.0, -2.0, 2.0, 2.0];
            counts.apply(&sampling, &mut logits);
            logits
        };
        let plain = Sampling::default();
        assert_eq!(apply(Sampling { repetition_penalty: 2.0, ..plain.clone() }), [1.0, -4.0, 1.0, 2.0]);
        assert_eq!(apply(Sampling { presence_penalty: 0.5, ..plain.clone() }), [2.0, -2.5, 1.5, 2.0]);
        assert_eq!(apply(Sampling { frequency_penalty: 0.5, ..plain.clone() }), [2.0, -3.0, 1.5, 2.0]);
        assert_eq!(apply(Sampling { logit_bias: vec![(3, -1.0), (9, 1.0)], ..plain }), [2.0, -2.0, 2.0, 1.0]);
    }
}
