//! A folder with a BERT model before it is loaded.

use std::path::{Path, PathBuf};

use orion_proto::{Error, ModelName, ModelPolicy, ModelSpec, Result};
use serde::Deserialize;

use super::{BertConfig, TYPICAL_TOKENS, answer, buckets, head::Head, task::Task};
use crate::{Precision, checkpoint::Checkpoint, orion_toml::Kind, unservable};

/// The files of a model, whose headers were found to fit its configuration.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) config: BertConfig,
    pub(crate) folder: PathBuf,
    pub(crate) tokenizer: PathBuf,
    /// What stands before each tensor's name: nothing, or `bert` in files saved with a head.
    pub(crate) prefix: &'static str,
    pub(crate) precision: Precision,
    pub(super) task: Task,
    /// Bytes of the weight files.
    pub(crate) weight_bytes: u64,
    /// Of the encoder.
    parameters: u64,
}

impl Source {
    /// Reads the configuration and the headers of a folder, whose owner may say in `orion.toml` what it is for.
    pub(crate) fn inspect(folder: &Path, asked: Option<Kind>, precision: Precision) -> Result<Self> {
        Self::read(folder, asked, precision, true)
    }

    /// The same for its encoder alone, whatever is made of that.
    pub(crate) fn inspect_encoder(folder: &Path) -> Result<Self> {
        Self::read(folder, Some(Kind::SentenceEmbedding), Precision::F32, false)
    }

    fn read(folder: &Path, asked: Option<Kind>, precision: Precision, pools: bool) -> Result<Self> {
        let config = BertConfig::read(folder)?;
        let tokenizer = folder.join("tokenizer.json");
        if !tokenizer.is_file() {
            return Err(unservable(format!("folder {} has no tokenizer.json", folder.display())));
        }
        let checkpoint = Checkpoint::open(folder)?;
        let task = Task::read(folder, asked, &checkpoint)?;
        if pools && task == Task::Embedding {
            check_pooling(folder)?;
        }
        let bare = checkpoint.get("embeddings.word_embeddings.weight").is_some();
        let prefix = if bare { "" } else { "bert" };
        let mut parameters = 0u64;
        for (name, shape) in config.tensors() {
            let name = if bare { name } else { format!("{prefix}.{name}") };
            parameters = parameters.saturating_add(checkpoint.expect(&name, &shape)?.elements());
        }
        if task != Task::Embedding {
            for (name, shape) in Head::tensors(prefix, config.hidden_size, task.labels()) {
                checkpoint.expect(&name, &shape)?;
            }
        }
        let weight_bytes = checkpoint.file_bytes();
        Ok(Self { config, folder: folder.into(), tokenizer, prefix, precision, task, weight_bytes, parameters })
    }

    /// What it takes and gives once it is loaded.
    pub(crate) fn spec(&self, name: &ModelName, version: String, max_batch_rows: usize) -> ModelSpec {
        ModelSpec {
            name: name.clone(),
            version,
            family: self.task.family().into(),
            inputs: answer::inputs(&self.task),
            outputs: answer::outputs(&self.task, self.config.hidden_size),
            max_batch_rows,
            memory_bytes: self.memory_bytes(max_batch_rows),
            inline: false,
            policy: ModelPolicy::default(),
            generator: None,
        }
    }

    /// Floating-point operations for a typical row; a head's are a thousandth of them.
    pub(crate) fn flops(&self) -> f64 {
        self.config.flops(TYPICAL_TOKENS)
    }

    /// Bytes of the weights in their precision, and of the activations of as many buckets as run at once.
    fn memory_bytes(&self, max_batch_rows: usize) -> u64 {
        let size: u64 = if self.precision == Precision::F32 { 4 } else { 2 };
        let BertConfig { hidden_size, intermediate_size, num_attention_heads, max_position_embeddings, .. } =
            self.config;
        let buckets = std::thread::available_parallelism().map_or(1, usize::from);
        // A bucket closes once it has its tokens, so it may pass them by one row.
        let open = buckets.saturating_mul(buckets::MOST_TOKENS + max_position_embeddings);
        let tokens = open.min(max_batch_rows.saturating_mul(max_position_embeddings)) as u64;
        let a_token = 6 * hidden_size + intermediate_size + num_attention_heads * max_position_embeddings;
        let head = match self.task.labels() {
            0 => 0,
            labels => Head::bytes(hidden_size, labels),
        };
        // Positions are kept in f32, once for each type of token.
        let places = (max_position_embeddings * hidden_size) as u64;
        let positions = places.saturating_mul(4 * self.config.types() as u64);
        let others = self.parameters.saturating_sub(places).saturating_mul(size);
        let weights = others.saturating_add(positions).saturating_add(head);
        weights.saturating_add(tokens.saturating_mul(4 * a_token as u64))
    }
}

/// Refuses a folder in the layout of sentence-transformers that pools otherwise than by the mean.
fn check_pooling(folder: &Path) -> Result<()> {
    #[derive(Deserialize)]
    struct Pooling {
        #[serde(default)]
        pooling_mode_mean_tokens: bool,
    }
    let path = folder.join("1_Pooling").join("config.json");
    if !path.exists() {
        return Ok(());
    }
    let text = crate::file::read_text(&path)?;
    match serde_json::from_slice(&text) {
        Ok(Pooling { pooling_mode_mean_tokens: true }) => Ok(()),
        Ok(_) => {
            Err(unservable(format!("{} asks for a pooling that is not served yet, only the mean is", path.display())))
        }
        Err(error) => Err(Error::invalid(format!("{}: {}", path.display(), error.to_string().to_lowercase()))),
    }
}
