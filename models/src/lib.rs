//! Models on candle: loading, encoders, batching of tensors.
//!
//! [`inspect`] says what a folder holds from its headers alone, [`load`] brings it into memory, [`Model::run`] computes a
//! batch. Nothing here starts a thread: kernels use the rayon pool that the caller has installed.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use orion_proto::{Code, Error, InferAnswer, ModelSpec, Result, ServiceCurve, Tensor};

mod embedding;
mod file;
mod folder;
mod identity;
mod orion_toml;
mod pace;
mod simulated;
#[cfg(test)]
mod tiny_bert;
mod weights;
mod whisper;

pub use folder::inspect;
pub use identity::{IDENTITY, identity_spec, run_identity};
pub use orion_toml::Precision;
pub use pace::{Episode, Pace};

/// One request as a model takes it: inputs whose byte counts agree with their shapes.
#[derive(Clone, Debug, Default)]
pub struct ModelRequest {
    /// The tensors.
    pub inputs: Vec<Tensor>,
    /// Whether text beyond the model's limit is cut instead of refused.
    pub truncate: bool,
}

/// A model in memory.
pub trait Model: Send {
    /// What it takes and gives.
    fn spec(&self) -> &ModelSpec;

    /// Computes every request's rows together; one result a request, in order. A bad request fails alone.
    fn run(&mut self, batch: Vec<ModelRequest>) -> Vec<Result<InferAnswer>>;

    /// The seconds that it takes, where they are known without running it.
    fn known_curve(&self) -> Option<ServiceCurve> {
        None
    }

    /// The device memory that a batch takes beside the weights, bytes, where it is known without running it.
    fn known_peak_bytes(&self) -> Option<u64> {
        None
    }

    /// A typical request of so many rows, for warm-up.
    fn sample(&self, rows: usize) -> ModelRequest;
}

/// What can be said of a model before it is loaded.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// What it takes and gives, and the bytes that it will hold in memory.
    pub spec: ModelSpec,
    /// Floating-point operations for one typical row.
    pub flops_per_row: f64,
    /// Bytes of its weights on disk; what loading reads.
    pub weight_bytes: u64,
    /// The path that was inspected.
    pub path: PathBuf,
    family: Family,
}

#[derive(Clone, Debug)]
enum Family {
    Embedding(embedding::Source),
    Simulated(orion_toml::Simulated),
    Whisper(whisper::Source),
}

/// What a simulated model will take on a device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// Its batches.
    pub curve: ServiceCurve,
    /// Loading it, seconds.
    pub load_seconds: f64,
}

impl Manifest {
    /// What the model takes on a device of this pace; none for one that computes, which must be measured.
    pub fn timing(&self, pace: &Pace) -> Option<Timing> {
        let Family::Simulated(latency) = &self.family else { return None };
        let load_seconds = pace.load_seconds(self.spec.memory_bytes, latency.load_seconds);
        Some(Timing { curve: simulated::curve(latency, pace), load_seconds })
    }
}

/// Brings a model into memory. `progress` is told the share that is done, from 0 to 1.
///
/// # Errors
/// FAILED_PRECONDITION naming the file that cannot be read or does not fit the manifest.
pub fn load(manifest: &Manifest, progress: &dyn Fn(f32)) -> Result<Box<dyn Model>> {
    load_at(manifest, &Arc::default(), progress)
}

/// The same on a device of this pace, which only simulated models follow.
///
/// # Errors
/// As [`load`].
pub fn load_at(manifest: &Manifest, pace: &Arc<Pace>, progress: &dyn Fn(f32)) -> Result<Box<dyn Model>> {
    let spec = manifest.spec.clone();
    Ok(match &manifest.family {
        Family::Embedding(source) => Box::new(embedding::Embedder::load(spec, source, progress)?),
        Family::Simulated(latency) => {
            Box::new(simulated::SimulatedModel::load(spec, latency.clone(), pace.clone(), progress))
        }
        Family::Whisper(source) => Box::new(whisper::Whisper::load(spec, source, progress)?),
    })
}

/// A model that cannot be served as it lies there.
fn unservable(message: impl Into<String>) -> Error {
    Error::new(Code::FailedPrecondition, message)
}

/// A file that could not be read.
fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    let code = if error.kind() == std::io::ErrorKind::NotFound { Code::NotFound } else { Code::FailedPrecondition };
    Error::new(code, format!("cannot read {}: {}", path.display(), error.to_string().to_lowercase()))
}
