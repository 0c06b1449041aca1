//! Networks that are trained: what they are made of, and what they compute.

use candle_core::{Device, Tensor};
use orion_proto::{Result, training::Architecture};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    data::mix,
    failed,
    operations::ConvolutionBlock,
    task::{Parameter, count},
};
use crate::unservable;

/// Numbers that a network may have: an update of all of them is held several times over.
const MOST_PARAMETERS: usize = 1 << 31;

/// Channels, height, width and classes, at most: their product is a number of values.
const MOST_SIDE: usize = 1 << 15;

/// A network over inputs of one shape.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    /// Channels, height, width.
    pub(crate) input: [usize; 3],
    pub(crate) classes: usize,
    blocks: usize,
    dropout: f32,
    parameters: Vec<Parameter>,
}

impl Network {
    /// # Errors
    /// FAILED_PRECONDITION where the blocks leave nothing of the image, or there would be too many numbers.
    pub(crate) fn new(architecture: &Architecture, input: [usize; 3], classes: usize) -> Result<Self> {
        let (channels, kernel, hidden, dropout) = match architecture {
            Architecture::Mlp(mlp) => (&[][..], 1, &mlp.hidden, mlp.dropout),
            Architecture::Cnn(cnn) => (&cnn.channels[..], cnn.kernel, &cnn.hidden, cnn.dropout),
            Architecture::TextClassifier(_) | Architecture::LanguageModel(_) | Architecture::ImageQuestion(_) => {
                return Err(unservable("it is no network over images alone"));
            }
        };
        if input.iter().any(|size| *size > MOST_SIDE) || classes > MOST_SIDE {
            return Err(unservable(format!(
                "inputs of {input:?} or {classes} classes are too many, {MOST_SIDE} are at most"
            )));
        }
        let [mut depth, mut height, mut width] = input;
        let mut made = Made::default();
        for (index, outputs) in channels.iter().enumerate() {
            if height < 2 || width < 2 {
                let text =
                    format!("images of {} by {} are too small for {} blocks", input[1], input[2], channels.len());
                return Err(unservable(text));
            }
            made.layer(&format!("convolutions.{index}"), &[*outputs, depth, kernel, kernel])?;
            (depth, height, width) = (*outputs, height / 2, width / 2);
        }
        let mut inputs = depth * height * width;
        for (index, outputs) in hidden.iter().enumerate() {
            made.layer(&format!("hidden.{index}"), &[*outputs, inputs])?;
            inputs = *outputs;
        }
        made.layer("head", &[classes, inputs])?;
        Ok(Self { input, classes, blocks: channels.len(), dropout, parameters: made.parameters })
    }

    pub(crate) fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Numbers of all parameters.
    pub(crate) fn count(&self) -> usize {
        count(&self.parameters)
    }

    /// Values of one example.
    pub(crate) fn values(&self) -> usize {
        self.input.iter().product()
    }

    /// Values that one example leaves on its way through, with what the windows of one block see.
    pub(super) fn activations(&self) -> usize {
        let [_, mut height, mut width] = self.input;
        // Of the largest block, what its windows see.
        let mut windows = 0;
        let mut values = self.values();
        for parameter in self.parameters.iter().filter(|parameter| parameter.shape.len() > 1) {
            let pixels = if parameter.shape.len() == 4 { height * width } else { 1 };
            values = values.saturating_add(parameter.shape[0].saturating_mul(pixels));
            if parameter.shape.len() == 4 {
                windows = windows.max(parameter.seen.saturating_mul(pixels));
                (height, width) = (height / 2, width / 2);
            }
        }
        values.saturating_add(windows)
    }

    /// Multiplications and additions for one example.
    pub(crate) fn flops(&self) -> f64 {
        let (mut height, mut width) = (self.input[1], self.input[2]);
        let mut flops = 0.0;
        for parameter in self.parameters.iter().filter(|parameter| parameter.shape.len() > 1) {
            let places = if parameter.shape.len() == 4 { height * width } else { 1 };
            flops += 2.0 * parameter.count() as f64 * places as f64;
            if parameter.shape.len() == 4 {
                (height, width) = (height / 2, width / 2);
            }
        }
        flops
    }

