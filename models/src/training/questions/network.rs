//! The network: what an image and a question have in common, and the answer to that.

use candle_core::{Device, Tensor};
use orion_proto::{Result, training::ImageQuestion};

use crate::{
    training::{
        network::{Made, drop_out, initial},
        operations::{ConvolutionBlock, Dense},
        task::{Parameter, count},
    },
    unservable,
};

/// Dense layers behind the blocks: of the image, two of the question, of both, and the answers.
const DENSE: [&str; 5] = ["image", "question.0", "question.1", "joint", "head"];

/// Blocks over an image, dense layers over the words, and dense layers over the product of both.
#[derive(Clone, Debug)]
pub(super) struct Network {
    architecture: ImageQuestion,
    shape: [usize; 3],
    words: usize,
    parameters: Vec<Parameter>,
}

impl Network {
    /// # Errors
    /// FAILED_PRECONDITION where the blocks leave nothing of the image, or there would be too many numbers.
    pub(super) fn new(architecture: &ImageQuestion, shape: [usize; 3], words: usize, answers: usize) -> Result<Self> {
        let [mut depth, mut height, mut width] = shape;
        let mut made = Made::default();
        for (index, outputs) in architecture.channels.iter().enumerate() {
            if height < 2 || width < 2 {
                let text = format!("block {index} sees {height} by {width} pixels, it must be 2 by 2 or more");
                return Err(unservable(text));
            }
            made.layer(&format!("blocks.{index}"), &[*outputs, depth, architecture.kernel, architecture.kernel])?;
            (depth, height, width) = (*outputs, height / 2, width / 2);
        }
        let (hidden, seen) = (architecture.hidden, depth.saturating_mul(height).saturating_mul(width));
        let inputs = [seen, words, hidden, hidden, hidden];
        for (name, inputs) in DENSE.into_iter().zip(inputs) {
            made.layer(name, &[if name == "head" { answers } else { hidden }, inputs])?;
        }
        Ok(Self { architecture: architecture.clone(), shape, words, parameters: made.parameters })
    }

    pub(super) fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    pub(super) fn architecture(&self) -> &ImageQuestion {
        &self.architecture
    }

    pub(super) fn initial(&self, seed: u64) -> Vec<f32> {
        initial(&self.parameters, seed)
    }

    /// Values that one example leaves on its way through.
    pub(super) fn values(&self) -> usize {
        let [channels, height, width] = self.shape;
        let windows = self.architecture.kernel.pow(2) * self.architecture.channels.iter().copied().max().unwrap_or(1);
        (height * width)
            .saturating_mul(channels + windows + 2)
            .saturating_add(self.words + 8 * self.architecture.hidden)
    }

    /// Multiplications and additions for one example.
    pub(super) fn flops(&self) -> f64 {
        let [_, mut height, mut width] = self.shape;
        let mut flops = 2.0 * count(&self.parameters) as f64;
        for parameter in self.parameters.iter().filter(|parameter| parameter.shape.len() == 4) {
            flops += 2.0 * parameter.count() as f64 * (height * width) as f64;
            (height, width) = (height / 2, width / 2);
        }
        flops
    }

    /// What it makes of images and of the words of questions, one after the other: `[count, answers]`. `dropout`: while it
    /// learns, the seed of what is left out.
    pub(super) fn logits(
        &self,
        tensors: &[Tensor],
        pixels: Vec<f32>,
        words: Vec<f32>,
        dropout: Option<u64>,
    ) -> candle_core::Result<Tensor> {
        let ([channels, height, width], count) = (self.shape, words.len() / self.words);
        let (blocks, dense) = tensors.split_at(2 * self.architecture.channels.len());
        let layer = |at: usize, x: &Tensor| x.apply_op2(&dense[2 * at], Dense)?.broadcast_add(&dense[2 * at + 1]);
        let mut image = Tensor::from_vec(pixels, (count, channels, height, width), &Device::Cpu)?;
        for block in blocks.chunks_exact(2) {
            image = image.apply_op3(&block[0], &block[1], ConvolutionBlock::new())?;
        }
        // Not a tanh, as easy-VQA's own network has it: thousands of inputs that move together saturate it in a few steps.
        let image = layer(0, &image.flatten_from(1)?)?.relu()?;
        let words = Tensor::from_vec(words, (count, self.words), &Device::Cpu)?;
        let question = layer(2, &layer(1, &words)?.tanh()?)?.tanh()?;
        let both = layer(3, &(image * question)?)?.relu()?;
        layer(4, &drop_out(both, self.architecture.dropout, dropout)?)
    }
}
