//! A network in memory: batch normalisation folded into the weights, the weights packed for the kernels.

use std::sync::{Mutex, PoisonError};

use orion_proto::Result;

use super::{BatchNorm, Convolve, Network, Work, storage::Storage};
use crate::{
    Precision,
    checkpoint::Checkpoint,
    kernels::{Convolution, Depthwise, Map, Threads, Window, greatest},
};

enum Layer {
    Convolution(Convolution),
    Depthwise(Depthwise),
    Greatest(Window),
}

/// A loaded network.
pub(crate) struct Layers {
    network: Network,
    layers: Vec<Layer>,
    storage: Storage,
    /// Maps of images that are done: fresh memory would be faulted in page by page.
    maps: Mutex<Vec<Vec<Map>>>,
}

impl Layers {
    /// Reads the tensors, to be held in a precision; `progress` is told the share that is done.
    pub(crate) fn load(
        network: Network,
        checkpoint: &Checkpoint,
        precision: Precision,
        progress: &dyn Fn(f32),
    ) -> Result<Self> {
        let mut layers = Vec::new();
        for operation in &network.operations {
            layers.push(match &operation.work {
                Work::Convolve(convolve, window) => {
                    layer(convolve, *window, network.layout(operation.from).channels, checkpoint, precision)?
                }
                Work::Greatest(window) => Layer::Greatest(*window),
            });
            progress(layers.len() as f32 / network.operations.len() as f32);
        }
        let storage = Storage::of(&network);
        Ok(Self { network, layers, storage, maps: Mutex::default() })
    }

    /// Runs one image: `fill` writes its pixels, `take` reads what comes out.
    pub(crate) fn run<R>(&self, threads: Threads, fill: impl FnOnce(&mut Map), take: impl FnOnce(&Map) -> R) -> R {
        let lock = || self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        let mut maps = lock().pop().unwrap_or_else(|| self.storage.maps());
        let (layouts, places) = (&self.network.layouts, &self.storage.places);
        maps[places[0]].reshape(layouts[0]);
        fill(&mut maps[places[0]]);
        for (index, (layer, operation)) in self.layers.iter().zip(&self.network.operations).enumerate() {
            // Taken out, so that the others can be read meanwhile; it shares its place with none of them.
            let mut out = std::mem::take(&mut maps[places[index + 1]]);
            out.reshape(layouts[index + 1]);
            let x = &maps[places[operation.from.0]];
            let added = operation.added.map(|added| &maps[places[added.0]]);
            match layer {
                Layer::Convolution(layer) => layer.forward(threads, x, &mut out, added),
                Layer::Depthwise(layer) => layer.forward(threads, x, &mut out),
                Layer::Greatest(window) => greatest(threads, window, x, &mut out),
            }
            maps[places[index + 1]] = out;
        }
        let taken = take(&maps[places[self.layers.len()]]);
        lock().push(maps);
        taken
    }
}

fn layer(
    convolve: &Convolve,
    window: Window,
    channels: usize,
    checkpoint: &Checkpoint,
    precision: Precision,
) -> Result<Layer> {
    let Convolve { name, outputs, side, .. } = convolve;
    let inputs = if convolve.depthwise { 1 } else { channels };
    let mut weight = checkpoint.floats(&format!("{name}.weight"), &[*outputs, inputs, *side, *side])?;
    let mut bias = match convolve.biased {
        true => checkpoint.floats(&format!("{name}.bias"), &[*outputs])?,
        false => vec![0.0; *outputs],
    };
    if let Some(norm) = &convolve.norm {
        fold(norm, &mut weight, &mut bias, checkpoint)?;
    }
    Ok(match convolve.depthwise {
        // So few weights that they stay in f32.
        true => Layer::Depthwise(Depthwise::new(&weight, bias, window, convolve.limits)),
        false => Layer::Convolution(Convolution::new(&weight, bias, window, convolve.limits, precision)),
    })
}

/// Scales each output's weights by γ/√(variance + ε), and moves its bias along.
fn fold(norm: &BatchNorm, weight: &mut [f32], bias: &mut [f32], checkpoint: &Checkpoint) -> Result<()> {
    let tensors = norm.tensors();
    let part = |index: usize| checkpoint.floats(&tensors[index], &[bias.len()]);
    let (gamma, beta, mean, variance) = (part(0)?, part(1)?, part(2)?, part(3)?);
    let depth = weight.len() / bias.len();
    for (output, (bias, weight)) in bias.iter_mut().zip(weight.chunks_exact_mut(depth)).enumerate() {
        let scale = f64::from(gamma[output]) / (f64::from(variance[output]) + norm.epsilon).sqrt();
        *bias = (f64::from(beta[output]) + (f64::from(*bias) - f64::from(mean[output])) * scale) as f32;
        weight.iter_mut().for_each(|weight| *weight = (f64::from(*weight) * scale) as f32);
    }
    Ok(())
}
