//! What a BERT model is for, from `config.json`, its classifier's shape and `orion.toml`.

use std::{collections::BTreeMap, path::Path};

use orion_proto::Result;
use serde::Deserialize;

use crate::{checkpoint::Checkpoint, file::read_json, orion_toml::Kind, unservable};

/// What `architectures` names where the weights end in a classifier.
const WITH_HEAD: &str = "BertForSequenceClassification";
/// The classifier's weight: a row for each label.
pub(super) const CLASSIFIER: &str = "classifier.weight";

/// What is made of the encoder's output.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Task {
    /// The mean of all tokens at unit length.
    Embedding,
    /// Each label's logit, the best label and its score.
    Classification { labels: Vec<String>, score: Score },
    /// How well a text fits a query: the score of the only label.
    Reranking { score: Score },
}

/// What makes a score of logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Score {
    Softmax,
    Sigmoid,
    /// The logit itself.
    Raw,
}

/// How the tokens of a row become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pooling {
    /// Their mean at unit length.
    Mean,
    /// The first one, which stands for the whole row.
    First,
}

/// What `config.json` says of a head; all of it may be missing or null.
#[derive(Debug, Deserialize)]
struct HeadConfig {
    architectures: Option<Vec<String>>,
    num_labels: Option<usize>,
    id2label: Option<BTreeMap<usize, String>>,
    problem_type: Option<String>,
    sentence_transformers: Option<CrossEncoderConfig>,
    /// Where sentence-transformers wrote `activation_fn` before its version 4.
    sbert_ce_default_activation_function: Option<String>,
}

/// In `config.json` since version 4, in a file of its own since version 5.
#[derive(Debug, Deserialize)]
struct CrossEncoderConfig {
    activation_fn: Option<String>,
}

impl Task {
    /// What the folder's files say, or its owner in `orion.toml`.
    pub(super) fn read(folder: &Path, asked: Option<Kind>, checkpoint: &Checkpoint) -> Result<Self> {
        let path = folder.join("config.json");
        let mut config: HeadConfig = read_json(&path)?;
        let has_head = config.architectures.iter().flatten().any(|name| name == WITH_HEAD);
        if asked.map_or(!has_head, |kind| kind == Kind::SentenceEmbedding) {
            return Ok(Self::Embedding);
        }
        let own = folder.join("config_sentence_transformers.json");
        if own.exists() {
            let own: CrossEncoderConfig = read_json(&own)?;
            config.sentence_transformers =
                Some(own).filter(|own| own.activation_fn.is_some()).or(config.sentence_transformers);
        }
        let refused = |reason: String| unservable(format!("{}: {reason}", path.display()));
        let Some(classifier) = checkpoint.get(CLASSIFIER) else {
            return Err(refused(format!(
                "tensor '{CLASSIFIER}' is missing, a model that classifies or reranks must have it; the encoder alone \
                 is served with kind = \"sentence-embedding\" in orion.toml"
            )));
        };
        // How many labels there are is the checkpoint's to say.
        let labels = classifier.shape.first().copied().unwrap_or(0);
        config.task(asked, labels).map_err(refused)
    }

    /// The family's name.
    pub(super) fn family(&self) -> &'static str {
        match self {
            Self::Embedding => "sentence-embedding",
            Self::Classification { .. } => "text-classification",
            Self::Reranking { .. } => "reranker",
        }
    }

    /// The names of the inputs that hold a row's texts: the first, and the second where there may be one.
    pub(super) fn texts(&self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Embedding => ("text", None),
            Self::Classification { .. } => ("text", Some("text_pair")),
            Self::Reranking { .. } => ("query", Some("text")),
        }
    }

    /// How the encoder's output is pooled.
    pub(super) fn pooling(&self) -> Pooling {
        if *self == Self::Embedding { Pooling::Mean } else { Pooling::First }
    }

    /// Labels of the head; none without one.
    pub(super) fn labels(&self) -> usize {
        match self {
            Self::Embedding => 0,
            Self::Classification { labels, .. } => labels.len(),
            Self::Reranking { .. } => 1,
        }
    }
}

impl HeadConfig {
    fn task(&self, asked: Option<Kind>, labels: usize) -> std::result::Result<Task, String> {
        if labels == 0 {
            return Err(format!("tensor '{CLASSIFIER}' has no labels, it must have one"));
        }
        let named = self.id2label.as_ref().filter(|names| !names.is_empty());
        for (key, count) in [("num_labels", self.num_labels), ("the count of id2label", named.map(BTreeMap::len))] {
            if let Some(count) = count.filter(|&count| count != labels) {
                return Err(format!("{key} is {count}, tensor '{CLASSIFIER}' has {labels} labels: they must agree"));
            }
        }
        match asked {
            Some(Kind::Reranker) if labels > 1 => {
                Err(format!("tensor '{CLASSIFIER}' has {labels} labels, a reranker has 1"))
            }
            Some(Kind::TextClassification) => self.classification(named, labels),
            _ if labels > 1 => self.classification(named, labels),
            _ => Ok(Task::Reranking { score: self.relevance()? }),
        }
    }

    fn classification(
        &self,
        named: Option<&BTreeMap<usize, String>>,
        labels: usize,
    ) -> std::result::Result<Task, String> {
        let name = |label: usize| match named {
            // As transformers names them.
            None => Ok(format!("LABEL_{label}")),
            Some(names) => names.get(&label).cloned().ok_or_else(|| format!("id2label has no name for label {label}")),
        };
        // In the order of transformers' pipeline, which takes one label for a probability unless it is said to be none.
        let score = match self.problem_type.as_deref() {
            Some("regression") => Score::Raw,
            Some("multi_label_classification") => Score::Sigmoid,
            None | Some("single_label_classification") if labels == 1 => Score::Sigmoid,
            None | Some("single_label_classification") => Score::Softmax,
            Some(other) => {
                return Err(format!(
                    "problem_type '{other}' is unknown, it must be single_label_classification, \
                     multi_label_classification or regression"
                ));
            }
        };
        Ok(Task::Classification { labels: (0..labels).map(name).collect::<std::result::Result<_, _>>()?, score })
    }

    /// The score of a reranker, as sentence-transformers' `CrossEncoder` has it: a sigmoid where nothing is named.
    fn relevance(&self) -> std::result::Result<Score, String> {
        let new = self.sentence_transformers.as_ref().and_then(|config| config.activation_fn.as_deref());
        let Some(path) = new.or(self.sbert_ce_default_activation_function.as_deref()) else {
            return Ok(Score::Sigmoid);
        };
        // The path of a class of torch, such as `torch.nn.modules.linear.Identity`.
        match path.rsplit('.').next() {
            Some("Sigmoid") => Ok(Score::Sigmoid),
            Some("Identity") => Ok(Score::Raw),
            _ => Err(format!("activation_fn '{path}' is not served, only Sigmoid and Identity")),
        }
    }
}
