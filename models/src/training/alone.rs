//! A round of a replica: steps that it takes alone, from where all are, and how far it came.
//!
//! Its optimizer begins anew with each round, so that what comes of a round follows from the weights and the replica's number
//! alone: whoever runs it, and wherever it is run again, it is the same bits.

use candle_core::Tensor;
use orion_proto::{
    Result,
    training::{Federated, Plan},
};
use rand_distr::{Distribution, StandardNormal};

use super::{
    EXTRAS,
    data::{Part, mix, places},
    gradient::{Sums, gradient},
    optimizer::{Weights, clip},
    task::{Task, tensors},
};

/// Steps of one replica in one round, as far as they were taken.
pub(super) struct Alone {
    weights: Weights,
    tensors: Vec<Tensor>,
    /// Of the micro-batches of the step that is being taken.
    gradient: Vec<f32>,
    micro_batch: usize,
    taken: u64,
    seen: Sums,
}

/// Where a round begins, and which replica's it is.
pub(super) struct Round<'a> {
    pub(super) plan: &'a Plan,
    pub(super) task: &'a dyn Task,
    /// The weights of all.
    pub(super) weights: &'a [f32],
    /// Steps that were taken before, in this round, and in all.
    pub(super) step: u64,
    pub(super) length: u64,
    pub(super) steps: u64,
    pub(super) replica: u64,
    pub(super) replicas: u64,
}

impl Alone {
    pub(super) fn new(round: &Round<'_>) -> Result<Self> {
        let weights = Weights::new(round.weights.to_vec(), &round.plan.optimizer);
        let tensors = tensors(round.task.parameters(), &weights.values, true)?;
        Ok(Self { weights, tensors, gradient: Vec::new(), micro_batch: 0, taken: 0, seen: Sums::default() })
    }

    /// Computes one micro-batch more; whether the round is over.
    pub(super) fn advance(&mut self, round: &Round<'_>) -> Result<bool> {
        let (plan, task) = (round.plan, round.task);
        let (batch, size) = (plan.training.batch, plan.micro_batch());
        let number = (round.step + self.taken) * round.replicas + round.replica;
        let first = self.micro_batch * size;
        let indices =
            places(plan.training.seed, task.examples(Part::Train), number, batch, first..batch.min(first + size));
        let seed = mix(plan.training.seed ^ mix(number)).wrapping_add(self.micro_batch as u64);
        let (gradient, seen) = gradient(task, &self.tensors, &indices, seed, batch)?;
        self.seen.add(&seen);
        match self.gradient.is_empty() {
            true => self.gradient = gradient,
            false => self.gradient.iter_mut().zip(&gradient).for_each(|(sum, value)| *sum += value),
        }
        self.micro_batch += 1;
        if self.micro_batch * size < batch {
            return Ok(false);
        }
        clip(&mut self.gradient, plan.training.clip_norm);
        let rate = plan.schedule.rate(plan.optimizer.learning_rate(), round.step + self.taken, round.steps);
        self.weights.step(&plan.optimizer, rate, self.taken, &self.gradient);
        self.gradient.clear();
        (self.micro_batch, self.taken) = (0, self.taken + 1);
        let is_over = self.taken >= round.length;
        if !is_over {
            self.tensors = tensors(task.parameters(), &self.weights.values, true)?;
        }
        Ok(is_over)
    }

    /// How far it came, and what it saw on the way.
    pub(super) fn came(self, from: &[f32]) -> Vec<f32> {
        let mut numbers: Vec<f32> = from.iter().zip(&self.weights.values).map(|(from, to)| from - to).collect();
        numbers.extend(self.seen.extras(1.0));
        numbers
    }
}

/// What a worker hands out of a round in which it learnt from its own examples: how far it came, shortened, and weighed by how
/// many examples it has; with noise all weigh the same, what was seen is not told, and each adds its share of the noise.
pub(super) fn hand_out(came: &[f32], federated: &Federated, examples: usize, members: usize) -> Vec<f32> {
    let (came, extras) = came.split_at(came.len() - EXTRAS);
    let mut numbers = came.to_vec();
    let is_sound = numbers.iter().chain(extras).all(|value| value.is_finite());
    if !is_sound {
        // One that learnt nothing is no end of the others' training, and what has no length cannot be shortened.
        numbers.fill(0.0);
    }
    clip(&mut numbers, federated.clip_norm);
    if federated.noise > 0.0 {
        // From the system's random numbers, not the plan's seed: who knows the noise has the examples' trace.
        let size = f64::from(federated.noise) * f64::from(federated.clip_norm);
        let (mut random, share) = (rand::rng(), size / (members as f64).sqrt());
        for value in &mut numbers {
            let normal: f64 = StandardNormal.sample(&mut random);
            *value += (share * normal) as f32;
        }
        numbers.extend([0.0, 0.0, extras[2], 1.0]);
        return numbers;
    }
    if !is_sound {
        numbers.extend([0.0; EXTRAS]);
        return numbers;
    }
    let weight = examples as f32;
    numbers.iter_mut().for_each(|value| *value *= weight);
    numbers.extend([extras[0], extras[1], extras[2], weight]);
    numbers
}
