//! Fine-tuning: a model that is there already learns on.

use serde::{Deserialize, Serialize};

/// A BERT encoder that learns to tell classes of texts, from its first token, as transformers' `BertForSequenceClassification`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextClassifier {
    /// The model it begins with: a name in the workers' `--datasets` folder, or `store:NAME@VERSION`.
    pub base: String,
    /// Tokens of a text at most; what is longer is cut off at its end.
    #[serde(default = "TextClassifier::tokens")]
    pub tokens: usize,
    /// Share of the values before the last layer that is left out while training, 0 to 1.
    #[serde(default = "TextClassifier::dropout")]
    pub dropout: f32,
    /// Only small additions to the base are learnt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<Lora>,
}

impl TextClassifier {
    fn tokens() -> usize {
        128
    }

    fn dropout() -> f32 {
        0.1
    }
}

/// A decoder of the Llama family that learns to go on with texts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LanguageModel {
    /// The model it begins with: a name in the workers' `--datasets` folder, or `store:NAME@VERSION`.
    pub base: String,
    /// Tokens of a text at most; what is longer is cut off at its end.
    #[serde(default = "LanguageModel::tokens")]
    pub tokens: usize,
    /// Only small additions to the base are learnt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<Lora>,
}

impl LanguageModel {
    fn tokens() -> usize {
        256
    }
}

/// Low-rank adaptation: to each of these layers' weights the product of two narrow matrices is added, `alpha / rank` times (Hu
/// and others, arXiv:2106.09685).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lora {
    /// Columns of the one and rows of the other.
    pub rank: usize,
    /// How much of it is added, in ranks.
    pub alpha: f32,
    /// Which layers of each block, by the names that the model's family has for them; empty: those of queries and values.
    pub targets: Vec<String>,
}

impl Default for Lora {
    fn default() -> Self {
        Self { rank: 8, alpha: 16.0, targets: Vec::new() }
    }
}

impl Lora {
    /// How many times the product is added.
    pub fn scale(&self) -> f32 {
        self.alpha / self.rank.max(1) as f32
    }
}
