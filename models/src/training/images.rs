//! Networks that tell classes of images.

use std::path::Path;

use candle_core::{D, Tensor};
use orion_proto::{Result, training::Plan};

use super::{
    Network, Progress,
    data::{Dataset, Part},
    failed,
    operations::CrossEntropy,
    task::{Parameter, Seen, Task},
    trained,
};
use crate::unservable;

/// Images of one part of a look at the test data.
const EVALUATED: usize = 256;

/// A network over images, and what it learns from.
pub(super) struct Images {
    plan: Plan,
    pub(super) network: Network,
    train: Dataset,
    test: Option<Dataset>,
}

impl Images {
    /// # Errors
    /// FAILED_PRECONDITION or NOT_FOUND naming the file that does not fit.
    pub(super) fn open(plan: &Plan, train: &Path, test: Option<&Path>) -> Result<Self> {
        let read = Dataset::open(train, Part::Train)?;
        let train_data = read.ok_or_else(|| unservable(format!("{} has no examples", train.display())))?;
        let test = Dataset::open(test.unwrap_or(train), Part::Test)?;
        if let Some(test) = test.as_ref().filter(|test| test.shape != train_data.shape) {
            let (test, train) = (test.shape, train_data.shape);
            return Err(unservable(format!(
                "the test data's examples are {test:?}, those that are trained on {train:?}"
            )));
        }
        let found = train_data.classes.max(test.as_ref().map_or(0, |test| test.classes));
        let classes = match plan.data.classes {
            0 => found.max(2),
            given if given < found => {
                let text = format!("data.classes is {given}, the greatest class of its examples is {}", found - 1);
                return Err(unservable(text));
            }
            given => given,
        };
        let network = Network::new(&plan.model, train_data.shape, classes)?;
        Ok(Self { plan: plan.clone(), network, train: train_data, test })
    }

    fn of(&self, part: Part) -> Option<&Dataset> {
        match part {
            Part::Train => Some(&self.train),
            Part::Test => self.test.as_ref(),
        }
    }
}

impl Task for Images {
    fn parameters(&self) -> &[Parameter] {
        self.network.parameters()
    }

    fn initial(&self, seed: u64) -> Result<Vec<f32>> {
        Ok(self.network.initial(seed))
    }

    fn examples(&self, part: Part) -> usize {
        self.of(part).map_or(0, Dataset::len)
    }

    fn hash(&self, hasher: &mut blake3::Hasher) -> Result<()> {
        self.train.hash(hasher);
        self.test.iter().for_each(|test| test.hash(hasher));
        Ok(())
    }

    fn shape(&self) -> Result<String> {
        Ok(format!("{:?} {}", self.network.input, self.network.classes))
    }

    fn values(&self, _learns: bool) -> usize {
        self.network.activations().saturating_mul(4)
    }

    fn evaluated(&self) -> usize {
        EVALUATED
    }

    fn look(&self, tensors: &[Tensor], part: Part, indices: &[usize], dropout: Option<u64>) -> Result<Seen> {
        let data = self.of(part).ok_or_else(|| unservable("there are no such examples"))?;
        let examples = data.read(indices.iter().copied());
        let logits = self.network.logits(tensors, examples.values, dropout)?;
        let weights = vec![1.0; examples.classes.len()];
        seen(&logits, examples.classes, weights).map_err(|error| failed(&error))
    }

    fn save(&self, values: &[f32], progress: &Progress, folder: &Path) -> Result<()> {
        trained::save(&self.network, &self.plan.model, values, progress, folder)
    }
}

/// How well logits fit the classes of their rows, of which each counts for so much.
pub(super) fn seen(logits: &Tensor, classes: Vec<u32>, weights: Vec<f32>) -> candle_core::Result<Seen> {
    let found = logits.argmax(D::Minus1)?.to_vec1::<u32>()?;
    let answers = found.iter().zip(&classes).zip(&weights);
    let right = answers.filter(|((found, class), _)| found == class).fold(0.0, |sum, (_, weight)| sum + weight);
    Ok(Seen { loss: logits.apply_op1(CrossEntropy { targets: classes, weights })?, right })
}
