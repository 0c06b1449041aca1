//! What is trained: networks from nothing, and models that are there already.

use serde::{Deserialize, Serialize};

use super::{LanguageModel, TextClassifier};

/// What a network is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Architecture {
    /// Dense layers.
    Mlp(Mlp),
    /// Convolutions, then dense layers.
    Cnn(Cnn),
    /// Convolutions over an image and the words of a question about it, then classes of answers.
    ImageQuestion(ImageQuestion),
    /// A BERT encoder that is there already, with classes of texts.
    TextClassifier(TextClassifier),
    /// A decoder of the Llama family that is there already, with texts to go on with.
    LanguageModel(LanguageModel),
}

/// Dense layers, each followed by ReLU, then the classes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mlp {
    /// Width of each.
    pub hidden: Vec<usize>,
    /// Share of the values before the last layer that is left out while training, 0 to 1.
    #[serde(default)]
    pub dropout: f32,
}

/// Blocks of a convolution that keeps the image's size, ReLU and the greatest of 2 × 2 pixels; then dense layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cnn {
    /// What comes out of each block.
    pub channels: Vec<usize>,
    /// Pixels of a side of each convolution's window, odd.
    #[serde(default = "Cnn::kernel")]
    pub kernel: usize,
    /// Width of each dense layer.
    #[serde(default)]
    pub hidden: Vec<usize>,
    /// Share of the values before the last layer that is left out while training, 0 to 1.
    #[serde(default)]
    pub dropout: f32,
}

impl Cnn {
    fn kernel() -> usize {
        3
    }
}

/// Blocks as of a [`Cnn`] over the image, dense layers over which of the words there are, and dense layers over the product of
/// both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageQuestion {
    /// What comes out of each block.
    pub channels: Vec<usize>,
    /// Pixels of a side of each convolution's window, odd.
    #[serde(default = "Cnn::kernel")]
    pub kernel: usize,
    /// Width of each dense layer.
    #[serde(default = "ImageQuestion::hidden")]
    pub hidden: usize,
    /// Share of the values before the last layer that is left out while training, 0 to 1.
    #[serde(default)]
    pub dropout: f32,
}

impl ImageQuestion {
    fn hidden() -> usize {
        32
    }
}
