//! Decoders that learn to go on with texts: all of their weights, or small additions to them.

mod decoder;

use std::path::{Path, PathBuf};

use candle_core::Tensor;
use orion_proto::{
    Result,
    training::{LanguageModel, Plan},
};
use serde_json::{Map, Value, json};

use super::{
    Progress,
    adapted::check_family,
    data::{Columns, Part, Table},
    failed, images,
    task::{Parameter, Seen, Task},
    trained::{copy_tokenizer, write},
};
use crate::{
    file::read_json,
    generation::{ARCHITECTURES, Source, TextReader},
    orion_toml::Generation,
    unservable,
};
use decoder::Decoder;

/// Bytes that a token can stand for, generously: what is cut off anyway is not tokenised first.
const BYTES_PER_TOKEN: usize = 512;

/// A base with what it learns from.
pub(super) struct Language {
    plan: Plan,
    tokens: usize,
    base: PathBuf,
    reader: TextReader,
    decoder: Decoder,
    train: Table,
    test: Option<Table>,
}

impl Language {
    /// # Errors
    /// FAILED_PRECONDITION or NOT_FOUND naming the file that does not fit.
    pub(super) fn open(
        plan: &Plan,
        language: &LanguageModel,
        base: &Path,
        train: &Path,
        test: Option<&Path>,
        free_bytes: u64,
    ) -> Result<Self> {
        if !base.join("config.json").is_file() {
            let text = "must be a folder with config.json, tokenizer.json and safetensors files to learn on";
            return Err(unservable(format!("{} {text}", base.display())));
        }
        check_family(base, &ARCHITECTURES, "language_model")?;
        // What could not be served afterwards is not learnt on.
        Source::inspect_folder(base, &Generation::default())?;
        let decoder = Decoder::new(base, language.lora.as_ref(), language.tokens, free_bytes)?;
        let columns = Columns { text: plan.data.text.clone(), ..Columns::default() };
        let (train, test) = Table::both(train, test, &columns)?;
        let reader = TextReader::open(base, decoder.vocabulary())?;
        let (plan, base) = (plan.clone(), base.to_owned());
        Ok(Self { plan, tokens: language.tokens, base, reader, decoder, train, test })
    }

    fn of(&self, part: Part) -> Option<&Table> {
        match part {
            Part::Train => Some(&self.train),
            Part::Test => self.test.as_ref(),
        }
    }
}

impl Task for Language {
    fn parameters(&self) -> &[Parameter] {
        self.decoder.adapted.parameters()
    }

    fn initial(&self, seed: u64) -> Result<Vec<f32>> {
        self.decoder.adapted.initial(seed, |_, _| Ok(None))
    }

    fn examples(&self, part: Part) -> usize {
        self.of(part).map_or(0, Table::len)
    }

    fn hash(&self, hasher: &mut blake3::Hasher) -> Result<()> {
        self.decoder.adapted.hash(&self.base, hasher)?;
        self.train.hash(hasher);
        self.test.iter().for_each(|test| test.hash(hasher));
        Ok(())
    }

    fn shape(&self) -> Result<String> {
        let mut hasher = blake3::Hasher::new();
        self.decoder.adapted.hash(&self.base, &mut hasher)?;
        Ok(hasher.finalize().to_string())
    }

    fn held_bytes(&self) -> u64 {
        self.decoder.adapted.held_bytes()
    }

    fn values(&self, learns: bool) -> usize {
        self.decoder.values(self.tokens, learns)
    }

    fn evaluated(&self) -> usize {
        self.plan.micro_batch()
    }

    fn look(&self, tensors: &[Tensor], part: Part, indices: &[usize], _dropout: Option<u64>) -> Result<Seen> {
        let texts = self.of(part).ok_or_else(|| unservable("there are no such examples"))?;
        let (mut rows, mut targets, mut weights) = (Vec::new(), Vec::new(), Vec::new());
        for index in indices {
            let text = texts.row(*index)?.0.text;
            let most = text.floor_char_boundary(self.tokens.saturating_mul(BYTES_PER_TOKEN));
            let ids = self.reader.tokens(&text[..most]);
            let mut ids = ids.map_err(|error| texts.wrong(*index, &error.message))?;
            ids.truncate(self.tokens);
            let next = ids.get(1..).unwrap_or_default().to_vec();
            if next.is_empty() {
                return Err(texts.wrong(*index, "it has no token that another goes before"));
            }
            // Each text weighs the same, however long it is.
            weights.extend(next.iter().map(|_| 1.0 / next.len() as f32));
            ids.truncate(next.len());
            targets.extend(next);
            rows.push(ids);
        }
        let logits = self.decoder.logits(tensors, &rows).map_err(|error| failed(&error))?;
        images::seen(&logits, targets, weights).map_err(|error| failed(&error))
    }

    fn save(&self, values: &[f32], progress: &Progress, folder: &Path) -> Result<()> {
        copy_tokenizer(&self.base, folder)?;
        let mut config: Map<String, Value> = read_json(&self.base.join("config.json"))?;
        config.insert("metrics".into(), json!(progress));
        write(folder, &self.decoder.adapted.written(values)?, &config)
    }
}
