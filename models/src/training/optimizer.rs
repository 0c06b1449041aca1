//! From a gradient to a step. Each weight by itself, in one order: the same bits on every machine.

use orion_proto::training::Optimizer;

/// Weights, and what the optimizer remembers of the steps before; all as one row of numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Weights {
    pub(super) values: Vec<f32>,
    /// The mean gradient, or the momentum.
    pub(super) first: Vec<f32>,
    /// The mean of squares; empty where the optimizer has none.
    pub(super) second: Vec<f32>,
}

impl Weights {
    pub(super) fn new(values: Vec<f32>, optimizer: &Optimizer) -> Self {
        let count = values.len();
        let [first, second] = lengths(optimizer, count);
        Self { values, first: vec![0.0; first], second: vec![0.0; second] }
    }

    /// Whether what is remembered fits the optimizer.
    pub(super) fn fit(&self, optimizer: &Optimizer) -> bool {
        lengths(optimizer, self.values.len()) == [self.first.len(), self.second.len()]
    }

    /// The step of this number, counted from 0, with this learning rate.
    pub(super) fn step(&mut self, optimizer: &Optimizer, rate: f32, number: u64, gradient: &[f32]) {
        match *optimizer {
            Optimizer::Sgd { momentum, nesterov, weight_decay, .. } => {
                let decayed = |weight: f32, gradient: f32| gradient + weight_decay * weight;
                if momentum == 0.0 {
                    let both = self.values.iter_mut().zip(gradient);
                    return both.for_each(|(weight, gradient)| *weight -= rate * decayed(*weight, *gradient));
                }
                for ((weight, gradient), kept) in self.values.iter_mut().zip(gradient).zip(&mut self.first) {
                    let gradient = decayed(*weight, *gradient);
                    *kept = if number == 0 { gradient } else { momentum * *kept + gradient };
                    *weight -= rate * if nesterov { gradient + momentum * *kept } else { *kept };
                }
            }
            Optimizer::Adamw { betas: [slow, slower], epsilon, weight_decay, .. } => {
                let steps = i32::try_from(number.saturating_add(1)).unwrap_or(i32::MAX);
                // In f64, as PyTorch has these two numbers.
                let left = |beta: f32| 1.0 - f64::from(beta).powi(steps);
                let size = (f64::from(rate) / left(slow)) as f32;
                let scale = left(slower).sqrt() as f32;
                let keep = 1.0 - rate * weight_decay;
                let both = self.first.iter_mut().zip(&mut self.second);
                for ((weight, gradient), (mean, square)) in self.values.iter_mut().zip(gradient).zip(both) {
                    *mean += (1.0 - slow) * (gradient - *mean);
                    *square = slower * *square + (1.0 - slower) * gradient * gradient;
                    *weight = *weight * keep - size * *mean / (square.sqrt() / scale + epsilon);
                }
            }
        }
    }
}

fn lengths(optimizer: &Optimizer, count: usize) -> [usize; 2] {
    match optimizer {
        Optimizer::Sgd { momentum: 0.0, .. } => [0, 0],
        Optimizer::Sgd { .. } => [count, 0],
        Optimizer::Adamw { .. } => [count, count],
    }
}

/// Shortens a gradient to a length where it is longer; its length before.
pub(super) fn clip(gradient: &mut [f32], most: f32) -> f32 {
    // In f64 and in one order: the same on every machine.
    let norm = gradient.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>().sqrt();
    if most > 0.0 && norm > f64::from(most) {
        let scale = (f64::from(most) / (norm + 1e-6)) as f32;
        gradient.iter_mut().for_each(|value| *value *= scale);
    }
    norm as f32
}
