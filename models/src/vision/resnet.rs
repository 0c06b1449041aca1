//! ResNet (He et al., 2015), with torchvision's tensor names (a `variant`) or Hugging Face's (`depths`).

use serde::Deserialize;

use super::{architecture::Architecture, preparation::Preparation};
use crate::{
    convnet::{BatchNorm, Convolve, Network, Padding, Value},
    kernels::{Border, Limits, Window},
};

/// As `config.json` names it.
pub(crate) const MODEL_TYPE: &str = "resnet";

const EPSILON: f64 = 1e-5;
/// A bottleneck's inner channels are its outputs divided by this.
const REDUCTION: usize = 4;
/// No known network has more of either.
const MOST_CHANNELS: usize = 1 << 13;
const MOST_BLOCKS: usize = 1 << 8;

/// Hugging Face's keys.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub(super) struct Config {
    depths: Vec<usize>,
    hidden_sizes: Vec<usize>,
    embedding_size: usize,
    layer_type: Layer,
    hidden_act: String,
    num_channels: usize,
    downsample_in_first_stage: bool,
    downsample_in_bottleneck: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Layer {
    Basic,
    Bottleneck,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            depths: vec![3, 4, 6, 3],
            hidden_sizes: vec![256, 512, 1024, 2048],
            embedding_size: 64,
            layer_type: Layer::Bottleneck,
            hidden_act: "relu".into(),
            num_channels: 3,
            downsample_in_first_stage: false,
            downsample_in_bottleneck: false,
        }
    }
}

/// Whose tensor names a checkpoint has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    Torchvision,
    HuggingFace,
}

/// The network of a torchvision variant, or of Hugging Face's keys where none is named.
pub(super) fn describe(
    variant: Option<&str>,
    config: &Config,
    preparation: Preparation,
) -> Result<Architecture, String> {
    let sized = |depths: [usize; 4], layer_type, wider: usize| Config {
        depths: depths.into(),
        hidden_sizes: [64, 128, 256, 512].map(|channels| channels * wider).into(),
        layer_type,
        ..Config::default()
    };
    let (config, names) = match variant {
        Some("resnet18") => (sized([2, 2, 2, 2], Layer::Basic, 1), Names::Torchvision),
        Some("resnet34") => (sized([3, 4, 6, 3], Layer::Basic, 1), Names::Torchvision),
        Some("resnet50") => (sized([3, 4, 6, 3], Layer::Bottleneck, 4), Names::Torchvision),
        Some(other) => return Err(format!("variant '{other}' is unknown, known are: resnet18, resnet34, resnet50")),
        None => (config.clone(), Names::HuggingFace),
    };
    config.check()?;
    let head = if names == Names::Torchvision { "fc" } else { "classifier.1" };
    Ok(Architecture { preparation, network: config.network(names, preparation.side)?, head })
}

impl Config {
    fn check(&self) -> Result<(), String> {
        let Self { depths, hidden_sizes, embedding_size, hidden_act, num_channels, .. } = self;
        if depths.is_empty() || depths.len() != hidden_sizes.len() {
            let (stages, sizes) = (depths.len(), hidden_sizes.len());
            return Err(format!(
                "depths has {stages} stages and hidden_sizes {sizes}, both must have the same, 1 or more"
            ));
        }
        if depths.contains(&0) || depths.iter().any(|depth| *depth > MOST_BLOCKS) || depths.len() > MOST_BLOCKS {
            return Err(format!("depths is {depths:?}, each must be 1 to {MOST_BLOCKS}"));
        }
        let fits = |channels: usize| (1..=MOST_CHANNELS).contains(&channels) && channels.is_multiple_of(REDUCTION);
        if let Some(channels) = hidden_sizes.iter().chain([embedding_size]).find(|channels| !fits(**channels)) {
            return Err(format!(
                "a layer has {channels} channels, it must be a multiple of {REDUCTION} up to {MOST_CHANNELS}"
            ));
        }
        match (hidden_act.as_str(), num_channels) {
            ("relu", 3) => Ok(()),
            ("relu", channels) => Err(format!("num_channels is {channels}, only 3 are served")),
            (activation, _) => Err(format!("hidden_act '{activation}' is not served yet, only 'relu'")),
        }
    }

