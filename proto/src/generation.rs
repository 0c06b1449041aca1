//! Generating text: what is asked of a generator, and the tokens that come back one after the other.
//!
//! A generation is a pure function of its prompt, its sampling and its tokens so far: the draw for the token at a position
//! depends on the seed and the position alone. So a worker that is given the tokens that another has sent goes on as that
//! one would have.

use crate::{Error, Result};

mod wire;

/// Stop strings that one request may name.
pub const MOST_STOPS: usize = 16;
/// Bytes of one of them.
const STOP_BYTES: usize = 256;
/// Biased tokens of one request.
pub const MOST_BIASES: usize = 1024;
/// Alternatives of a token whose log-probabilities may be asked for.
pub const MOST_ALTERNATIVES: u32 = 20;

/// What a generator goes on from.
#[derive(Clone, Debug, PartialEq)]
pub enum Prompt {
    /// The raw text. A start token stands before it only where the model's metadata says so.
    Text(String),
    /// Tokens as they are.
    Tokens(Vec<u32>),
    /// A conversation, which the model's chat template turns into text. Both are JSON as OpenAI's API has them: an array
    /// of messages, and an array of tools or nothing.
    Chat {
        /// The messages.
        messages: String,
        /// The tools that the model may call.
        tools: Option<String>,
    },
}

/// How the next token is drawn. The defaults take the likeliest.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0: the likeliest token, always.
    pub temperature: f32,
    /// Of so many likeliest; 0: of all.
    pub top_k: u32,
    /// Of the likeliest that together have this probability.
    pub top_p: f32,
    /// Of those at least so likely, relative to the likeliest.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens that were there, prompt included (CTRL, Keskar 2019).
    pub repetition_penalty: f32,
    /// Taken off the logit of each token that was generated (OpenAI).
    pub presence_penalty: f32,
    /// The same, times how often it was generated.
    pub frequency_penalty: f32,
    /// Of the draws.
    pub seed: u64,
    /// Added to these tokens' logits.
    pub logit_bias: Vec<(u32, f32)>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: 0,
            logit_bias: Vec::new(),
        }
    }
}

/// What the text must be.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Format {
    /// Anything.
    #[default]
    Text,
    /// One JSON object.
    JsonObject,
    /// JSON that this JSON Schema describes.
    JsonSchema(String),
}

/// A request to generate.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// What to go on from.
    pub prompt: Prompt,
    /// Tokens to generate at most; none: as many as the model's context holds.
    pub max_tokens: Option<u32>,
    /// How they are drawn.
    pub sampling: Sampling,
    /// Texts before which the answer ends.
    pub stop: Vec<String>,
    /// Whether log-probabilities are told, and of how many alternatives.
    pub logprobs: Option<u32>,
    /// What the text must be.
    pub format: Format,
    /// Whether the model's end token is a token like any other.
    pub ignore_end: bool,
    /// Tokens that were generated elsewhere and sent already.
    pub resume: Vec<u32>,
    /// When it was asked for, seconds since 1970: a chat template may write the date, on each worker the same. 0 until it is
    /// admitted.
    pub asked: u64,
}

/// A token with its probability.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenProbability {
    /// Its number in the vocabulary.
    pub token: u32,
    /// Its bytes, which need not be whole characters.
    pub bytes: Vec<u8>,
    /// The natural logarithm of its probability, before temperature and penalties.
    pub logprob: f32,
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model's end token, or a stop string.
    Stop,
    /// `max_tokens`, or the end of the context.
    Length,
}

/// What a step added to a generation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delta {
    /// Tokens generated before these, those of an earlier worker included.
    pub position: u32,
    /// The new tokens: those that the text needs, and those whose text is held back for a stop string that may come.
    pub tokens: Vec<u32>,
    /// The new text: whole characters, never a part of a stop string.
    pub text: String,
    /// Of each new token, if they were asked for: itself, then the alternatives, the likeliest first.
    pub logprobs: Vec<Vec<TokenProbability>>,
    /// Set in the last one.
    pub finish: Option<FinishReason>,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Of these, tokens whose keys and values were there already.
    pub cached_tokens: u32,
}

impl Generation {
    /// A greedy generation from raw text.
    pub fn new(prompt: Prompt) -> Self {
        Self {
            prompt,
            max_tokens: None,
            sampling: Sampling::default(),
            stop: Vec::new(),
            logprobs: None,
            format: Format::default(),
            ignore_end: false,
            resume: Vec::new(),
            asked: 0,
        }
    }

