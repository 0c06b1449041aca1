//! A folder with a reader of lines of text before it is loaded.

use std::path::{Path, PathBuf};

use orion_proto::{Datatype, ModelName, ModelPolicy, ModelSpec, Result, TensorSpec};
use serde::Deserialize;

use super::{
    alphabet::Alphabet,
    lstm::Lstm,
    network::{FEATURES, HEIGHT, HIDDEN, WIDTH, network},
};
use crate::{
    Precision,
    checkpoint::Checkpoint,
    convnet::{self, Network},
    file::read_json,
    imaging::INPUT,
    kernels::Linear,
    unservable,
};

/// As `config.json` names it.
pub(crate) const MODEL_TYPE: &str = "crnn-ocr";

/// The files of a model, whose headers were found to fit its configuration.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(super) network: Network,
    pub(super) alphabet: Alphabet,
    pub(super) folder: PathBuf,
    /// In which the weights are held.
    pub(super) precision: Precision,
    weight_bytes: u64,
}

/// What `config.json` says; what is left out is nano-ocr's.
#[derive(Deserialize)]
struct Config {
    /// The characters from class 1 on.
    characters: Option<String>,
    blank: Option<usize>,
    image_height: Option<usize>,
    image_width: Option<usize>,
    hidden_size: Option<usize>,
}

impl Config {
    fn check(&self) -> std::result::Result<(), String> {
        let sizes = [
            ("blank", self.blank, 0),
            ("image_height", self.image_height, HEIGHT),
            ("image_width", self.image_width, WIDTH),
            ("hidden_size", self.hidden_size, HIDDEN),
        ];
        match sizes.into_iter().find(|(_, value, served)| value.is_some_and(|value| value != *served)) {
            Some((key, Some(value), served)) => Err(format!("{key} is {value}, only {served} is served")),
            _ => Ok(()),
        }
    }
}

impl Source {
    /// Reads the configuration and the headers of a folder.
    pub(crate) fn inspect(folder: &Path, precision: Precision) -> Result<Self> {
        let path = folder.join("config.json");
        let refused = |reason: String| unservable(format!("{}: {reason}", path.display()));
        let config: Config = read_json(&path)?;
        config.check().map_err(refused)?;
        let alphabet = config.characters.map_or_else(Alphabet::default, |characters| Alphabet::new(&characters));
        let (network, checkpoint) = (network().map_err(refused)?, Checkpoint::open(folder)?);
        convnet::check(&checkpoint, &tensors(&network, alphabet.classes()))?;
        Ok(Self { network, alphabet, folder: folder.into(), precision, weight_bytes: checkpoint.file_bytes() })
    }

    /// Bytes of the weight files.
    pub(crate) fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }

    fn steps(&self) -> usize {
        self.network.layout(self.network.output()).width
    }

    /// Floating-point operations for one image.
    pub(crate) fn flops(&self) -> f64 {
        let (steps, gates) = (self.steps() as f64, 8.0 * HIDDEN as f64);
        let head = (2 * HIDDEN * self.alphabet.classes()) as f64;
        self.network.flops() + 2.0 * steps * (gates * (FEATURES + HIDDEN) as f64 + head)
    }

    /// What it takes and gives once it is loaded.
    pub(crate) fn spec(&self, name: &ModelName, version: String, max_batch_rows: usize) -> ModelSpec {
        ModelSpec {
            name: name.clone(),
            version,
            family: super::FAMILY.into(),
            inputs: vec![TensorSpec::new(INPUT, Datatype::Bytes, [-1])],
            outputs: vec![TensorSpec::new("text", Datatype::Bytes, [-1])],
            max_batch_rows,
            memory_bytes: self.memory_bytes(max_batch_rows),
            inline: false,
            policy: ModelPolicy::default(),
            generator: None,
        }
    }

    /// Bytes of the weights in their precision, of the maps of as many images as run at once, and of a batch's columns. What
    /// decoding takes beside them is in no manifest: it depends on the images, and is bounded for all models together.
    fn memory_bytes(&self, max_batch_rows: usize) -> u64 {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        self.network
            .memory_bytes(threads.min(max_batch_rows), self.precision)
            .saturating_add(Lstm::bytes(FEATURES, HIDDEN, self.steps().saturating_mul(max_batch_rows), self.precision))
            .saturating_add(Linear::bytes(2 * HIDDEN, self.alphabet.classes(), self.precision))
    }
}

/// The tensors that it reads, with their shapes.
pub(super) fn tensors(network: &Network, classes: usize) -> Vec<(String, Vec<usize>)> {
    let head = [("fc.weight".to_owned(), vec![classes, 2 * HIDDEN]), ("fc.bias".to_owned(), vec![classes])];
    network.tensors().into_iter().chain(Lstm::tensors(FEATURES, HIDDEN)).chain(head).collect()
}
