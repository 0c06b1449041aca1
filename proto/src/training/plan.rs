//! The plan of a training, as TOML and JSON have it.

use serde::{Deserialize, Serialize};

use super::{Architecture, Federated, Local};
use crate::{Error, Result};

/// A model that is to be trained, on what, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Under which it is served once it is trained.
    pub name: String,
    /// What it is made of.
    pub model: Architecture,
    /// What it learns from.
    pub data: Data,
    /// How a gradient becomes a step.
    #[serde(default)]
    pub optimizer: Optimizer,
    /// How large the steps are as time goes by.
    #[serde(default)]
    pub schedule: Schedule,
    /// How many steps, of how many examples.
    #[serde(default)]
    pub training: Steps,
    /// Whether replicas take steps alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<Local>,
    /// Whether each worker learns from examples of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub federated: Option<Federated>,
    /// Who takes part.
    #[serde(default)]
    pub workers: Workers,
}

/// Where examples lie: a name in the workers' `--datasets` folder, or `store:NAME@VERSION`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// A folder of IDX files, or of texts as JSONL or CSV, or one such file.
    pub train: String,
    /// What is not trained on, to see how good it is; empty: what the folder has for that.
    #[serde(default)]
    pub test: String,
    /// How many classes there are; 0: one more than the greatest that is found.
    #[serde(default)]
    pub classes: usize,
    /// Of images with texts: the column of their paths, from the file's folder on.
    #[serde(default = "Data::image")]
    pub image: String,
    /// Of texts: the column that holds them.
    #[serde(default = "Data::text")]
    pub text: String,
    /// And the column of their classes.
    #[serde(default = "Data::label")]
    pub label: String,
    /// The names of the classes, in their order; empty: those that are found, sorted.
    #[serde(default)]
    pub labels: Vec<String>,
}

impl Data {
    fn image() -> String {
        "image".into()
    }

    fn text() -> String {
        "text".into()
    }

    fn label() -> String {
        "label".into()
    }
}

/// How a gradient becomes a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Optimizer {
    /// Stochastic gradient descent, as PyTorch's `SGD`.
    Sgd {
        /// The largest size of a step.
        learning_rate: f32,
        /// Share of the step before that is taken again.
        #[serde(default)]
        momentum: f32,
        /// Whether the momentum is looked ahead with.
        #[serde(default)]
        nesterov: bool,
        /// Share of a weight that is added to its gradient.
        #[serde(default)]
        weight_decay: f32,
    },
    /// Adam with decoupled weight decay (Loshchilov and Hutter, arXiv:1711.05101), as PyTorch's `AdamW`.
    Adamw {
        /// The largest size of a step.
        #[serde(default = "Optimizer::rate")]
        learning_rate: f32,
        /// How slowly the means of gradients and of their squares follow.
        #[serde(default = "Optimizer::betas")]
        betas: [f32; 2],
        /// What keeps a small mean from a large step.
        #[serde(default = "Optimizer::epsilon")]
        epsilon: f32,
        /// Share of a weight that it loses for each learning rate of 1.
        #[serde(default = "Optimizer::decay")]
        weight_decay: f32,
    },
}

impl Optimizer {
    fn rate() -> f32 {
        1e-3
    }

    fn betas() -> [f32; 2] {
        [0.9, 0.999]
    }

    fn epsilon() -> f32 {
        1e-8
    }

    fn decay() -> f32 {
        0.01
    }

    /// The largest size of a step.
    pub fn learning_rate(&self) -> f32 {
        match self {
            Self::Sgd { learning_rate, .. } | Self::Adamw { learning_rate, .. } => *learning_rate,
        }
    }
}

impl Default for Optimizer {
    fn default() -> Self {
        Self::Adamw {
            learning_rate: Self::rate(),
            betas: Self::betas(),
            epsilon: Self::epsilon(),
            weight_decay: Self::decay(),
        }
    }
}

/// How large steps are as time goes by.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Schedule {
    /// After the warm-up.
    pub kind: ScheduleKind,
    /// Steps in which the size grows from nothing.
    pub warmup_steps: u64,
    /// Share of the largest size that is left at the end.
    pub least: f32,
}

/// What the learning rate does after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleKind {
    /// It stays.
    #[default]
    Constant,
    /// It falls along a line.
    Linear,
    /// It falls along half a wave.
    Cosine,
}

impl Schedule {
    /// The learning rate of a step, counted from 0, of so many; `largest` is the optimizer's.
    pub fn rate(&self, largest: f32, step: u64, steps: u64) -> f32 {
        let warm = self.warmup_steps.min(steps);
        if step < warm {
            return largest * (step + 1) as f32 / warm as f32;
        }
        let share = (step - warm) as f64 / (steps - warm).max(1) as f64;
        let left = match self.kind {
            ScheduleKind::Constant => return largest,
            ScheduleKind::Linear => 1.0 - share,
            ScheduleKind::Cosine => (1.0 + (std::f64::consts::PI * share).cos()) / 2.0,
        };
        let least = f64::from(self.least);
        (f64::from(largest) * (least + (1.0 - least) * left)) as f32
    }
}

