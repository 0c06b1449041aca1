//! A Magika model's `config.min.json`, and which of its labels are text, where that is known.

use std::{collections::HashMap, path::Path};

use orion_proto::Result;
use serde::Deserialize;

use crate::{file::read_json, unservable};

/// The file's name, beside `model.onnx`.
pub(super) const FILE: &str = "config.min.json";
/// What is said of each content type.
const KNOWLEDGE: &str = "content_types_kb.min.json";
/// Bytes that are looked at from either end; those of a real configuration are 4096.
const MOST_BYTES: usize = 1 << 20;
/// The label of a text and of anything else that the model is not sure of.
pub(super) const TEXT: &str = "txt";
pub(super) const UNKNOWN: &str = "unknown";

/// What the model takes and how its answers are read.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Config {
    /// Bytes from the beginning and from the end that the model sees.
    pub(super) beg_size: usize,
    mid_size: usize,
    pub(super) end_size: usize,
    use_inputs_at_offsets: bool,
    medium_confidence_threshold: f64,
    /// Shorter contents are not given to the model.
    pub(super) min_file_size_for_dl: usize,
    /// What stands where there is no byte.
    pub(super) padding_token: i32,
    /// Bytes at either end that the model's are taken from.
    pub(super) block_size: usize,
    pub(super) target_labels_space: Vec<String>,
    thresholds: HashMap<String, f64>,
    overwrite_map: HashMap<String, String>,
}

/// A configuration with what is known of the labels.
#[derive(Clone, Debug)]
pub(super) struct Labels {
    pub(super) config: Config,
    /// Of each label of the model what is answered where it is sure, where it is not, and how sure it must be.
    verdicts: Vec<Verdict>,
}

#[derive(Clone, Debug)]
struct Verdict {
    sure: String,
    is_text: Option<bool>,
    least_score: f64,
}

impl Config {
    /// Whether a folder has such a file with the keys of a Magika model.
    pub(super) fn is_in(folder: &Path) -> bool {
        Self::read(folder).is_ok()
    }

    fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let refused = |reason: String| unservable(format!("{}: {reason}", path.display()));
        let config: Self = read_json(&path)?;
        config.check().map_err(refused)?;
        Ok(config)
    }

    fn check(&self) -> std::result::Result<(), String> {
        let (begin, end, block) = (self.beg_size, self.end_size, self.block_size);
        if self.mid_size != 0 || self.use_inputs_at_offsets {
            return Err("bytes from the middle or at offsets are not served, mid_size must be 0".into());
        }
        if begin == 0 || block > MOST_BYTES || begin >= block || end >= block {
            return Err(format!(
                "beg_size is {begin}, end_size {end} and block_size {block}: the first must be more than 0, and both less \
                 than the last, which must be at most {MOST_BYTES}"
            ));
        }
        if !(1..=begin).contains(&self.min_file_size_for_dl) {
            return Err(format!("min_file_size_for_dl is {}, it must be 1 to beg_size", self.min_file_size_for_dl));
        }
        match self.target_labels_space.is_empty() {
            true => Err("target_labels_space is empty".into()),
            false => Ok(()),
        }
    }
}

impl Labels {
    /// Reads the configuration of a folder and what is known of its labels.
    ///
    /// # Errors
    /// FAILED_PRECONDITION naming the file and what is wrong in it.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let config = Config::read(folder)?;
        let texts = texts(folder)?;
        let verdict = |label: &String| {
            let sure = config.overwrite_map.get(label).unwrap_or(label).clone();
            let least_score = config.thresholds.get(label).copied().unwrap_or(config.medium_confidence_threshold);
            Verdict { is_text: texts.get(&sure).copied(), sure, least_score }
        };
        let verdicts = config.target_labels_space.iter().map(verdict).collect();
        Ok(Self { config, verdicts })
    }

    /// The label that is answered for one of the model's. `looks_like_text` is asked where nobody knows whether an unsure
    /// label is one of texts.
    pub(super) fn answered(&self, label: usize, score: f32, looks_like_text: impl FnOnce() -> bool) -> &str {
        match self.verdicts.get(label) {
            Some(verdict) if f64::from(score) >= verdict.least_score => &verdict.sure,
            verdict => {
                let known = verdict.and_then(|verdict| verdict.is_text);
                if known.unwrap_or_else(looks_like_text) { TEXT } else { UNKNOWN }
            }
        }
    }
}

/// Of each content type whether it is text, from the file beside the model; nothing where there is none.
fn texts(folder: &Path) -> Result<HashMap<String, bool>> {
    #[derive(Deserialize)]
    struct Type {
        is_text: bool,
    }
    let path = folder.join(KNOWLEDGE);
    if !path.is_file() {
        return Ok(HashMap::new());
    }
    let types: HashMap<String, Type> = read_json(&path)?;
    Ok(types.into_iter().map(|(label, known)| (label, known.is_text)).collect())
}
