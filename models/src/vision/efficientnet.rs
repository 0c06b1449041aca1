//! EfficientNet-Lite: EfficientNet (Tan and Le, 2019) without squeeze-and-excitation and with ReLU6, stem and head of one
//! size. Tensor names as in `efficientnet_lite_pytorch`.

use super::{
    architecture::Architecture,
    preparation::{Crop, Preparation},
};
use crate::{
    convnet::{BatchNorm, Convolve, Network, Padding, Value},
    imaging::Filter,
    kernels::Limits,
};

/// As `config.json` names it.
pub(crate) const MODEL_TYPE: &str = "efficientnet-lite";

/// Name, factor of the channels, factor of the blocks, pixels of a side.
const VARIANTS: [(&str, f64, f64, usize); 5] = [
    ("lite0", 1.0, 1.0, 224),
    ("lite1", 1.0, 1.1, 240),
    ("lite2", 1.1, 1.2, 260),
    ("lite3", 1.2, 1.4, 280),
    ("lite4", 1.4, 1.8, 300),
];
/// Each stage's window, stride, factor of its expansion, output channels and blocks.
const STAGES: [(usize, usize, usize, usize, usize); 7] = [
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
];
const STEM: usize = 32;
const HEAD: usize = 1280;
const EPSILON: f64 = 1e-3;

/// The network of a variant; `lite0` where none is named.
pub(super) fn describe(variant: Option<&str>) -> Result<Architecture, String> {
    let wanted = variant.unwrap_or("lite0");
    let plain = wanted.trim_start_matches("efficientnet-");
    let Some((_, wider, deeper, side)) = VARIANTS.into_iter().find(|(name, ..)| *name == plain) else {
        let known = VARIANTS.map(|(name, ..)| name).join(", ");
        return Err(format!("variant '{wanted}' is unknown, known are: {known}"));
    };
    let (mean, deviation) = ([127.0; 3], [128.0; 3]);
    let preparation = Preparation { side, crop: Crop::Square, filter: Filter::Bicubic, unit: 1.0, mean, deviation };
    Ok(Architecture { preparation, network: network(wider, deeper, side)?, head: "_fc" })
}

fn network(wider: f64, deeper: f64, side: usize) -> Result<Network, String> {
    let mut network = Network::new(side, side, 3);
    let stem = Convolve { side: 3, stride: 2, ..pixel("_conv_stem", "_bn0", STEM, Limits::RELU6) };
    network.convolve(network.output(), stem, None)?;
    let mut index = 0;
    for (stage, (side, stride, factor, outputs, blocks)) in STAGES.into_iter().enumerate() {
        let ends = stage == 0 || stage + 1 == STAGES.len();
        let blocks = if ends { blocks } else { (blocks as f64 * deeper).ceil() as usize };
        for block in 0..blocks {
            let shape =
                Block { side, stride: if block == 0 { stride } else { 1 }, factor, outputs: wide(outputs, wider) };
            shape.append(&mut network, &format!("_blocks.{index}"))?;
            index += 1;
        }
    }
    network.convolve(network.output(), pixel("_conv_head", "_bn1", HEAD, Limits::RELU6), None)?;
    Ok(network)
}

/// Channels times a factor, as a multiple of 8 that is not below nine tenths of it.
fn wide(channels: usize, wider: f64) -> usize {
    let exact = channels as f64 * wider;
    let near = ((exact + 4.0) as usize / 8 * 8).max(8);
    if (near as f64) < 0.9 * exact { near + 8 } else { near }
}

/// An inverted residual block: wider by a factor, filtered channel by channel, narrower again.
struct Block {
    side: usize,
    stride: usize,
    factor: usize,
    outputs: usize,
}

impl Block {
    fn append(&self, network: &mut Network, name: &str) -> Result<(), String> {
        let from = network.output();
        let inputs = network.layout(from).channels;
        let layer = |part: &str, norm: &str, outputs, limits| {
            pixel(&format!("{name}.{part}"), &format!("{name}.{norm}"), outputs, limits)
        };
        let wide = inputs * self.factor;
        let mut last: Value = from;
        if self.factor != 1 {
            last = network.convolve(last, layer("_expand_conv", "_bn0", wide, Limits::RELU6), None)?;
        }
        let filter = layer("_depthwise_conv", "_bn1", wide, Limits::RELU6);
        last = network.convolve(
            last,
            Convolve { side: self.side, stride: self.stride, depthwise: true, ..filter },
            None,
        )?;
        let added = (self.stride == 1 && inputs == self.outputs).then_some(from);
        network.convolve(last, layer("_project_conv", "_bn2", self.outputs, Limits::NONE), added)?;
        Ok(())
    }
}

/// A convolution of single pixels with its normalisation.
fn pixel(name: &str, norm: &str, outputs: usize, limits: Limits) -> Convolve {
    let norm = Some(BatchNorm { name: norm.into(), epsilon: EPSILON });
    let padding = Padding::Same;
    Convolve { name: name.into(), biased: false, norm, outputs, side: 1, stride: 1, padding, depthwise: false, limits }
}
