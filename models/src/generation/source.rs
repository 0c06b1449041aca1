//! A language model before it is loaded: what its files' headers say, and what it will take.

use std::path::{Path, PathBuf};

use orion_proto::{Datatype, GeneratorSpec, ModelName, ModelPolicy, ModelSpec, Result, TensorSpec};

use super::{
    checkpoint::{Checkpoint, DecoderWeights},
    config::DecoderConfig,
    decoder::Decoder,
    generator::LanguageModel,
    kernels::BLOCK_TOKENS,
    key_values::{KeyValues, Width},
    sampling::Chooser,
    schedule::{Limits, Schedule},
    text::{Vocabulary, gguf_tokenizer, hub_tokenizer},
};
use crate::{gguf::Gguf, mapped::read_ahead, orion_toml::Generation, unservable};

/// The family's name.
const FAMILY: &str = "text-generation";
/// Tokens of a step: enough that a product's weights are read for many rows, few enough that nobody waits long for one.
const STEP_TOKENS: usize = 64;

/// Where a model's files lie.
#[derive(Clone, Debug)]
enum Place {
    Gguf(PathBuf),
    Folder(PathBuf),
}

/// Files that were found to fit each other.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    place: Place,
    pub(crate) config: DecoderConfig,
    pub(crate) limits: GeneratorSpec,
    prefix_cache: bool,
    width: Width,
    pub(crate) weight_bytes: u64,
}

impl Place {
    fn open(&self) -> Result<(Checkpoint, DecoderConfig)> {
        match self {
            Self::Gguf(path) => {
                let gguf = Gguf::open(path)?;
                let named = |error: orion_proto::Error| unservable(format!("{}: {error}", path.display()));
                let config = DecoderConfig::from_gguf(&gguf).map_err(named)?;
                Ok((Checkpoint::Gguf(Box::new(gguf)), config))
            }
            Self::Folder(folder) => Ok((Checkpoint::safetensors(folder)?, DecoderConfig::read(folder)?)),
        }
    }

    fn path(&self) -> &Path {
        let (Self::Gguf(path) | Self::Folder(path)) = self;
        path
    }

    fn has_template(&self, checkpoint: &Checkpoint) -> Result<bool> {
        match (self, checkpoint) {
            (Self::Folder(folder), _) => hub_tokenizer::has_template(folder),
            (_, Checkpoint::Gguf(gguf)) => Ok(gguf.get("tokenizer.chat_template").is_some()),
            _ => Ok(false),
        }
    }
}

impl Source {
    /// Reads the header of a GGUF file.
    pub(crate) fn inspect_gguf(path: &Path, settings: &Generation) -> Result<Self> {
        Self::inspect(Place::Gguf(path.into()), settings)
    }

    /// Reads the configuration and the headers of a folder.
    pub(crate) fn inspect_folder(folder: &Path, settings: &Generation) -> Result<Self> {
        if !folder.join("tokenizer.json").is_file() {
            return Err(unservable(format!("folder {} has no tokenizer.json", folder.display())));
        }
        Self::inspect(Place::Folder(folder.into()), settings)
    }

    fn inspect(place: Place, settings: &Generation) -> Result<Self> {
        let (checkpoint, config) = place.open()?;
        let named = |error: orion_proto::Error| unservable(format!("{}: {error}", place.path().display()));
        let weights = DecoderWeights::find(&checkpoint, &config).map_err(named)?;
        let width = if weights.are_floats() { Width::F32 } else { Width::F16 };
        let limits = settings.limits(config.context, width.token_bytes(&config), place.has_template(&checkpoint)?);
        let weight_bytes = checkpoint.bytes();
        Ok(Self { place, config, limits, prefix_cache: settings.prefix_cache, width, weight_bytes })
    }

    /// Floating-point operations for a token.
    pub(crate) fn flops(&self) -> f64 {
        self.config.flops()
    }

    /// Rows of one step.
    fn step_tokens(&self) -> usize {
        STEP_TOKENS.max(2 * self.limits.max_sequences as usize)
    }

    /// What it takes and gives once it is loaded.
    pub(crate) fn spec(&self, name: &ModelName, version: String) -> ModelSpec {
        let sequences = self.limits.max_sequences as usize;
        let cache = self.limits.cache_tokens.saturating_mul(self.width.token_bytes(&self.config));
        let room = Decoder::room_bytes(&self.config, self.step_tokens(), sequences);
        ModelSpec {
            name: name.clone(),
            version,
            family: FAMILY.into(),
            inputs: vec![
                TensorSpec::new("text_input", Datatype::Bytes, [1]),
                TensorSpec::optional("max_tokens", Datatype::Int32, [1]),
                TensorSpec::optional("stream", Datatype::Bool, [1]),
            ],
            outputs: vec![TensorSpec::new("text_output", Datatype::Bytes, [1])],
            max_batch_rows: sequences,
            memory_bytes: self.weight_bytes.saturating_add(cache).saturating_add(room),
            inline: false,
            policy: ModelPolicy::default(),
            generator: Some(self.limits),
        }
    }

    /// Brings vocabulary and weights into memory.
    pub(crate) fn load(&self, spec: ModelSpec, progress: &dyn Fn(f32)) -> Result<LanguageModel> {
        let (checkpoint, config) = self.place.open()?;
        let named = |error: orion_proto::Error| unservable(format!("{}: {error}", self.place.path().display()));
        if config != self.config {
            return Err(named(unservable("its configuration has changed since it was inspected")));
        }
        let weights = DecoderWeights::find(&checkpoint, &config).map_err(named)?;
        // The vocabulary is built on one thread while another fetches the weights' pages.
        let vocabulary = std::thread::scope(|scope| {
            let building = scope.spawn(|| self.vocabulary(&checkpoint));
            read_ahead(checkpoint.files(), progress);
            building.join().unwrap_or_else(|_| Err(unservable("its tokenizer cannot be built")))
        });
        let mut vocabulary = vocabulary.map_err(named)?;
        vocabulary.forget_ends_beyond(config.vocabulary);
        let step_tokens = self.step_tokens();
        let limits =
            Limits { sequences: self.limits.max_sequences as usize, step_tokens, prefix_cache: self.prefix_cache };
        let blocks = usize::try_from(self.limits.cache_tokens).unwrap_or(usize::MAX) / BLOCK_TOKENS;
        Ok(LanguageModel {
            spec,
            vocabulary,
            cache: KeyValues::new(&config, self.width, blocks)?,
            decoder: Decoder::new(config, weights, step_tokens),
            schedule: Schedule::new(limits, blocks),
            chooser: Chooser::default(),
            grammars: None,
            over: Vec::new(),
            arrivals: 0,
            samples: 0.into(),
        })
    }

    fn vocabulary(&self, checkpoint: &Checkpoint) -> Result<Vocabulary> {
        match (&self.place, checkpoint) {
            (_, Checkpoint::Gguf(gguf)) => gguf_tokenizer::vocabulary(gguf),
            (place, _) => hub_tokenizer::vocabulary(place.path(), self.config.vocabulary),
        }
    }
}
