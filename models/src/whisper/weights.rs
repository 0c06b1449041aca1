//! Weights as the layers take them: packed for many rows, where they lie in their files for few.

use orion_proto::Result;

use super::{
    Source,
    dense::{Dense, Weight},
};
use crate::{
    checkpoint::{Checkpoint, Element},
    generation::kernels::Matrix,
    gguf::Encoding,
    kernels::{Activation, Linear, Norm},
    mapped, unservable,
};

/// The epsilon of every layer normalisation.
const EPSILON: f32 = 1e-5;

/// The weights of a model, memory-mapped.
pub(super) struct Weights<'a> {
    source: &'a Source,
    checkpoint: Checkpoint,
}

impl<'a> Weights<'a> {
    /// Maps the files.
    pub(super) fn open(source: &'a Source) -> Result<Self> {
        let checkpoint = Checkpoint::open(&source.folder)?;
        // They may have changed since the folder was inspected.
        source.check(&checkpoint)?;
        Ok(Self { source, checkpoint })
    }

    /// Reads what is used where it lies, so that no request waits for the disk.
    pub(super) fn read_ahead(&self, progress: &dyn Fn(f32)) {
        mapped::read_ahead(self.checkpoint.files(), progress);
    }

    /// A tensor `[outputs, inputs]`.
    pub(super) fn matrix(&self, name: &str, outputs: usize) -> Result<Matrix> {
        let name = self.source.stored_name(name);
        let refused =
            |reason: String| unservable(format!("{}: tensor '{name}' {reason}", self.source.folder.display()));
        let entry = self.checkpoint.get(&name).ok_or_else(|| refused("is missing".into()))?;
        let encoding = match entry.element {
            Element::F32 => Encoding::F32,
            Element::F16 => Encoding::F16,
            Element::Bf16 => Encoding::Bf16,
            other => return Err(refused(format!("is {other}, it must be F32, F16 or BF16"))),
        };
        let inputs = entry.elements() as usize / outputs.max(1);
        let matrix = self.checkpoint.mapped(entry).and_then(|bytes| Matrix::new(bytes, encoding, outputs, inputs));
        matrix.ok_or_else(|| refused(format!("has shape {:?}, it must have {outputs} rows", entry.shape)))
    }

    /// A tensor's values.
    pub(super) fn floats(&self, name: &str) -> Result<Vec<f32>> {
        let name = self.source.stored_name(name);
        let shape = self.checkpoint.get(&name).map(|entry| entry.shape.clone()).unwrap_or_default();
        self.checkpoint.floats(&name, &shape)
    }

    /// A dense layer for few rows.
    pub(super) fn dense(&self, name: &str, outputs: usize, activates: bool) -> Result<Dense> {
        let bias = Some(self.floats(&format!("{name}.bias"))?);
        let matrix = self.matrix(&format!("{name}.weight"), outputs)?;
        Ok(Dense::new(vec![Weight { matrix, bias, scale: 1.0 }], activates))
    }

    /// Some of an attention's products for few rows, as [`Self::projections`] for many.
    pub(super) fn dense_projections(&self, attention: &str, parts: &[&str], head_size: usize) -> Result<Dense> {
        let weight = |part: &&str| -> Result<Weight> {
            let name = format!("{attention}.{part}");
            let bias = if *part == "key" { None } else { Some(self.floats(&format!("{name}.bias"))?) };
            let scale = if *part == "query" { (head_size as f32).powf(-0.5) } else { 1.0 };
            Ok(Weight { matrix: self.matrix(&format!("{name}.weight"), self.source.config.d_model)?, bias, scale })
        };
        Ok(Dense::new(parts.iter().map(weight).collect::<Result<_>>()?, false))
    }

    fn packed(&self, weight: &[f32], bias: Vec<f32>, activation: Activation) -> Linear {
        Linear::held_in(self.source.precision, weight, bias, activation)
    }

    /// `weight` and `bias` of a dense layer.
    pub(super) fn linear(&self, name: &str, activation: Activation) -> Result<Linear> {
        let bias = self.floats(&format!("{name}.bias"))?;
        Ok(self.packed(&self.floats(&format!("{name}.weight"))?, bias, activation))
    }

    /// A convolution over time, `[outputs, inputs, 3]`, as the dense layer of three neighbouring steps.
    pub(super) fn convolution(&self, name: &str) -> Result<Linear> {
        let bias = self.floats(&format!("{name}.bias"))?;
        let weight = self.floats(&format!("{name}.weight"))?;
        let inputs = weight.len() / bias.len() / 3;
        let by_step =
            |output: &[f32]| -> Vec<f32> { (0..3 * inputs).map(|at| output[at % inputs * 3 + at / inputs]).collect() };
        let weight: Vec<f32> = weight.chunks_exact(3 * inputs).flat_map(by_step).collect();
        Ok(self.packed(&weight, bias, Activation::Gelu))
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
        Ok(self.packed(&weight, bias, Activation::None))
    }
}