    /// Where learning begins: uniform within the inverse root of what an output sees, as PyTorch's layers.
    pub(super) fn initial(&self, seed: u64) -> Vec<f32> {
        initial(&self.parameters, seed)
    }

    /// What it makes of inputs, `[count, classes]`. `dropout`: while it learns, the seed of what is left out.
    pub(crate) fn logits(&self, tensors: &[Tensor], inputs: Vec<f32>, dropout: Option<u64>) -> Result<Tensor> {
        self.forward(tensors, inputs, dropout).map_err(|error| failed(&error))
    }

    fn forward(&self, tensors: &[Tensor], inputs: Vec<f32>, dropout: Option<u64>) -> candle_core::Result<Tensor> {
        let ([channels, height, width], count) = (self.input, inputs.len() / self.values());
        let mut layers = tensors.chunks_exact(2);
        let mut values = Tensor::from_vec(inputs, (count, channels, height, width), &Device::Cpu)?;
        for layer in layers.by_ref().take(self.blocks) {
            values = values.apply_op3(&layer[0], &layer[1], ConvolutionBlock::new())?;
        }
        values = values.flatten_from(1)?;
        let last = layers.len() - 1;
        for (index, layer) in layers.enumerate() {
            if index == last {
                values = drop_out(values, self.dropout, dropout)?;
            }
            values = values.matmul(&layer[0].t()?)?.broadcast_add(&layer[1])?;
            if index < last {
                values = values.relu()?;
            }
        }
        Ok(values)
    }
}

/// Uniform numbers within the inverse root of what an output sees.
pub(super) fn initial(parameters: &[Parameter], seed: u64) -> Vec<f32> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut values = Vec::with_capacity(count(parameters));
    for parameter in parameters {
        let most = 1.0 / (parameter.seen as f32).sqrt();
        values.extend((0..parameter.count()).map(|_| (random.random::<f32>() * 2.0 - 1.0) * most));
    }
    values
}

/// Leaves out a share of values, of which the rest is made larger. Without a seed nothing is left out.
pub(super) fn drop_out(values: Tensor, share: f32, seed: Option<u64>) -> candle_core::Result<Tensor> {
    let Some(seed) = seed.filter(|_| share > 0.0) else { return Ok(values) };
    let kept = 1.0 / (1.0 - share);
    let mut random = StdRng::seed_from_u64(mix(seed));
    let mask: Vec<f32> =
        (0..values.elem_count()).map(|_| if random.random::<f32>() < share { 0.0 } else { kept }).collect();
    values.mul(&Tensor::from_vec(mask, values.shape(), values.device())?)
}

/// Parameters, one layer after the other.
#[derive(Default)]
pub(super) struct Made {
    pub(super) parameters: Vec<Parameter>,
    next: usize,
}

impl Made {
    /// A weight of this shape, and a bias.
    pub(super) fn layer(&mut self, name: &str, shape: &[usize]) -> Result<()> {
        let seen = shape[1..].iter().try_fold(1usize, |all, size| all.checked_mul(*size));
        for (part, shape) in [("weight", shape), ("bias", &shape[..1])] {
            let count = shape.iter().try_fold(1usize, |all, size| all.checked_mul(*size));
            let end = count.and_then(|count| self.next.checked_add(count)).filter(|end| *end <= MOST_PARAMETERS);
            let (Some(end), Some(seen)) = (end, seen) else {
                return Err(unservable(format!("the network has more than {MOST_PARAMETERS} parameters")));
            };
            self.parameters.push(Parameter {
                name: format!("{name}.{part}"),
                shape: shape.into(),
                seen,
                start: self.next,
            });
            self.next = end;
        }
        Ok(())
    }
}
