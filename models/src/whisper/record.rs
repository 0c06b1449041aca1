//! A transcript with its times, as JSON: the output `segments`.

use orion_proto::{Code, Error, Result};
use serde::Serialize;

use super::{segments::Segment, transcribe::Transcript, vocabulary::Vocabulary};

/// The names are those of OpenAI's `verbose_json`.
#[derive(Serialize)]
struct Record<'a> {
    language: &'static str,
    /// Seconds of the audio.
    duration: f64,
    segments: Vec<SegmentRecord<'a>>,
}

#[derive(Serialize)]
struct SegmentRecord<'a> {
    id: usize,
    seek: usize,
    start: f64,
    end: f64,
    text: String,
    tokens: &'a [u32],
    temperature: f32,
    avg_logprob: f64,
    compression_ratio: f64,
    no_speech_prob: f32,
}

impl<'a> SegmentRecord<'a> {
    fn new(id: usize, segment: &'a Segment, vocabulary: &Vocabulary) -> Result<Self> {
        Ok(Self {
            id,
            seek: segment.seek,
            start: segment.start,
            end: segment.end,
            text: vocabulary.text(&segment.tokens)?,
            tokens: &segment.tokens,
            temperature: segment.trust.temperature,
            avg_logprob: segment.trust.mean_log_probability,
            compression_ratio: segment.trust.compression,
            no_speech_prob: segment.trust.no_speech,
        })
    }
}

/// The JSON of one transcript.
pub(super) fn record(transcript: &Transcript, vocabulary: &Vocabulary) -> Result<Vec<u8>> {
    let numbered = transcript.segments.iter().enumerate();
    let segments = numbered.map(|(id, segment)| SegmentRecord::new(id, segment, vocabulary)).collect::<Result<_>>()?;
    let record = Record { language: super::LANGUAGE, duration: transcript.seconds, segments };
    serde_json::to_vec(&record)
        .map_err(|error| Error::new(Code::Internal, format!("a transcript cannot be written as json: {error}")))
}
