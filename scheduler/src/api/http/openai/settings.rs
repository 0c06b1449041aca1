//! What both of OpenAI's generation requests say of how text is generated.

use std::collections::BTreeMap;

use orion_proto::{Error, Format, Generation, MOST_BIASES, MOST_STOPS, Prompt, Sampling};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Refusal;
use crate::{
    api::http::at_most::{AtMost, EntriesAtMost},
    response_format::ResponseFormat,
};

/// Answers that one request may ask for.
const MOST_ANSWERS: u32 = 16;

/// Whether a stream ends with the count of its tokens.
#[derive(Debug, Default, Deserialize)]
pub(super) struct StreamOptions {
    #[serde(default)]
    pub(super) include_usage: bool,
}

/// The fields that chat and plain completions share. Fields that are not here, such as `user`, are not used.
#[derive(Debug, Deserialize)]
pub(super) struct Settings {
    pub(super) model: String,
    #[serde(default)]
    max_tokens: Option<u32>,
    #[serde(default)]
    max_completion_tokens: Option<u32>,
    #[serde(default)]
    temperature: Option<f32>,
    #[serde(default)]
    top_p: Option<f32>,
    #[serde(default)]
    n: Option<u32>,
    #[serde(default)]
    stop: Option<Box<RawValue>>,
    #[serde(default)]
    pub(super) stream: Option<bool>,
    #[serde(default)]
    pub(super) stream_options: Option<StreamOptions>,
    #[serde(default)]
    seed: Option<i64>,
    #[serde(default)]
    presence_penalty: Option<f32>,
    #[serde(default)]
    frequency_penalty: Option<f32>,
    #[serde(default)]
    logit_bias: Option<EntriesAtMost<f32, MOST_BIASES>>,
    #[serde(default)]
    response_format: Option<ResponseFormat>,
    // The rest is not OpenAI's: its clients send it as `extra_body`.
    #[serde(default)]
    top_k: Option<i64>,
    #[serde(default)]
    min_p: Option<f32>,
    #[serde(default)]
    repetition_penalty: Option<f32>,
    #[serde(default)]
    ignore_eos: Option<bool>,
}

impl Settings {
    /// How many answers are wanted.
    pub(super) fn answers(&self) -> Result<u32, Refusal> {
        match self.n.unwrap_or(1) {
            n if (1..=MOST_ANSWERS).contains(&n) => Ok(n),
            n => Err(about("n", format!("'n' is {n}, it must be 1 to {MOST_ANSWERS}"))),
        }
    }

    /// The generation from a prompt. Of several answers, each has a seed of its own.
    pub(super) fn generation(&self, prompt: Prompt, logprobs: Option<u32>) -> Result<Generation, Refusal> {
        let sampling = Sampling {
            // OpenAI's default.
            temperature: self.temperature.unwrap_or(1.0),
            // As elsewhere, 0 or less is all tokens.
            top_k: u32::try_from(self.top_k.unwrap_or(0).max(0)).unwrap_or(u32::MAX),
            top_p: self.top_p.unwrap_or(1.0),
            min_p: self.min_p.unwrap_or(0.0),
            repetition_penalty: self.repetition_penalty.unwrap_or(1.0),
            presence_penalty: self.presence_penalty.unwrap_or(0.0),
            frequency_penalty: self.frequency_penalty.unwrap_or(0.0),
            seed: self.seed.map_or_else(rand::random, i64::cast_unsigned),
            logit_bias: self.logit_bias()?,
        };
        let generation = Generation {
            max_tokens: self.max_completion_tokens.or(self.max_tokens),
            sampling,
            stop: self.stop()?,
            logprobs,
            format: self.format()?,
            ignore_end: self.ignore_eos.unwrap_or(false),
            ..Generation::new(prompt)
        };
        generation.check().map_err(Refusal::from)?;
        Ok(generation)
    }

    fn stop(&self) -> Result<Vec<String>, Refusal> {
        let Some(json) = self.stop.as_deref().map(RawValue::get) else { return Ok(Vec::new()) };
        let stops = match json.starts_with('[') {
            true => serde_json::from_str::<AtMost<_, MOST_STOPS>>(json).map(|stops| stops.0),
            false => serde_json::from_str(json).map(|stop| vec![stop]),
        };
        let kinds = format!("a string or an array of at most {MOST_STOPS} strings");
        stops.map_err(|error| about("stop", format!("'stop' must be {kinds}: {error}")))
    }

    fn logit_bias(&self) -> Result<Vec<(u32, f32)>, Refusal> {
        let bias = |(token, bias): &(String, f32)| {
            let number = token.parse::<u32>();
            let wrong = |_| about("logit_bias", "the keys of 'logit_bias' must be numbers of tokens");
            Ok((number.map_err(wrong)?, *bias))
        };
        // Of a token that is named twice the last counts.
        let biases: Result<BTreeMap<u32, f32>, Refusal> =
            self.logit_bias.iter().flat_map(|entries| &entries.0).map(bias).collect();
        Ok(biases?.into_iter().collect())
    }

    fn format(&self) -> Result<Format, Refusal> {
        let format = self.response_format.as_ref().map_or(Ok(Format::Text), ResponseFormat::format);
        format.map_err(|error| Refusal::from(error).about("response_format"))
    }
}

/// A refusal for a field's sake.
pub(super) fn about(field: &'static str, message: impl Into<String>) -> Refusal {
    Refusal::from(Error::invalid(message.into())).about(field)
}
