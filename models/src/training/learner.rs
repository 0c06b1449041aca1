//! What one worker holds of a training: it computes parts of a step, and takes the step once the sum of all parts is known.
//!
//! A step is so many micro-batches, whoever computes them. Each is a function of the weights and its number, and their sum has
//! one order (`net`'s), so the weights after a step are the same bits whatever the workers were.

use std::path::Path;

use candle_core::Tensor;
use orion_proto::{Code, Error, Result, training::Plan};

use super::{
    data::{Dataset, Order, Part, mix},
    failed,
    network::{Network, cross_entropy},
    optimizer::{Weights, clip},
    progress::{Evaluation, Progress, Taken},
};
use crate::unservable;

/// What follows the gradient in a part's numbers: the sum of losses, how many are right, how many there are.
pub const EXTRAS: usize = 3;
/// Examples of one part of a look at the test data.
const EVALUATED: usize = 256;

/// What is computed next, by all workers together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A step: its parts are micro-batches.
    Step,
    /// A look at the test data.
    Evaluation,
}

/// A training as it is on one worker.
pub struct Learner {
    pub(super) plan: Plan,
    pub(super) network: Network,
    train: Dataset,
    test: Option<Dataset>,
    /// Of the examples of both.
    pub(super) data: blake3::Hash,
    pub(super) weights: Weights,
    pub(super) progress: Progress,
    steps: u64,
    /// The weights as tensors, made once a step.
    tensors: Vec<Tensor>,
}

impl Learner {
    /// A training at its beginning. `train` and `test` are where the plan's paths lie on this machine.
    ///
    /// `free_bytes`: what it may take of memory.
    ///
    /// # Errors
    /// FAILED_PRECONDITION or NOT_FOUND naming the file that does not fit; RESOURCE_EXHAUSTED where it takes more memory.
    pub fn open(plan: Plan, train: &Path, test: Option<&Path>, free_bytes: u64) -> Result<Self> {
        let read = Dataset::open(train, Part::Train)?;
        let train_data = read.ok_or_else(|| unservable(format!("{} has no examples", train.display())))?;
        let test = Dataset::open(test.unwrap_or(train), Part::Test)?;
        if let Some(test) = test.as_ref().filter(|test| test.shape != train_data.shape) {
            let (test, train) = (test.shape, train_data.shape);
            return Err(unservable(format!(
                "the test data's examples are {test:?}, those that are trained on {train:?}"
            )));
        }
        let classes = train_data.classes.max(test.as_ref().map_or(0, |test| test.classes));
        let network = Network::new(&plan.model, train_data.shape, classes.max(2))?;
        let needed = memory_bytes(&network, plan.micro_batch(), plan.micro_batches());
        if needed > free_bytes {
            let text = format!("training it takes about {needed} bytes of memory, {free_bytes} are free");
            return Err(Error::new(Code::ResourceExhausted, text));
        }
        let mut data = blake3::Hasher::new();
        train_data.hash(&mut data);
        test.iter().for_each(|test| test.hash(&mut data));
        let data = data.finalize();
        let weights = Weights::new(network.initial(plan.training.seed), &plan.optimizer);
        let steps = plan.steps(train_data.len());
        let tensors = network.tensors(&weights.values, true)?;
        let progress = Progress::default();
        Ok(Self { plan, network, train: train_data, test, data, weights, progress, steps, tensors })
    }

    /// Its plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How far it is.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// What tells its examples from others: their BLAKE3 hash.
    pub fn data(&self) -> &[u8; 32] {
        self.data.as_bytes()
    }

    /// Steps in all.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Numbers of a part: the gradient, and [`EXTRAS`].
    pub fn width(&self, work: Work) -> usize {
        EXTRAS + if work == Work::Step { self.network.count() } else { 0 }
    }

    /// What is computed next; none at its end.
    pub fn next(&self) -> Option<Work> {
        let evaluates = self.test.is_some() && self.progress.evaluated_at < self.progress.step;
        let ends = self.progress.step >= self.steps || self.is_patience_over();
        match (evaluates && (ends || self.progress.step.is_multiple_of(self.evaluate_steps())), ends) {
            (true, _) => Some(Work::Evaluation),
            (false, true) => None,
            (false, false) => Some(Work::Step),
        }
    }

    /// Whether a checkpoint is due: it has just been where one is wanted.
    pub fn checkpoint_due(&self) -> bool {
        let every = match self.plan.training.checkpoint_steps {
            0 => self.evaluate_steps(),
            steps => steps,
        };
        let step = self.progress.step;
        step > 0 && (step.is_multiple_of(every) || step == self.steps) && self.next() != Some(Work::Evaluation)
    }

    fn evaluate_steps(&self) -> u64 {
        match self.plan.training.evaluate_steps {
            0 => (self.train.len() as u64).div_ceil(self.plan.training.batch as u64),
            steps => steps,
        }
        .max(1)
    }

    fn is_patience_over(&self) -> bool {
        let patience = self.plan.training.patience;
        patience > 0 && self.progress.since_best >= patience
    }

    /// Parts of this work.
    pub fn parts(&self, work: Work) -> usize {
        match work {
            Work::Step => self.plan.micro_batches(),
            Work::Evaluation => self.test.as_ref().map_or(0, |test| test.len().div_ceil(EVALUATED)),
        }
    }

    /// Computes one part: its gradient as its share of the batch's mean, then [`EXTRAS`].
    ///
    /// # Errors
    /// INTERNAL where the tensor library fails.
    pub fn compute(&self, work: Work, part: usize) -> Result<Vec<f32>> {
        match work {
            Work::Step => self.micro_batch(part).map_err(|error| failed(&error)),
            Work::Evaluation => self.evaluate(part),
        }
    }

