//! How far a training is.

use serde::{Deserialize, Serialize};

use super::Work;

/// What was seen of some examples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Mean cross-entropy, nats.
    pub loss: f32,
    /// Share of them whose class was found, 0 to 1.
    pub accuracy: f32,
}

/// How far a training is; with the weights it is all of its state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Steps that were taken.
    pub step: u64,
    /// Sums that were made, of steps and looks: what workers number their exchanges by.
    pub round: u64,
    /// The mean loss of the last step's batch.
    pub train_loss: f32,
    /// The last look at the test data.
    pub test: Option<Evaluation>,
    /// After which step that was.
    pub evaluated_at: u64,
    /// The look with the least loss.
    pub best: Option<Evaluation>,
    /// Looks since then.
    pub since_best: u64,
    /// With noise: what its weights may tell of whether one worker took part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epsilon: Option<f64>,
    #[serde(skip)]
    pub(super) best_weights: Vec<f32>,
}

impl Progress {
    /// The test data was looked at; whether it was never better.
    pub(super) fn evaluated(&mut self, seen: Evaluation) -> bool {
        (self.test, self.evaluated_at) = (Some(seen), self.step);
        let is_best = self.best.is_none_or(|best| seen.loss < best.loss);
        if is_best {
            (self.best, self.since_best) = (Some(seen), 0);
        } else {
            self.since_best += 1;
        }
        is_best
    }
}

/// What came of a step or a look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Taken {
    /// Which of the two it was.
    pub work: Work,
    /// Of the batch, or of the test data.
    pub seen: Evaluation,
    /// Of a step.
    pub learning_rate: f32,
    /// The gradient's length before it was shortened.
    pub norm: f32,
    /// How many examples were seen.
    pub examples: u64,
}
