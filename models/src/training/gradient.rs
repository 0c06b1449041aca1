//! From some examples to a gradient.

use candle_core::Tensor;
use orion_proto::Result;

use super::{
    EXTRAS,
    data::Part,
    failed,
    task::{Seen, Task},
};

/// What was seen of examples, summed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sums {
    loss: f32,
    right: f32,
    count: f32,
}

impl Sums {
    pub(super) fn of(seen: &Seen, count: usize) -> Result<Self> {
        let loss = seen.loss.to_scalar::<f32>().map_err(|error| failed(&error))?;
        Ok(Self { loss, right: seen.right, count: count as f32 })
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.loss += other.loss;
        self.right += other.right;
        self.count += other.count;
    }

    /// As they follow the numbers of a part. `weight`: how much the part weighs.
    pub(super) fn extras(&self, weight: f32) -> [f32; EXTRAS] {
        [self.loss, self.right, self.count, weight]
    }
}

/// The gradient of examples, as their share of the mean of a batch of so many, and what was seen.
pub(super) fn gradient(
    task: &dyn Task,
    tensors: &[Tensor],
    indices: &[usize],
    dropout: u64,
    batch: usize,
) -> Result<(Vec<f32>, Sums)> {
    let seen = task.look(tensors, Part::Train, indices, Some(dropout))?;
    let numbers = (|| {
        let gradients = (&seen.loss / batch as f64)?.backward()?;
        let mut numbers = Vec::with_capacity(tensors.iter().map(Tensor::elem_count).sum::<usize>() + EXTRAS);
        for tensor in tensors {
            match gradients.get(tensor) {
                Some(gradient) => numbers.extend(gradient.flatten_all()?.to_vec1::<f32>()?),
                None => numbers.resize(numbers.len() + tensor.elem_count(), 0.0),
            }
        }
        Ok(numbers)
    })();
    Ok((numbers.map_err(|error| failed(&error))?, Sums::of(&seen, indices.len())?))
}
