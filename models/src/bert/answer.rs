//! The tensors that a model takes and gives for what it is for.

use bytes::Bytes;
use orion_proto::{Datatype, Payload, Tensor, TensorSpec, encode_bytes_elements};

use super::{
    TYPICAL_TOKENS,
    task::{Score, Task},
};

/// Words of a typical query.
const QUERY_WORDS: usize = 6;

/// What it takes. That a query is not called `text_pair` keeps the two texts from being mixed up: they are not alike.
pub(super) fn inputs(task: &Task) -> Vec<TensorSpec> {
    let (first, second) = task.texts();
    let mut inputs = vec![TensorSpec::new(first, Datatype::Bytes, [-1])];
    inputs.extend(second.map(|name| match task {
        // Some classifiers are of single texts and some of pairs, and nothing in their files says which.
        Task::Classification { .. } => TensorSpec::optional(name, Datatype::Bytes, [-1]),
        _ => TensorSpec::new(name, Datatype::Bytes, [-1]),
    }));
    inputs
}

/// What it gives.
pub(super) fn outputs(task: &Task, hidden: usize) -> Vec<TensorSpec> {
    let score = || TensorSpec::new("score", Datatype::Fp32, [-1]);
    match task {
        Task::Embedding => vec![TensorSpec::new("embedding", Datatype::Fp32, [-1, hidden as i64])],
        Task::Classification { labels, .. } => vec![
            TensorSpec::new("logits", Datatype::Fp32, [-1, labels.len() as i64]),
            TensorSpec::new("label", Datatype::Bytes, [-1]),
            score(),
        ],
        Task::Reranking { .. } => vec![score()],
    }
}

/// The outputs as they were declared, of what the network gives for each row.
pub(super) fn tensors(task: &Task, declared: &[TensorSpec], rows: &[Vec<f32>]) -> Vec<Tensor> {
    let data: Vec<Bytes> = match task {
        Task::Embedding => vec![floats(rows.iter().flatten().copied())],
        Task::Reranking { score } => vec![floats(rows.iter().map(|logits| score.of(logits)))],
        Task::Classification { labels, score } => {
            let best: Vec<&str> = rows.iter().map(|logits| labels[greatest(logits)].as_str()).collect();
            vec![
                floats(rows.iter().flatten().copied()),
                encode_bytes_elements(&best),
                floats(rows.iter().map(|logits| score.of(logits))),
            ]
        }
    };
    let tensor = |(spec, data): (&TensorSpec, Bytes)| Tensor {
        name: spec.name.clone(),
        datatype: spec.datatype,
        shape: std::iter::once(rows.len() as i64).chain(spec.shape.iter().skip(1).copied()).collect(),
        data: Payload::from(data),
    };
    declared.iter().zip(data).map(tensor).collect()
}

/// A typical request of so many rows: a word of one letter is one token, and special ones stand around the texts.
pub(super) fn sample(task: &Task, rows: usize) -> Vec<Tensor> {
    let texts = |name: &str, words: usize| Tensor {
        name: name.into(),
        datatype: Datatype::Bytes,
        shape: vec![rows as i64],
        data: Payload::from(encode_bytes_elements(&vec!["a ".repeat(words); rows])),
    };
    match task.texts() {
        (query, Some(text)) if matches!(task, Task::Reranking { .. }) => {
            vec![texts(query, QUERY_WORDS), texts(text, TYPICAL_TOKENS - 3 - QUERY_WORDS)]
        }
        (text, _) => vec![texts(text, TYPICAL_TOKENS - 2)],
    }
}

impl Score {
    /// The score of the greatest logit.
    fn of(self, logits: &[f32]) -> f32 {
        let best = logits[greatest(logits)];
        match self {
            Self::Raw => best,
            Self::Sigmoid => 1.0 / (1.0 + (-best).exp()),
            Self::Softmax => 1.0 / logits.iter().map(|logit| (logit - best).exp()).sum::<f32>(),
        }
    }
}

/// The place of the first greatest value; rows of a head have one at least.
fn greatest(logits: &[f32]) -> usize {
    let later = |best: usize, (at, value): (usize, &f32)| if *value > logits[best] { at } else { best };
    logits.iter().enumerate().fold(0, later)
}

fn floats(values: impl Iterator<Item = f32>) -> Bytes {
    values.flat_map(f32::to_le_bytes).collect()
}
