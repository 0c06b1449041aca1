//! What is learnt: tensors, the examples from which they are, and how well they fit those.

use std::path::Path;

use candle_core::{Device, Tensor, Var};
use orion_proto::Result;

use super::{Progress, data::Part, failed};

/// A tensor that is learnt, and where it lies among all numbers.
#[derive(Clone, Debug)]
pub(crate) struct Parameter {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    /// Values of the input that one of its outputs sees.
    pub(super) seen: usize,
    pub(crate) start: usize,
}

impl Parameter {
    pub(crate) fn count(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Numbers of all parameters.
pub(crate) fn count(parameters: &[Parameter]) -> usize {
    parameters.last().map_or(0, |last| last.start + last.count())
}

/// What a network makes of some examples.
pub(super) struct Seen {
    /// Summed over the examples, nats.
    pub(super) loss: Tensor,
    /// How many were answered as they should; of texts that are gone on with, the share of each.
    pub(super) right: f32,
}

/// A kind of network with the examples that it learns from.
pub(super) trait Task: Send {
    /// In the order in which their numbers lie.
    fn parameters(&self) -> &[Parameter];

    /// Where learning begins.
    ///
    /// # Errors
    /// FAILED_PRECONDITION where what it begins with cannot be read.
    fn initial(&self, seed: u64) -> Result<Vec<f32>>;

    /// How many there are; none where there is no such part.
    fn examples(&self, part: Part) -> usize;

    /// What tells the examples from others.
    ///
    /// # Errors
    /// As [`Task::initial`].
    fn hash(&self, hasher: &mut blake3::Hasher) -> Result<()>;

    /// What tells whether two workers can learn together, each from its own examples.
    ///
    /// # Errors
    /// As [`Task::initial`].
    fn shape(&self) -> Result<String>;

    /// Bytes that it holds beside its parameters.
    fn held_bytes(&self) -> u64 {
        0
    }

    /// Values that are held at once for one example, while it is learnt from, or only looked at.
    fn values(&self, learns: bool) -> usize;

    /// Examples of one part of a look at the test data.
    fn evaluated(&self) -> usize;

    /// What the network makes of examples. `dropout`: while it learns, the seed of what is left out.
    ///
    /// # Errors
    /// INTERNAL where the tensor library fails; FAILED_PRECONDITION where an example cannot be read.
    fn look(&self, tensors: &[Tensor], part: Part, indices: &[usize], dropout: Option<u64>) -> Result<Seen>;

    /// Writes it with these numbers as a model's folder, which is empty.
    ///
    /// # Errors
    /// INTERNAL where the disk fails.
    fn save(&self, values: &[f32], progress: &Progress, folder: &Path) -> Result<()>;
}

/// Numbers as tensors, of which gradients are known where `learns`.
pub(crate) fn tensors(parameters: &[Parameter], values: &[f32], learns: bool) -> Result<Vec<Tensor>> {
    let tensor = |parameter: &Parameter| {
        let values = &values[parameter.start..][..parameter.count()];
        let tensor = Tensor::from_slice(values, parameter.shape.as_slice(), &Device::Cpu);
        let tensor =
            if learns { tensor.and_then(|tensor| Ok(Var::from_tensor(&tensor)?.into_inner())) } else { tensor };
        tensor.map_err(|error| failed(&error))
    };
    parameters.iter().map(tensor).collect()
}
