//! What one worker holds of a training: it computes parts of a step, and takes the step once the sum of all parts is known.
//!
//! A step is so many micro-batches, whoever computes them; a round of replicas is so many replicas. Each is a function of the
//! weights and its number, and their sum has one order (`net`'s), so the weights after it are the same bits whatever the workers
//! were.

use std::{collections::BTreeMap, ops::Range, path::Path};

use candle_core::Tensor;
use orion_proto::{
    Code, Error, Result,
    training::{Optimizer, Plan, Rounds},
};

use super::{
    alone::{Alone, Round, hand_out},
    data::{Part, mix, places},
    files::Files,
    gradient::{Sums, gradient},
    optimizer::{Weights, clip},
    progress::{Evaluation, Progress, Taken},
    task::{Task, count, tensors},
};
use crate::unservable;

/// What follows the gradient in a part's numbers: the sum of losses, how many are right, how many there are, what they weigh.
pub const EXTRAS: usize = 4;

/// What is computed next, by all workers together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A step: its parts are micro-batches. Or a round: its parts are replicas.
    Step,
    /// A look at the test data.
    Evaluation,
}

/// A training as it is on one worker.
pub struct Learner {
    pub(super) plan: Plan,
    pub(super) task: Box<dyn Task>,
    rounds: Option<Rounds>,
    /// Of the examples, or of what they look like where each worker has its own.
    pub(super) data: blake3::Hash,
    pub(super) weights: Weights,
    pub(super) progress: Progress,
    steps: u64,
    /// The weights as tensors, made once a step.
    tensors: Vec<Tensor>,
    /// Of a round: replicas that are on their way, and those that are done.
    alone: BTreeMap<u64, Alone>,
    came: BTreeMap<u64, Vec<f32>>,
    /// Of a look at examples of its own: how many were looked at.
    looked: (usize, Sums),
    /// Workers that learn together.
    members: usize,
}

impl Learner {
    /// A training at its beginning, on files that lie on this machine. `free_bytes`: what it may take of memory.
    ///
    /// # Errors
    /// FAILED_PRECONDITION or NOT_FOUND naming the file that does not fit; RESOURCE_EXHAUSTED where it takes more memory.
    pub fn open(plan: Plan, files: &Files<'_>, free_bytes: u64) -> Result<Self> {
        let task = files.task(&plan, free_bytes)?;
        Self::of(plan, task, free_bytes)
    }