    /// Bytes that it takes in memory, about.
    pub fn bytes(&self) -> usize {
        let prompt = match &self.prompt {
            Prompt::Text(text) => text.len(),
            Prompt::Tokens(tokens) => 4 * tokens.len(),
            Prompt::Chat { messages, tools } => messages.len() + tools.as_ref().map_or(0, String::len),
        };
        let schema = if let Format::JsonSchema(schema) = &self.format { schema.len() } else { 0 };
        prompt + schema + self.stop.iter().map(String::len).sum::<usize>() + 8 * self.sampling.logit_bias.len()
    }

    /// Checks every figure against its range.
    ///
    /// # Errors
    /// INVALID_ARGUMENT naming the parameter, its value and its range.
    pub fn check(&self) -> Result<()> {
        let s = &self.sampling;
        for (name, value, least, most) in [
            ("temperature", s.temperature, 0.0, 100.0),
            ("top_p", s.top_p, f32::MIN_POSITIVE, 1.0),
            ("min_p", s.min_p, 0.0, 1.0),
            ("repetition_penalty", s.repetition_penalty, 0.01, 100.0),
            ("presence_penalty", s.presence_penalty, -100.0, 100.0),
            ("frequency_penalty", s.frequency_penalty, -100.0, 100.0),
        ] {
            if !(least..=most).contains(&value) {
                let least = if least == f32::MIN_POSITIVE { "above 0".to_owned() } else { format!("from {least}") };
                return Err(Error::invalid(format!("'{name}' is {value}, it must be {least} to {most}")));
            }
        }
        if self.max_tokens == Some(0) {
            return Err(Error::invalid("'max_tokens' is 0, it must be 1 or more"));
        }
        if self.stop.len() > MOST_STOPS {
            return Err(Error::invalid(format!(
                "'stop' has {} texts, at most {MOST_STOPS} are taken",
                self.stop.len()
            )));
        }
        if let Some(stop) = self.stop.iter().find(|stop| stop.is_empty() || stop.len() > STOP_BYTES) {
            let bytes = stop.len();
            return Err(Error::invalid(format!("a text of 'stop' has {bytes} bytes, it must have 1 to {STOP_BYTES}")));
        }
        if s.logit_bias.len() > MOST_BIASES || s.logit_bias.iter().any(|(_, bias)| !(-100.0..=100.0).contains(bias)) {
            let text = format!("'logit_bias' must hold at most {MOST_BIASES} tokens, each from -100 to 100");
            return Err(Error::invalid(text));
        }
        match self.logprobs {
            Some(wanted) if wanted > MOST_ALTERNATIVES => Err(Error::invalid(format!(
                "{wanted} log-probabilities a token are asked for, at most {MOST_ALTERNATIVES} are told"
            ))),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn whole() -> Generation {
        let messages = r#"[{"role":"user","content":"hi"}]"#.to_owned();
        Generation {
            max_tokens: Some(7),
            sampling: Sampling { temperature: 0.5, seed: 9, logit_bias: vec![(3, -1.5)], ..Default::default() },
            stop: vec!["\n".into()],
            logprobs: Some(0),
            format: Format::JsonSchema("{}".into()),
            ignore_end: true,
            resume: vec![5, 6],
            asked: 7,
            ..Generation::new(Prompt::Chat { messages, tools: None })
        }
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        type Spoil = fn(&mut Generation);
        let cases: [(&str, Spoil); 7] = [
            ("temperature", |g| g.sampling.temperature = f32::NAN),
            ("top_p", |g| g.sampling.top_p = 0.0),
            ("repetition_penalty", |g| g.sampling.repetition_penalty = 0.0),
            ("max_tokens", |g| g.max_tokens = Some(0)),
            ("stop", |g| g.stop = vec![String::new()]),
            ("logit_bias", |g| g.sampling.logit_bias = vec![(1, f32::INFINITY)]),
            ("21 log-probabilities", |g| g.logprobs = Some(21)),
        ];
        assert!(whole().check().is_ok());
        for (name, spoil) in cases {
            let mut generation = whole();
            spoil(&mut generation);
            let message = generation.check().unwrap_err().message;
            assert!(message.contains(name), "{message}");
        }
    }
}
