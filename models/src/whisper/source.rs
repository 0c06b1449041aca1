//! A Whisper folder before it is loaded.

use std::path::{Path, PathBuf};

use orion_proto::{Datatype, ModelName, ModelPolicy, ModelSpec, Result, TensorSpec};

use super::{
    WhisperConfig,
    audio::MOST_SECONDS,
    mel::FRAMES_PER_SECOND,
    names::hugging_face,
    transcribe::{MOST_AT_ONCE, MOST_FRAMES},
};
use crate::{Precision, checkpoint::Checkpoint, unservable};

/// The files of a model, whose headers were found to fit its configuration.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) config: WhisperConfig,
    pub(super) folder: PathBuf,
    /// In which weights that are packed are held.
    pub(super) precision: Precision,
    pub(super) tokenizer: PathBuf,
    /// Whether the tensors are named as in Hugging Face's checkpoints, not as in OpenAI's.
    pub(super) hugging_face: bool,
    /// Bytes of the weight files.
    pub(crate) weight_bytes: u64,
    /// Weights that are packed beside the files.
    packed: u64,
}

impl Source {
    /// Reads the configuration and the headers of a folder.
    pub(crate) fn inspect(folder: &Path, precision: Precision) -> Result<Self> {
        let config = WhisperConfig::read(folder)?;
        let tokenizer = folder.join("tokenizer.json");
        if !tokenizer.is_file() {
            return Err(unservable(format!("folder {} has no tokenizer.json", folder.display())));
        }
        let checkpoint = Checkpoint::open(folder)?;
        let hugging_face = checkpoint.get(&hugging_face("encoder.conv1.weight")).is_some();
        let weight_bytes = checkpoint.file_bytes();
        let folder = folder.into();
        let mut source = Self { config, folder, precision, tokenizer, hugging_face, weight_bytes, packed: 0 };
        source.packed = source.check(&checkpoint)?;
        Ok(source)
    }

    /// Checks that every tensor is there as the configuration says; how many weights are packed beside the files.
    pub(super) fn check(&self, checkpoint: &Checkpoint) -> Result<u64> {
        let mut packed = 0u64;
        for (name, shape) in self.config.tensors() {
            let elements = checkpoint.expect(&self.stored_name(&name), &shape)?.elements();
            if is_packed(&name) {
                packed = packed.saturating_add(elements);
            }
        }
        Ok(packed)
    }

    /// A tensor's name in these files, from that in OpenAI's checkpoints.
    pub(super) fn stored_name(&self, name: &str) -> String {
        if self.hugging_face { hugging_face(name) } else { name.to_owned() }
    }

    /// What it takes and gives once it is loaded.
    pub(crate) fn spec(&self, name: &ModelName, version: String, max_batch_rows: usize) -> ModelSpec {
        ModelSpec {
            name: name.clone(),
            version,
            family: super::FAMILY.into(),
            inputs: vec![TensorSpec::new("audio", Datatype::Bytes, [-1])],
            outputs: vec![
                TensorSpec::new("text", Datatype::Bytes, [-1]),
                TensorSpec::new("segments", Datatype::Bytes, [-1]),
            ],
            max_batch_rows,
            memory_bytes: self.memory_bytes(max_batch_rows),
            inline: false,
            policy: ModelPolicy::default(),
            generator: None,
        }
    }

    /// Bytes of the files, of the weights that are packed, of what is kept for as many audios as are transcribed at once,
    /// and of the windows that are encoded at once.
    fn memory_bytes(&self, max_batch_rows: usize) -> u64 {
        let config = &self.config;
        let WhisperConfig { d_model, max_source_positions: positions, max_target_positions: targets, .. } = *config;
        let audios = max_batch_rows.min(MOST_AT_ONCE);
        let caches = config.decoder_layers * 2 * d_model * (positions + targets);
        let an_audio = caches + config.window_frames() * config.num_mel_bins + config.vocab_size;
        let encoders = audios.min(std::thread::available_parallelism().map_or(1, usize::from));
        let a_window = config.window_frames() * d_model
            + positions * (4 * d_model + config.encoder_inner().max(4 * d_model))
            + targets * (4 * d_model + config.decoder_inner());
        let longest = (MOST_FRAMES + MOST_SECONDS * FRAMES_PER_SECOND) * config.num_mel_bins;
        let values = audios.saturating_mul(an_audio).saturating_add(encoders.saturating_mul(a_window));
        let values = (values.saturating_add(longest) as u64).saturating_mul(size_of::<f32>() as u64);
        let packed = self.packed.saturating_mul(self.precision.bytes() as u64);
        self.weight_bytes.saturating_add(packed).saturating_add(values)
    }
}

/// Whether a tensor is multiplied with many rows at once: the encoder's, and what the decoder makes of encoded audio.
fn is_packed(name: &str) -> bool {
    name.starts_with("encoder.") || [".cross_attn.key.", ".cross_attn.value."].iter().any(|part| name.contains(part))
}
