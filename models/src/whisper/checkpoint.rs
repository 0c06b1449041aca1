//! Weights as the kernels take them: in f32, whatever they are stored in.

use candle_core::{DType, Device, safetensors::MmapedSafetensors};
use orion_proto::Result;

use super::Source;
use crate::{
    embedding::kernels::{Activation, Linear, Norm},
    unservable,
};

/// The epsilon of every layer normalisation.
const EPSILON: f32 = 1e-5;

/// The weight files of a model, memory-mapped.
pub(super) struct Checkpoint<'a> {
    source: &'a Source,
    tensors: MmapedSafetensors,
}

impl<'a> Checkpoint<'a> {
    /// Maps the files.
    pub(super) fn open(source: &'a Source) -> Result<Self> {
        // SAFETY: the files are only read while loading; one that is cut meanwhile ends the process, as for every
        // memory-mapped file.
        let tensors = unsafe { MmapedSafetensors::multi(&source.weights) };
        Ok(Self { source, tensors: tensors.map_err(|error| unloadable(source, &error))? })
    }

    /// A tensor's values; `inspect` has checked its presence and shape.
    pub(super) fn floats(&self, name: &str) -> Result<Vec<f32>> {
        let read = || {
            let tensor = self.tensors.load(&self.source.stored_name(name), &Device::Cpu)?;
            tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
        };
        read().map_err(|error| unloadable(self.source, &error))
    }

    /// `weight` and `bias` of a dense layer.
    pub(super) fn linear(&self, name: &str, activation: Activation) -> Result<Linear> {
        let bias = self.floats(&format!("{name}.bias"))?;
        Ok(Linear::new(&self.floats(&format!("{name}.weight"))?, bias, activation))
    }

    /// A convolution over time, `[outputs, inputs, 3]`, as the dense layer of three neighbouring steps.
    pub(super) fn convolution(&self, name: &str) -> Result<Linear> {
        let bias = self.floats(&format!("{name}.bias"))?;
        let weight = self.floats(&format!("{name}.weight"))?;
        let inputs = weight.len() / bias.len() / 3;
        let by_step =
            |output: &[f32]| -> Vec<f32> { (0..3 * inputs).map(|at| output[at % inputs * 3 + at / inputs]).collect() };
        let weight: Vec<f32> = weight.chunks_exact(3 * inputs).flat_map(by_step).collect();
        Ok(Linear::new(&weight, bias, Activation::Gelu))
    }

    /// `weight` and `bias` of a layer normalisation.
    pub(super) fn norm(&self, name: &str) -> Result<Norm> {
        let part = |part: &str| self.floats(&format!("{name}.{part}"));
        Ok(Norm { weight: part("weight")?, bias: part("bias")?, epsilon: EPSILON })
    }

    /// Some of an attention's products of the same input as one; the query's is scaled for heads of so many columns.
    pub(super) fn projections(&self, attention: &str, parts: &[&str], head_size: usize) -> Result<Linear> {
        let (mut weight, mut bias) = (Vec::new(), Vec::new());
        for &part in parts {
            let scale = if part == "query" { (head_size as f32).powf(-0.5) } else { 1.0 };
            weight.extend(self.floats(&format!("{attention}.{part}.weight"))?.iter().map(|w| w * scale));
            match part {
                "key" => bias.resize(bias.len() + self.source.config.d_model, 0.0),
                _ => bias.extend(self.floats(&format!("{attention}.{part}.bias"))?.iter().map(|b| b * scale)),
            }
        }
        Ok(Linear::new(&weight, bias, Activation::None))
    }
}

fn unloadable(source: &Source, error: &candle_core::Error) -> orion_proto::Error {
    let folder = source.tokenizer.parent().unwrap_or(std::path::Path::new("")).display();
    unservable(format!("the weights in {folder} cannot be loaded: {}", error.to_string().to_lowercase()))
}
