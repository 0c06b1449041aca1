//! Training in rounds: workers take steps alone, and put together what came of them.

use serde::{Deserialize, Serialize};

use super::{Optimizer, Plan};

/// Replicas of a training where the plan names no number.
const USUAL_REPLICAS: usize = 2;

/// Replicas take steps alone, each on its own examples, and the mean of how far they came is a step of all (DiLoCo, Douillard et
/// al., arXiv:2311.08105): for slow links.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Local {
    /// Steps that each replica takes between two exchanges.
    pub steps: u64,
    /// Trainings side by side, whoever runs them; 0: as many as the workers it begins with, at least two.
    #[serde(default)]
    pub replicas: usize,
    /// Share of the mean that is taken.
    #[serde(default = "Local::rate")]
    pub learning_rate: f32,
    /// Nesterov momentum of what is taken.
    #[serde(default = "Local::momentum")]
    pub momentum: f32,
}

impl Local {
    /// Not the paper's 0.7 with 0.9, which are for thousands of rounds: of a few dozen they leave 1.2 points of accuracy behind.
    fn rate() -> f32 {
        1.0
    }

    fn momentum() -> f32 {
        0.5
    }
}

/// Each worker learns from its own examples, which never leave it; only how far it came does (FedAvg, McMahan et al.,
/// arXiv:1602.05629).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Federated {
    /// Steps that each worker takes between two exchanges.
    pub local_steps: u64,
    /// Length to which what a worker hands out is shortened.
    #[serde(default = "Federated::clip_norm")]
    pub clip_norm: f32,
    /// Gaussian noise of the sum of all, in lengths of `clip_norm`; 0: none.
    #[serde(default)]
    pub noise: f32,
    /// Chance with which the epsilon that is reported may not hold.
    #[serde(default = "Federated::delta")]
    pub delta: f64,
    /// Share of the mean that is taken.
    #[serde(default = "Federated::rate")]
    pub learning_rate: f32,
    /// Nesterov momentum of what is taken.
    #[serde(default)]
    pub momentum: f32,
}

impl Federated {
    fn clip_norm() -> f32 {
        10.0
    }

    fn delta() -> f64 {
        1e-5
    }

    fn rate() -> f32 {
        1.0
    }

    /// What whoever sees the model after so many rounds may learn of whether one worker took part, as (epsilon, delta)-differential
    /// privacy: Gaussian noise at each of them, every worker in each (Bun and Steinke, arXiv:1605.02065, propositions 1.3 and 1.6).
    /// None without noise.
    pub fn epsilon(&self, rounds: u64) -> Option<f64> {
        let noise = f64::from(self.noise);
        let concentrated = rounds as f64 / (2.0 * noise * noise);
        (noise > 0.0).then(|| concentrated + 2.0 * (concentrated * -self.delta.ln()).sqrt())
    }
}

/// How a training in rounds goes, of either kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Rounds {
    /// Steps between two exchanges.
    pub steps: u64,
    /// Trainings side by side; none: one for each worker.
    pub replicas: Option<usize>,
    /// How the mean of what they did becomes a step.
    pub outer: Optimizer,
}

impl Plan {
    /// Whether it goes in rounds, and how.
    pub fn rounds(&self) -> Option<Rounds> {
        let outer = |learning_rate, momentum: f32| Optimizer::Sgd {
            learning_rate,
            momentum,
            nesterov: momentum > 0.0,
            weight_decay: 0.0,
        };
        match (&self.local, &self.federated) {
            (Some(local), _) => {
                let replicas = match local.replicas {
                    0 => self.workers.least.max(USUAL_REPLICAS),
                    replicas => replicas,
                };
                let outer = outer(local.learning_rate, local.momentum);
                Some(Rounds { steps: local.steps.max(1), replicas: Some(replicas), outer })
            }
            (None, Some(federated)) => {
                let outer = outer(federated.learning_rate, federated.momentum);
                Some(Rounds { steps: federated.local_steps.max(1), replicas: None, outer })
            }
            (None, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_has_its_epsilon() {
        let federated =
            |noise| Federated { local_steps: 1, clip_norm: 1.0, noise, delta: 1e-5, learning_rate: 1.0, momentum: 0.0 };
        assert_eq!(federated(0.0).epsilon(10), None);
        // rho = 100 / 2 = 50 at noise 1; by hand: 50 + 2 * sqrt(50 * 11.5129).
        assert!((federated(1.0).epsilon(100).unwrap() - 97.985).abs() < 0.01);
        assert!(federated(2.0).epsilon(100).unwrap() < federated(1.0).epsilon(100).unwrap());
    }
}