    fn of(plan: Plan, task: Box<dyn Task>, free_bytes: u64) -> Result<Self> {
        let rounds = plan.rounds();
        if plan.training.patience > 0 && task.examples(Part::Test) == 0 {
            return Err(unservable("training.patience looks at test examples, and there are none: give data.test"));
        }
        let needed = memory_bytes(&*task, &plan);
        if needed > free_bytes {
            let text = format!("training it takes about {needed} bytes of memory, {free_bytes} are free");
            return Err(Error::new(Code::ResourceExhausted, text));
        }
        let mut data = blake3::Hasher::new();
        match plan.federated {
            Some(_) => {
                let tested = if task.examples(Part::Test) > 0 { "tested" } else { "untested" };
                data.update(format!("{} {tested}", task.shape()?).as_bytes());
            }
            None => task.hash(&mut data)?,
        }
        let data = data.finalize();
        let optimizer = rounds.as_ref().map_or(&plan.optimizer, |rounds| &rounds.outer);
        let weights = Weights::new(task.initial(plan.training.seed)?, optimizer);
        let steps = plan.steps(task.examples(Part::Train));
        let tensors = tensors(task.parameters(), &weights.values, true)?;
        let progress = Progress::default();
        let (alone, came) = (BTreeMap::new(), BTreeMap::new());
        let looked = (0, Sums::default());
        Ok(Self { plan, task, rounds, data, weights, progress, steps, tensors, alone, came, looked, members: 1 })
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

    /// How a sum of parts becomes a step.
    pub(super) fn optimizer(&self) -> &Optimizer {
        self.rounds.as_ref().map_or(&self.plan.optimizer, |rounds| &rounds.outer)
    }

    /// Numbers of a part: the gradient, or how far a replica came, and [`EXTRAS`].
    pub fn width(&self, work: Work) -> usize {
        EXTRAS + if work == Work::Step { count(self.task.parameters()) } else { 0 }
    }

    /// So many workers learn together from here on.
    pub fn together(&mut self, members: usize) {
        self.members = members;
    }

    /// The parts of each worker where they are its own affair; none: parts may be anybody's.
    pub fn bound(&self) -> Option<Vec<Range<usize>>> {
        self.plan.federated.as_ref().map(|_| (0..self.members).map(|rank| rank..rank + 1).collect())
    }

    /// Whether some of this part was computed already.
    pub fn begun(&self, part: usize) -> bool {
        let replica = if self.plan.federated.is_some() { 0 } else { part as u64 };
        self.alone.contains_key(&replica) || self.came.contains_key(&replica)
    }

    /// What tells its state from another after as many sums: workers may have made unlike ones, apart from each other.
    pub fn identity(&self) -> [u8; 32] {
        let Weights { values, first, second } = &self.weights;
        let mut hasher = blake3::Hasher::new();
        for numbers in [values, first, second, &self.progress.best_weights] {
            let bytes: Vec<u8> = numbers.iter().flat_map(|value| value.to_le_bytes()).collect();
            hasher.update(&bytes);
        }
        hasher.finalize().into()
    }

    /// Steps that the next step of all is made of.
    fn length(&self) -> u64 {
        let left = self.steps.saturating_sub(self.progress.step).max(1);
        self.rounds.as_ref().map_or(1, |rounds| rounds.steps.min(left))
    }

    /// What is computed next; none at its end.
    pub fn next(&self) -> Option<Work> {
        let Progress { step, evaluated_at, .. } = self.progress;
        let tests = self.task.examples(Part::Test) > 0;
        let ends = step >= self.steps || self.is_patience_over();
        let passed = step / self.evaluate_steps() > evaluated_at / self.evaluate_steps();
        match (tests && evaluated_at < step && (ends || passed), ends) {
            (true, _) => Some(Work::Evaluation),
            (false, true) => None,
            (false, false) => Some(Work::Step),
        }
    }

    /// Whether a checkpoint is due: it has just been where one is wanted, or has passed it.
    pub fn checkpoint_due(&self) -> bool {
        let every = match self.plan.training.checkpoint_steps {
            0 => self.evaluate_steps(),
            steps => steps,
        };
        let step = self.progress.step;
        let length = self.rounds.as_ref().map_or(1, |rounds| rounds.steps);
        let before = step.saturating_sub(1) / length * length;
        step > 0 && (step / every > before / every || step == self.steps) && self.next() != Some(Work::Evaluation)
    }

    fn evaluate_steps(&self) -> u64 {
        let examples = self.task.examples(Part::Train) as u64;
        match (self.plan.training.evaluate_steps, &self.plan.federated) {
            (0, Some(federated)) => federated.local_steps,
            (0, None) => examples.div_ceil(self.plan.examples_of_step()),
            (steps, _) => steps,
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
            _ if self.plan.federated.is_some() => self.members,
            Work::Step => {
                let replicas = self.rounds.as_ref().and_then(|rounds| rounds.replicas);
                replicas.unwrap_or_else(|| self.plan.micro_batches())
            }
            Work::Evaluation => self.task.examples(Part::Test).div_ceil(self.task.evaluated()),
        }
    }

    /// Computes some of one part, no more than a micro-batch: its numbers, once all of it is computed. Those are the gradient as
    /// its share of the batch's mean, or how far a replica came, then [`EXTRAS`].
    ///
    /// # Errors
    /// INTERNAL where the tensor library fails.
    pub fn advance(&mut self, work: Work, part: usize) -> Result<Option<Vec<f32>>> {
        match work {
            Work::Step if self.rounds.is_some() => self.advance_alone(part),
            Work::Step => self.micro_batch(part).map(Some),
            Work::Evaluation if self.plan.federated.is_some() => self.evaluate_own(),
            Work::Evaluation => {
                let size = self.task.evaluated();
                let end = self.task.examples(Part::Test).min((part + 1) * size);
                Ok(Some(self.evaluate(part * size..end)?.extras(0.0).to_vec()))
            }
        }
    }

    fn micro_batch(&self, part: usize) -> Result<Vec<f32>> {
        let (batch, size, seed) = (self.plan.training.batch, self.plan.micro_batch(), self.plan.training.seed);
        let range = part * size..batch.min((part + 1) * size);
        let indices = places(seed, self.task.examples(Part::Train), self.progress.step, batch, range);
        let dropout = mix(seed ^ mix(self.progress.step)).wrapping_add(part as u64);
        let (mut numbers, seen) = gradient(&*self.task, &self.tensors, &indices, dropout, batch)?;
        numbers.extend(seen.extras(0.0));
        Ok(numbers)
    }

    fn advance_alone(&mut self, part: usize) -> Result<Option<Vec<f32>>> {
        // One's own examples are the same whatever its rank.
        let (replica, replicas) = match &self.plan.federated {
            Some(_) => (0, 1),
            None => (part as u64, self.parts(Work::Step) as u64),
        };
        if !self.came.contains_key(&replica) {
            let round = Round {
                plan: &self.plan,
                task: &*self.task,
                weights: &self.weights.values,
                step: self.progress.step,
                length: self.length(),
                steps: self.steps,
                replica,
                replicas,
            };
            let mut alone = match self.alone.remove(&replica) {
                Some(alone) => alone,
                None => Alone::new(&round)?,
            };
            if !alone.advance(&round)? {
                self.alone.insert(replica, alone);
                return Ok(None);
            }
            self.came.insert(replica, alone.came(&self.weights.values));
        }
        let came = self.came.get(&replica);
        Ok(came.map(|came| match &self.plan.federated {
            Some(federated) => hand_out(came, federated, self.task.examples(Part::Train), self.members),
            None => came.clone(),
        }))
    }

    fn evaluate(&self, range: Range<usize>) -> Result<Sums> {
        if range.is_empty() {
            return Ok(Sums::default());
        }
        let tensors: Vec<Tensor> = self.tensors.iter().map(Tensor::detach).collect();
        let (indices, count) = (range.clone().collect::<Vec<_>>(), range.len());
        Sums::of(&self.task.look(&tensors, Part::Test, &indices, None)?, count)
    }

    fn evaluate_own(&mut self) -> Result<Option<Vec<f32>>> {
        let (from, count) = (self.looked.0, self.task.examples(Part::Test));
        let end = count.min(from + self.task.evaluated());
        let seen = self.evaluate(from..end)?;
        self.looked.0 = end;
        self.looked.1.add(&seen);
        Ok((end == count).then(|| self.looked.1.extras(0.0).to_vec()))
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
        self.progress.round += 1;
        self.looked = (0, Sums::default());
        let examples = extras[2] as u64;
        if work == Work::Evaluation {
            self.check(seen.loss)?;
            if self.progress.evaluated(seen) && self.plan.training.patience > 0 {
                self.progress.best_weights = self.weights.values.clone();
            }
            return Ok(Taken { work, seen, learning_rate: 0.0, norm: 0.0, examples });
        }
        let (step, length) = (self.progress.step, self.length());
        let largest = self.plan.optimizer.learning_rate();
        let (norm, rate, number) = match &self.rounds {
            None => (clip(&mut sum, self.plan.training.clip_norm), None, step),
            Some(rounds) => {
                let weight = extras[3];
                if weight <= 0.0 {
                    let text =
                        format!("at step {step} the loss is no number on any worker: try a smaller learning rate");
                    return Err(unservable(text));
                }
                sum.iter_mut().for_each(|value| *value /= weight);
                (clip(&mut sum, 0.0), Some(rounds.outer.learning_rate()), step / rounds.steps)
            }
        };
        self.check(seen.loss + norm)?;
        let learning_rate = self.plan.schedule.rate(largest, step + length - 1, self.steps);
        let optimizer = self.rounds.as_ref().map_or(&self.plan.optimizer, |rounds| &rounds.outer);
        self.weights.step(optimizer, rate.unwrap_or(learning_rate), number, &sum);
        self.progress.step += length;
        self.progress.train_loss = seen.loss;
        self.progress.epsilon =
            self.plan.federated.as_ref().and_then(|federated| federated.epsilon(number.saturating_add(1)));
        self.begin()?;
        Ok(Taken { work, seen, learning_rate, norm, examples })
    }

    fn check(&self, loss: f32) -> Result<()> {
        if loss.is_finite() {
            return Ok(());
        }
        let step = self.progress.step;
        Err(unservable(format!("the loss at step {step} is {loss}: try a smaller learning rate, or clip_norm")))
    }

    /// From the weights as they are.
    fn begin(&mut self) -> Result<()> {
        self.alone.clear();
        self.came.clear();
        self.looked = (0, Sums::default());
        self.tensors = tensors(self.task.parameters(), &self.weights.values, true)?;
        Ok(())
    }

    /// Writes what was learnt as a model's folder, which must be empty.
    ///
    /// # Errors
    /// INTERNAL where the disk fails.
    pub fn save(&self, folder: &Path) -> Result<()> {
        self.task.save(self.result(), &self.progress, folder)
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
        (self.weights, self.progress) = (weights, progress);
        self.begin()
    }
}

/// About what a training takes at most: its numbers, those that a step's sums are made of, and what a micro-batch leaves on its way.
fn memory_bytes(task: &dyn Task, plan: &Plan) -> u64 {
    // The weights as numbers and as tensors, two of the optimizer, the best, a gradient and its sum, the state that is written.
    let copies = match plan.rounds() {
        None => 10 + 4 * u64::from(plan.micro_batches().ilog2()),
        // And of a replica that is on its way, and of each that is done.
        Some(rounds) => 16 + 2 * rounds.replicas.unwrap_or(1) as u64,
    };
    let numbers = (count(task.parameters()) as u64).saturating_mul(copies);
    let at_once = |examples: usize, learns| examples.saturating_mul(task.values(learns)) as u64;
    let examples = at_once(plan.micro_batch(), true).max(at_once(task.evaluated(), false));
    numbers.saturating_add(examples).saturating_mul(4).saturating_add(task.held_bytes())
}
