//! The family `whisper`: speech to text.
//!
//! An audio of any length goes through the encoder in windows of 30 seconds; the decoder writes time stamps and text,
//! and the last time stamp says where the next window begins. Radford et al., "Robust Speech Recognition via Large-Scale
//! Weak Supervision", 2022; the way through long audio is that of its authors' implementation, greedy with fallback.

use orion_proto::{
    Code, Datatype, Error, InferAnswer, ModelSpec, Payload, Result, Tensor, bytes_elements, encode_bytes_elements,
};

mod audio;
mod block;
mod config;
mod decoder;
mod dense;
mod encoder;
mod filters;
mod hypothesis;
mod mel;
mod names;
mod options;
mod record;
mod rules;
mod sample;
mod segments;
mod source;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tiny_whisper;
mod transcribe;
mod vocabulary;
#[cfg(test)]
mod wav;
mod weights;

use config::WhisperConfig;
pub(crate) use mel::log_mel;
use options::Options;
pub(crate) use source::Source;
use transcribe::{Audio, Transcriber, Transcript};

use crate::{Model, ModelRequest};

/// The family's name.
const FAMILY: &str = "whisper";
/// The only language, as OpenAI's API spells it.
const LANGUAGE: &str = "english";
/// Tokens of a typical transcript: what a manifest's operations per row are counted for.
pub(crate) const TYPICAL_TOKENS: usize = 32;

/// A loaded Whisper model.
pub(crate) struct Whisper {
    spec: ModelSpec,
    transcriber: Transcriber,
}

impl Whisper {
    /// Brings tokenizer and weights into memory.
    pub(crate) fn load(spec: ModelSpec, source: &Source, progress: &dyn Fn(f32)) -> Result<Self> {
        Ok(Self { spec, transcriber: Transcriber::load(source, progress)? })
    }

    fn audios(&self, request: &ModelRequest) -> Result<Vec<Audio>> {
        self.spec.check_inputs(&request.inputs)?;
        let options = Options::read(&request.parameters)?;
        let Some(audio) = request.inputs.first() else {
            return Ok(Vec::new());
        };
        let files = bytes_elements(&audio.name, &audio.data.contiguous(), audio.rows())?;
        let audio = |file| Audio { file, options: options.clone(), given_up: request.given_up.clone() };
        Ok(files.into_iter().map(audio).collect())
    }

    fn answer(&self, transcripts: impl Iterator<Item = Result<Transcript>>) -> Result<InferAnswer> {
        let (mut texts, mut records, mut usage_tokens) = (Vec::new(), Vec::new(), 0);
        for (index, transcript) in transcripts.enumerate() {
            let transcript = transcript.map_err(|error| match error.code {
                Code::Cancelled => error,
                code => Error::new(code, format!("element {index} of input 'audio' {}", error.message)),
            })?;
            let tokens = transcript.tokens();
            usage_tokens += tokens.len() as u64;
            texts.push(self.transcriber.vocabulary.text(&tokens)?);
            records.push(record::record(&transcript, &self.transcriber.vocabulary)?);
        }
        let outputs = vec![bytes_tensor("text", &texts), bytes_tensor("segments", &records)];
        Ok(InferAnswer { outputs, usage_tokens, ..InferAnswer::default() })
    }
}

impl Model for Whisper {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn run(&mut self, batch: Vec<ModelRequest>) -> Vec<Result<InferAnswer>> {
        let requests: Vec<Result<Vec<Audio>>> = batch.iter().map(|request| self.audios(request)).collect();
        let audios: Vec<Audio> = requests.iter().flatten().flatten().cloned().collect();
        let mut transcripts = self.transcriber.transcribe(&audios, self.spec.max_batch_rows).into_iter();
        let answer = |request: Result<Vec<Audio>>| {
            let own: Vec<_> = transcripts.by_ref().take(request?.len()).collect();
            self.answer(own.into_iter())
        };
        requests.into_iter().map(answer).collect()
    }

    fn sample(&self, rows: usize) -> ModelRequest {
        let audio = bytes_tensor("audio", &vec![sample::speech(); rows]);
        ModelRequest { inputs: vec![audio], ..ModelRequest::default() }
    }
}

fn bytes_tensor<E: AsRef<[u8]>>(name: &str, elements: &[E]) -> Tensor {
    let (shape, data) = (vec![elements.len() as i64], Payload::from(encode_bytes_elements(elements)));
    Tensor { name: name.into(), datatype: Datatype::Bytes, shape, data }
}