    fn network(&self, names: Names, side: usize) -> Result<Network, String> {
        let mut network = Network::new(side, side, 3);
        let (stem, norm) = match names {
            Names::Torchvision => ("conv1", "bn1"),
            Names::HuggingFace => ("resnet.embedder.embedder.convolution", "resnet.embedder.embedder.normalization"),
        };
        let stem = convolve((stem.into(), norm.into()), self.embedding_size, 7, 2, Limits::RELU);
        network.convolve(network.output(), stem, None)?;
        network.greatest(network.output(), Window { side: 3, stride: (2, 2), border: Border::even(1) })?;
        for (stage, (depth, outputs)) in self.depths.iter().zip(&self.hidden_sizes).enumerate() {
            for block in 0..*depth {
                let first = block == 0 && (stage > 0 || self.downsample_in_first_stage);
                self.append(&mut network, &Block { names, stage, block }, *outputs, if first { 2 } else { 1 })?;
            }
        }
        Ok(network)
    }

    /// A residual block; what it adds is its input, or a projection of it where sizes differ.
    fn append(&self, network: &mut Network, block: &Block, outputs: usize, stride: usize) -> Result<(), String> {
        let from = network.output();
        let mut added: Value = from;
        if stride != 1 || network.layout(from).channels != outputs {
            added = network.convolve(from, convolve(block.projection(), outputs, 1, stride, Limits::NONE), None)?;
        }
        let inner = outputs / REDUCTION;
        let (early, late) = if self.downsample_in_bottleneck { (stride, 1) } else { (1, stride) };
        // Channels, window and stride of each convolution.
        let layers = match self.layer_type {
            Layer::Basic => vec![(outputs, 3, stride), (outputs, 3, 1)],
            Layer::Bottleneck => vec![(inner, 1, early), (inner, 3, late), (outputs, 1, 1)],
        };
        let mut last = from;
        for (index, (channels, side, stride)) in layers.iter().enumerate() {
            let added = (index + 1 == layers.len()).then_some(added);
            last =
                network.convolve(last, convolve(block.layer(index), *channels, *side, *stride, Limits::RELU), added)?;
        }
        Ok(())
    }
}

/// A block's place, from which its tensors' names follow: convolution and normalisation.
struct Block {
    names: Names,
    stage: usize,
    block: usize,
}

impl Block {
    fn layer(&self, index: usize) -> (String, String) {
        let Self { names, stage, block } = self;
        match names {
            Names::Torchvision => {
                let place = format!("layer{}.{block}", stage + 1);
                (format!("{place}.conv{}", index + 1), format!("{place}.bn{}", index + 1))
            }
            Names::HuggingFace => {
                let place = format!("resnet.encoder.stages.{stage}.layers.{block}.layer.{index}");
                (format!("{place}.convolution"), format!("{place}.normalization"))
            }
        }
    }

    fn projection(&self) -> (String, String) {
        let Self { names, stage, block } = self;
        match names {
            Names::Torchvision => {
                let place = format!("layer{}.{block}.downsample", stage + 1);
                (format!("{place}.0"), format!("{place}.1"))
            }
            Names::HuggingFace => {
                let place = format!("resnet.encoder.stages.{stage}.layers.{block}.shortcut");
                (format!("{place}.convolution"), format!("{place}.normalization"))
            }
        }
    }
}

/// A convolution with its normalisation, padded by half its window.
fn convolve((name, norm): (String, String), outputs: usize, side: usize, stride: usize, limits: Limits) -> Convolve {
    let norm = Some(BatchNorm { name: norm, epsilon: EPSILON });
    let padding = Padding::Even(side / 2);
    Convolve { name, biased: false, norm, outputs, side, stride, padding, depthwise: false, limits }
}
