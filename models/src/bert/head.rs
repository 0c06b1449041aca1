//! The head of a model that classifies or reranks: BERT's pooler and one dense layer.

use orion_proto::Result;

use super::{Source, task::CLASSIFIER};
use crate::{
    Precision,
    checkpoint::Checkpoint,
    kernels::{Activation, Linear},
};

/// From the first token's vector to a logit for each label. In f32 whatever the encoder computes in: it is a thousandth
/// of the work, and its results are what the client sees.
pub(super) struct Head {
    pooler: Linear,
    classifier: Linear,
    labels: usize,
}

impl Head {
    /// The tensors that a head reads, with their shapes: weight and bias of the pooler and of the classifier.
    pub(super) fn tensors(prefix: &str, hidden: usize, labels: usize) -> [(String, Vec<usize>); 4] {
        let dot = if prefix.is_empty() { "" } else { "." };
        [
            (format!("{prefix}{dot}pooler.dense.weight"), vec![hidden, hidden]),
            (format!("{prefix}{dot}pooler.dense.bias"), vec![hidden]),
            (CLASSIFIER.to_owned(), vec![labels, hidden]),
            ("classifier.bias".to_owned(), vec![labels]),
        ]
    }

    /// Bytes of the packed weights.
    pub(super) fn bytes(hidden: usize, labels: usize) -> u64 {
        let bytes = |outputs: usize| Linear::bytes(hidden, outputs, Precision::F32);
        bytes(hidden).saturating_add(bytes(labels))
    }

    /// Reads the weights.
    pub(super) fn load(source: &Source) -> Result<Self> {
        let (hidden, labels) = (source.config.hidden_size, source.task.labels());
        let checkpoint = Checkpoint::open(&source.folder)?;
        let floats = |(name, shape): &(String, Vec<usize>)| checkpoint.floats(name, shape);
        let [weight, bias, classifier, classifier_bias] = &Self::tensors(source.prefix, hidden, labels);
        Ok(Self {
            pooler: Linear::new(&floats(weight)?, floats(bias)?, Activation::None),
            classifier: Linear::new(&floats(classifier)?, floats(classifier_bias)?, Activation::None),
            labels,
        })
    }

    /// The logits of rows, one after the other, of their first tokens' vectors.
    pub(super) fn logits(&self, rows: usize, first: &[f32]) -> Vec<f32> {
        let mut pooled = vec![0.0; first.len()];
        self.pooler.forward(first, &mut pooled);
        pooled.iter_mut().for_each(|x| *x = x.tanh());
        let mut logits = vec![0.0; rows * self.labels];
        self.classifier.forward(&pooled, &mut logits);
        logits
    }
}
