//! The family `whisper`: speech to text.
//!
//! An audio of any length goes through the encoder in windows of 30 seconds; the decoder writes time stamps and text,
//! and the last time stamp says where the next window begins. Radford et al., "Robust Speech Recognition via Large-Scale
//! Weak Supervision", 2022; the way through long audio is that of its authors' implementation, greedy with fallback.

use bytes::Bytes;
use orion_proto::{
    Datatype, Error, InferAnswer, ModelSpec, Payload, Result, Tensor, bytes_elements, encode_bytes_elements,
};

mod audio;
mod block;
mod checkpoint;
mod config;
mod decoder;
mod encoder;
mod filters;
mod hypothesis;
mod mel;
mod names;
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

use config::WhisperConfig;
pub(crate) use source::Source;
use transcribe::{Transcriber, Transcript};

use crate::{Model, ModelRequest};

/// The family's name.
const FAMILY: &str = "whisper";
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

    fn files(&self, request: &ModelRequest) -> Result<Vec<Bytes>> {
        self.spec.check_inputs(&request.inputs)?;
        let Some(audio) = request.inputs.first() else {
            return Ok(Vec::new());
        };
        bytes_elements(&audio.name, &audio.data.contiguous(), audio.rows())
    }

    fn answer(&self, transcripts: impl Iterator<Item = Result<Transcript>>) -> Result<InferAnswer> {
        let (mut texts, mut usage_tokens) = (Vec::new(), 0);
        for (index, transcript) in transcripts.enumerate() {
            let named = |e: Error| Error::new(e.code, format!("element {index} of input 'audio' {}", e.message));
            let tokens = transcript.map_err(named)?.tokens();
            usage_tokens += tokens.len() as u64;
            texts.push(self.transcriber.vocabulary.text(&tokens)?);
        }
        let data = Payload::from(encode_bytes_elements(&texts));
        let shape = vec![texts.len() as i64];
        Ok(InferAnswer {
            outputs: vec![Tensor { name: "text".into(), datatype: Datatype::Bytes, shape, data }],
            usage_tokens,
            ..InferAnswer::default()
        })
    }
}

impl Model for Whisper {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn run(&mut self, batch: Vec<ModelRequest>) -> Vec<Result<InferAnswer>> {
        let requests: Vec<Result<Vec<Bytes>>> = batch.iter().map(|request| self.files(request)).collect();
        let files: Vec<Bytes> = requests.iter().flatten().flatten().cloned().collect();
        let mut transcripts = self.transcriber.transcribe(&files, self.spec.max_batch_rows).into_iter();
        let answer = |request: Result<Vec<Bytes>>| {
            let own: Vec<_> = transcripts.by_ref().take(request?.len()).collect();
            self.answer(own.into_iter())
        };
        requests.into_iter().map(answer).collect()
    }

    fn sample(&self, rows: usize) -> ModelRequest {
        let data = Payload::from(encode_bytes_elements(&vec![sample::speech(); rows]));
        let audio = Tensor { name: "audio".into(), datatype: Datatype::Bytes, shape: vec![rows as i64], data };
        ModelRequest { inputs: vec![audio], ..ModelRequest::default() }
    }
}
