//! Models on candle: loading, encoders, batching of tensors.
//!
//! [`inspect`] says what a folder holds from its headers alone, [`load`] brings it into memory, [`Model::run`] computes a
//! batch. Nothing here keeps a thread: kernels use the rayon pool that the caller has installed.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use orion_proto::{
    Code, Delta, Error, Fused, Generation, InferAnswer, ModelSpec, Priority, Result, Sequence, ServiceCurve, Tensor,
    inference::InferParameter,
};

mod bert;
pub mod checkpoint;
mod convnet;
mod file;
mod folder;
mod fused;
mod generation;
mod gguf;
mod given_up;
mod identity;
mod imaging;
mod kernels;
mod layout;
mod magika;
mod mapped;
mod nano_ocr;
mod onnx;
mod orion_toml;
mod pace;
mod resampler;
mod silero_vad;
mod simulated;
mod steps;
mod tensor_threads;
#[cfg(test)]
mod tiny_bert;
#[doc(hidden)]
pub mod tiny_llama;
mod tokenizer;
pub mod training;
mod vision;
mod whisper;

pub use folder::inspect;
pub use fused::run_with_steps;
pub use given_up::GivenUp;
pub use identity::{IDENTITY, identity_spec, run_identity};
pub use orion_toml::Precision;
pub use pace::{Episode, Pace};
pub use tensor_threads::let_tensor_threads_rest;

/// One request as a model takes it: inputs whose byte counts agree with their shapes.
#[derive(Clone, Debug, Default)]
pub struct ModelRequest {
    /// The tensors.
    pub inputs: Vec<Tensor>,
    /// Whether text beyond the model's limit is cut instead of refused.
    pub truncate: bool,
    /// Its place in a sequence, for models that keep a state between requests.
    pub sequence: Option<Sequence>,
    /// Parameters that only some models know.
    pub parameters: Vec<(String, InferParameter)>,
    /// Steps before and after the model, which [`run_with_steps`] runs.
    pub fused: Option<Arc<Fused>>,
    /// Set while it runs if nobody waits for it any more: it need not be computed to its end.
    pub given_up: GivenUp,
}

/// A model in memory.
pub trait Model: Send {
    /// What it takes and gives.
    fn spec(&self) -> &ModelSpec;

    /// Computes every request's rows together; one result a request, in order. A bad request fails alone, and one that is
    /// given up meanwhile may end with [`GivenUp::error`] at the next step.
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

/// A generator in memory: its sequences share each step.
pub trait Generator: Send {
    /// What it takes and gives; `generator` is set.
    fn spec(&self) -> &ModelSpec;

    /// Takes a generation in, which begins when there is room for it. `sequence` is unique among those that have not ended.
    ///
    /// # Errors
    /// INVALID_ARGUMENT naming what it can never run: a prompt longer than its context, an unknown token, a template that
    /// refuses the conversation.
    fn add(&mut self, sequence: u64, priority: Priority, generation: &Generation) -> Result<()>;

    /// Gives a sequence up, and its room.
    fn cancel(&mut self, sequence: u64);

    /// Computes one step: of each sequence that has news, what they are. A sequence has ended with its finish or error.
    fn step(&mut self) -> Vec<(u64, Result<Delta>)>;

    /// How it is filled.
    fn load(&self) -> GeneratorLoad;

    /// A typical generation with a prompt of so many tokens, for warm-up.
    fn sample(&self, prompt_tokens: usize, max_tokens: usize) -> Generation;
}

/// How a generator is filled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GeneratorLoad {
    /// Sequences that have begun.
    pub running: usize,
    /// Sequences that wait for room.
    pub waiting: usize,
    /// Tokens whose keys and values are held, for running sequences.
    pub held_tokens: u64,
    /// Tokens whose keys and values are kept for prompts that begin alike.
    pub kept_tokens: u64,
    /// Bytes of the whole cache of keys and values.
    pub cache_bytes: u64,
    /// Bytes of its blocks that running sequences have.
    pub held_bytes: u64,
    /// Bytes of its blocks that are kept for prompts that begin alike.
    pub kept_bytes: u64,
}

/// A model in memory, whichever way it runs.
pub enum Loaded {
    /// Answers batches.
    Model(Box<dyn Model>),
    /// Generates.
    Generator(Box<dyn Generator>),
}

impl Loaded {
    /// The model that answers batches.
    ///
    /// # Errors
    /// INTERNAL for one that generates.
    pub fn model(self) -> Result<Box<dyn Model>> {
        match self {
            Self::Model(model) => Ok(model),
            Self::Generator(_) => Err(Error::new(Code::Internal, "the model generates, it answers no batches")),
        }
    }

    /// The model that generates.
    ///
    /// # Errors
    /// INTERNAL for one that answers batches.
    pub fn generator(self) -> Result<Box<dyn Generator>> {
        match self {
            Self::Generator(generator) => Ok(generator),
            Self::Model(_) => Err(Error::new(Code::Internal, "the model answers batches, it does not generate")),
        }
    }
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
    Bert(bert::Source),
    Generation(Box<generation::Source>),
    Vision(vision::Source),
    NanoOcr(nano_ocr::Source),
    Magika(magika::Source),
    Onnx(onnx::Source),
    SileroVad(silero_vad::Source),
    Simulated(orion_toml::Simulated),
    Step(Box<orion_proto::step::Run>),
    Trained(training::Source),
    ImageQuestion(training::QuestionsSource),
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
pub fn load(manifest: &Manifest, progress: &dyn Fn(f32)) -> Result<Loaded> {
    load_at(manifest, &Arc::default(), progress)
}

/// The same on a device of this pace, which only simulated models follow.
///
/// # Errors
/// As [`load`].
pub fn load_at(manifest: &Manifest, pace: &Arc<Pace>, progress: &dyn Fn(f32)) -> Result<Loaded> {
    let spec = manifest.spec.clone();
    Ok(match &manifest.family {
        Family::Bert(source) => Loaded::Model(Box::new(bert::Bert::load(spec, source, progress)?)),
        Family::Generation(source) => Loaded::Generator(Box::new(source.load(spec, progress)?)),
        Family::Vision(source) => Loaded::Model(Box::new(vision::Classifier::load(spec, source, progress)?)),
        Family::NanoOcr(source) => Loaded::Model(Box::new(nano_ocr::Reader::load(spec, source, progress)?)),
        Family::Magika(source) => Loaded::Model(Box::new(magika::Magika::load(spec, source, progress)?)),
        Family::Onnx(source) => Loaded::Model(Box::new(onnx::OnnxModel::load(spec, source, progress)?)),
        Family::SileroVad(source) => Loaded::Model(Box::new(silero_vad::SileroVad::load(spec, source, progress)?)),
        Family::Simulated(latency) => {
            Loaded::Model(Box::new(simulated::SimulatedModel::load(spec, latency.clone(), pace.clone(), progress)))
        }
        Family::Step(run) => Loaded::Model(Box::new(steps::StepModel::of(&spec.name, (**run).clone()))),
        Family::ImageQuestion(source) => Loaded::Model(Box::new(training::Answerer::load(spec, source, progress)?)),
        Family::Trained(source) => Loaded::Model(Box::new(training::Classifier::load(spec, source, progress)?)),
        Family::Whisper(source) => Loaded::Model(Box::new(whisper::Whisper::load(spec, source, progress)?)),
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