    fn micro_batch(&self, part: usize) -> candle_core::Result<Vec<f32>> {
        let (batch, size) = (self.plan.training.batch, self.plan.micro_batch());
        let places = part * size..batch.min((part + 1) * size);
        let count = self.train.len() as u64;
        let first = self.progress.step * batch as u64;
        let mut order = None;
        let examples = self.train.read(places.map(|place| {
            let (epoch, place) = ((first + place as u64) / count, (first + place as u64) % count);
            let (_, order) = order
                .take_if(|(known, _)| *known == epoch)
                .unwrap_or_else(|| (epoch, Order::new(count, self.plan.training.seed, epoch)));
            order.at(place) as usize
        }));
        let seed = mix(self.plan.training.seed ^ mix(self.progress.step)).wrapping_add(part as u64);
        let logits = self.network.logits(&self.tensors, examples.values, Some(seed));
        let logits = logits.map_err(candle_core::Error::wrap)?;
        let loss = cross_entropy(&logits, &examples.classes)?;
        let gradients = (&loss / batch as f64)?.backward()?;
        let mut numbers = Vec::with_capacity(self.width(Work::Step));
        for tensor in &self.tensors {
            match gradients.get(tensor) {
                Some(gradient) => numbers.extend(gradient.flatten_all()?.to_vec1::<f32>()?),
                None => numbers.resize(numbers.len() + tensor.elem_count(), 0.0),
            }
        }
        numbers.extend(extras(&loss, &logits, &examples.classes)?);
        Ok(numbers)
    }

    fn evaluate(&self, part: usize) -> Result<Vec<f32>> {
        let Some(test) = &self.test else { return Ok(vec![0.0; EXTRAS]) };
        let examples = test.read(part * EVALUATED..test.len().min((part + 1) * EVALUATED));
        let tensors: Vec<Tensor> = self.tensors.iter().map(Tensor::detach).collect();
        let logits = self.network.logits(&tensors, examples.values, None)?;
        let measured =
            cross_entropy(&logits, &examples.classes).and_then(|loss| extras(&loss, &logits, &examples.classes));
        measured.map(Vec::from).map_err(|error| failed(&error))
    }

    /// Takes the step, or the result of the look, from the sum of all parts.
    ///
    /// # Errors
    /// INVALID_ARGUMENT where the sum is of another length; FAILED_PRECONDITION where the loss is no number any more.
    pub fn conclude(&mut self, work: Work, mut sum: Vec<f32>) -> Result<Taken> {
        if sum.len() != self.width(work) {
            let (own, given) = (self.width(work), sum.len());
            return Err(Error::invalid(format!("the sum of a step has {given} numbers, it must have {own}")));
        }
        let extras = sum.split_off(sum.len() - EXTRAS);
        let seen = Evaluation { loss: extras[0] / extras[2].max(1.0), accuracy: extras[1] / extras[2].max(1.0) };
        if !seen.loss.is_finite() {
            let (step, loss) = (self.progress.step, seen.loss);
            return Err(unservable(format!(
                "the loss at step {step} is {loss}: try a smaller learning rate, or clip_norm"
            )));
        }
        self.progress.round += 1;
        if work == Work::Evaluation {
            if self.progress.evaluated(seen) && self.plan.training.patience > 0 {
                self.progress.best_weights = self.weights.values.clone();
            }
            return Ok(Taken { work, seen, learning_rate: 0.0, norm: 0.0 });
        }
        let norm = clip(&mut sum, self.plan.training.clip_norm);
        let rate = self.plan.schedule.rate(self.plan.optimizer.learning_rate(), self.progress.step, self.steps);
        self.weights.step(&self.plan.optimizer, rate, self.progress.step, &sum);
        self.progress.step += 1;
        self.progress.train_loss = seen.loss;
        self.tensors = self.network.tensors(&self.weights.values, true)?;
        Ok(Taken { work, seen, learning_rate: rate, norm })
    }

    /// The weights of its best look at the test data, or its last.
    pub(super) fn result(&self) -> &[f32] {
        match self.progress.best_weights.as_slice() {
            [] => &self.weights.values,
            best => best,
        }
    }

    /// Goes on from a state of this plan.
    pub(super) fn set(&mut self, weights: Weights, progress: Progress) -> Result<()> {
        self.tensors = self.network.tensors(&weights.values, true)?;
        (self.weights, self.progress) = (weights, progress);
        Ok(())
    }
}

/// About what a training takes at most: its numbers, those that a step's sums are made of, and what a micro-batch leaves on its way.
fn memory_bytes(network: &Network, micro_batch: usize, parts: usize) -> u64 {
    // The weights as numbers and as tensors, two of the optimizer, the best, a gradient and its sum, the state that is written.
    let copies = 10 + 4 * u64::from(parts.max(1).ilog2());
    let numbers = (network.count() as u64).saturating_mul(copies);
    let examples = (micro_batch.max(EVALUATED) as u64).saturating_mul(4 * network.activations() as u64);
    numbers.saturating_add(examples).saturating_mul(4)
}

fn extras(loss: &Tensor, logits: &Tensor, classes: &[u32]) -> candle_core::Result<[f32; EXTRAS]> {
    let found = logits.argmax(1)?.to_vec1::<u32>()?;
    let right = found.iter().zip(classes).filter(|(found, class)| found == class).count();
    Ok([loss.to_scalar::<f32>()?, right as f32, classes.len() as f32])
}
