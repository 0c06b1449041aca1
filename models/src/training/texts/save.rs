//! What was learnt as a folder of transformers' `BertForSequenceClassification`.

use std::path::Path;

use orion_proto::Result;
use serde_json::{Map, Value, json};

use super::Texts;
use crate::{
    file::read_json,
    training::{
        Progress,
        trained::{copy_tokenizer, write},
    },
};

/// What a base may say of a head that it had.
const OF_HEADS: [&str; 3] = ["num_labels", "sentence_transformers", "sbert_ce_default_activation_function"];

pub(super) fn save(texts: &Texts, values: &[f32], progress: &Progress, folder: &Path) -> Result<()> {
    copy_tokenizer(&texts.source.folder, folder)?;
    let mut config: Map<String, Value> = read_json(&texts.source.folder.join("config.json"))?;
    config.retain(|key, _| !OF_HEADS.contains(&key.as_str()));
    let labels = || texts.labels.iter().enumerate();
    let names: Map<String, Value> = labels().map(|(at, label)| (at.to_string(), json!(label))).collect();
    let numbers: Map<String, Value> = labels().map(|(at, label)| (label.clone(), json!(at))).collect();
    config.extend([
        ("architectures".into(), json!(["BertForSequenceClassification"])),
        ("problem_type".into(), json!("single_label_classification")),
        ("id2label".into(), names.into()),
        ("label2id".into(), numbers.into()),
        ("metrics".into(), json!(progress)),
    ]);
    write(folder, &texts.encoder.adapted.written(values)?, &config)
}
