//! A folder with a classifier of images before it is loaded.

use std::path::{Path, PathBuf};

use orion_proto::{Datatype, ModelName, ModelPolicy, ModelSpec, Result, TensorSpec};

use super::{
    architecture::{Architecture, Config},
    labels,
};
use crate::{Precision, checkpoint::Checkpoint, convnet, imaging::INPUT, kernels::Linear, unservable};

/// The files of a model, whose headers were found to fit its configuration.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(super) architecture: Architecture,
    pub(super) folder: PathBuf,
    /// In which the weights are held.
    pub(super) precision: Precision,
    /// One for each class.
    pub(super) labels: Vec<String>,
    weight_bytes: u64,
}

impl Source {
    /// Reads the configuration, the labels and the headers of a folder.
    pub(crate) fn inspect(folder: &Path, precision: Precision) -> Result<Self> {
        let config = Config::read(folder)?;
        let architecture = Architecture::of(folder, &config)?;
        let checkpoint = Checkpoint::open(folder)?;
        convnet::check(&checkpoint, &architecture.network.tensors())?;
        // How many classes there are is the checkpoint's to say.
        let [(weight, _), _] = architecture.head(0);
        let classes = checkpoint.get(&weight).and_then(|entry| entry.shape.first().copied()).unwrap_or(0);
        let refused = |reason: String| unservable(format!("{}: {reason}", folder.join("config.json").display()));
        config.check_classes(classes).map_err(refused)?;
        convnet::check(&checkpoint, &architecture.head(classes))?;
        let labels = labels::read(folder, &config.id2label, classes)?;
        Ok(Self { architecture, folder: folder.into(), precision, labels, weight_bytes: checkpoint.file_bytes() })
    }

    /// Bytes of the weight files.
    pub(crate) fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }

    /// Floating-point operations for one image.
    pub(crate) fn flops(&self) -> f64 {
        self.architecture.network.flops() + 2.0 * (self.architecture.features() * self.labels.len()) as f64
    }

    /// What it takes and gives once it is loaded.
    pub(crate) fn spec(&self, name: &ModelName, version: String, max_batch_rows: usize) -> ModelSpec {
        ModelSpec {
            name: name.clone(),
            version,
            family: super::FAMILY.into(),
            inputs: vec![TensorSpec::new(INPUT, Datatype::Bytes, [-1])],
            outputs: vec![
                TensorSpec::new("logits", Datatype::Fp32, [-1, self.labels.len() as i64]),
                TensorSpec::new("class", Datatype::Int32, [-1]),
                TensorSpec::new("label", Datatype::Bytes, [-1]),
            ],
            max_batch_rows,
            memory_bytes: self.memory_bytes(max_batch_rows),
            inline: false,
            policy: ModelPolicy::default(),
            generator: None,
        }
    }

    /// Bytes of the weights in their precision, and of the maps of as many images as run at once. What decoding takes beside
    /// them is in no manifest: it depends on the images, and is bounded for all models together.
    fn memory_bytes(&self, max_batch_rows: usize) -> u64 {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let (features, classes) = (self.architecture.features(), self.labels.len());
        let rows = ((features + classes) * size_of::<f32>()) as u64;
        self.architecture
            .network
            .memory_bytes(threads.min(max_batch_rows), self.precision)
            .saturating_add(Linear::bytes(features, classes, self.precision))
            .saturating_add(rows.saturating_mul(max_batch_rows as u64))
    }
}