/// How many steps, of how many examples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Steps {
    /// Times that each example is seen, but for what is left of the last batch; 0: `steps` says it.
    pub epochs: u64,
    /// Steps in all; 0: `epochs` says it.
    pub steps: u64,
    /// Examples of a step, over all workers.
    pub batch: usize,
    /// Examples that one worker takes at once: a batch is so many of these, whoever takes them. Between two of them the device
    /// is given to requests.
    pub micro_batch: usize,
    /// From which weights, order and dropout follow.
    pub seed: u64,
    /// What numbers travel as between workers.
    pub exchange: Numbers,
    /// Gradients are shortened to this length; 0: they are not.
    pub clip_norm: f32,
    /// Steps between two looks at the test data; 0: once an epoch.
    pub evaluate_steps: u64,
    /// Looks without a better result after which training ends; 0: it goes on.
    pub patience: u64,
    /// Steps between two checkpoints; 0: at each look at the test data.
    pub checkpoint_steps: u64,
}

impl Default for Steps {
    fn default() -> Self {
        Self {
            epochs: 0,
            steps: 0,
            batch: 128,
            micro_batch: 0,
            seed: 0,
            exchange: Numbers::F32,
            clip_norm: 0.0,
            evaluate_steps: 0,
            patience: 0,
            checkpoint_steps: 0,
        }
    }
}

/// What numbers travel as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Numbers {
    /// As they are.
    #[default]
    F32,
    /// Half their bytes; every sum is rounded to it, so that it does not matter who makes it.
    Bf16,
}

/// Who takes part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Workers {
    /// It begins with so many.
    pub least: usize,
    /// At most; 0: as many as there are micro-batches.
    pub most: usize,
}

impl Default for Workers {
    fn default() -> Self {
        Self { least: 1, most: 0 }
    }
}

impl Plan {
    /// Reads JSON.
    ///
    /// # Errors
    /// INVALID_ARGUMENT naming the field that is wrong and what would be right.
    pub fn from_json(text: &str) -> Result<Self> {
        let reader = &mut serde_json::Deserializer::from_str(text);
        let plan: Self = serde_path_to_error::deserialize(reader).map_err(|error| {
            let (path, inner) = (error.path().to_string(), error.inner().to_string());
            let place = if path == "." { String::new() } else { format!("{path}: ") };
            Error::invalid(format!("the plan of the training: {place}{inner}"))
        })?;
        plan.check()?;
        Ok(plan)
    }

    /// The model that it begins with, where it is one that is there already.
    pub fn base(&self) -> Option<&str> {
        match &self.model {
            Architecture::Mlp(_) | Architecture::Cnn(_) | Architecture::ImageQuestion(_) => None,
            Architecture::TextClassifier(classifier) => Some(&classifier.base),
            Architecture::LanguageModel(language) => Some(&language.base),
        }
    }

    /// The same as JSON.
    pub fn to_json(&self) -> String {
        // Numbers and texts alone: there is nothing that cannot be written.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Steps in all, of so many examples.
    pub fn steps(&self, examples: usize) -> u64 {
        let of_epochs = |epochs: u64| epochs.saturating_mul(examples as u64) / self.examples_of_step();
        match (self.training.steps, self.training.epochs) {
            (0, epochs) => of_epochs(epochs.max(1)).max(1),
            (steps, _) => steps,
        }
    }

    /// Examples that a step takes of all, over all replicas.
    pub fn examples_of_step(&self) -> u64 {
        let replicas = self.rounds().and_then(|rounds| rounds.replicas).unwrap_or(1);
        (self.training.batch as u64).saturating_mul(replicas as u64).max(1)
    }

    /// Examples that one worker takes at once.
    pub fn micro_batch(&self) -> usize {
        match self.training.micro_batch {
            0 if self.rounds().is_some() => self.training.batch.max(1),
            0 => self.training.batch.div_ceil(8).max(1),
            size => size,
        }
    }

    /// Workers that can take part at once.
    pub fn most_workers(&self) -> usize {
        let parts = match self.rounds() {
            Some(rounds) => rounds.replicas.unwrap_or(usize::MAX),
            None => self.micro_batches(),
        };
        let most = if self.workers.most == 0 { parts } else { self.workers.most.min(parts) };
        most.max(self.workers.least)
    }

    /// Micro-batches of a step.
    pub fn micro_batches(&self) -> usize {
        self.training.batch.div_ceil(self.micro_batch()).max(1)
    }
}
