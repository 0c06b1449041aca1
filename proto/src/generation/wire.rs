//! Generations and their steps as messages of a session, and back.

use super::{Delta, FinishReason, Format, Generation, Prompt, Sampling, TokenProbability};
use crate::{Error, Result, session};

impl From<&Generation> for session::Generation {
    fn from(generation: &Generation) -> Self {
        use session::generation::Prompt as Wire;
        let s = &generation.sampling;
        let prompt = match &generation.prompt {
            Prompt::Text(text) => Wire::Text(text.clone()),
            Prompt::Tokens(tokens) => Wire::Tokens(session::Tokens { tokens: tokens.clone() }),
            Prompt::Chat { messages, tools } => {
                Wire::Chat(session::Chat { messages: messages.clone(), tools: tools.clone().unwrap_or_default() })
            }
        };
        let (json, schema) = match &generation.format {
            Format::Text => (false, String::new()),
            Format::JsonObject => (true, String::new()),
            Format::JsonSchema(schema) => (true, schema.clone()),
        };
        Self {
            prompt: Some(prompt),
            max_tokens: generation.max_tokens.unwrap_or(0),
            temperature: s.temperature,
            top_k: s.top_k,
            top_p: s.top_p,
            min_p: s.min_p,
            repetition_penalty: s.repetition_penalty,
            presence_penalty: s.presence_penalty,
            frequency_penalty: s.frequency_penalty,
            seed: s.seed,
            bias_tokens: s.logit_bias.iter().map(|(token, _)| *token).collect(),
            biases: s.logit_bias.iter().map(|(_, bias)| *bias).collect(),
            stop: generation.stop.clone(),
            logprobs: generation.logprobs.map_or(0, |wanted| wanted + 1),
            json,
            schema,
            ignore_end: generation.ignore_end,
            resume: generation.resume.clone(),
            asked: generation.asked,
        }
    }
}

impl TryFrom<session::Generation> for Generation {
    type Error = Error;

    fn try_from(wire: session::Generation) -> Result<Self> {
        use session::generation::Prompt as Wire;
        let prompt = match wire.prompt {
            Some(Wire::Text(text)) => Prompt::Text(text),
            Some(Wire::Tokens(tokens)) => Prompt::Tokens(tokens.tokens),
            Some(Wire::Chat(chat)) => {
                Prompt::Chat { messages: chat.messages, tools: Some(chat.tools).filter(|tools| !tools.is_empty()) }
            }
            None => return Err(Error::invalid("a generation has no prompt")),
        };
        let format = match (wire.json, wire.schema.is_empty()) {
            (false, _) => Format::Text,
            (true, true) => Format::JsonObject,
            (true, false) => Format::JsonSchema(wire.schema),
        };
        let generation = Self {
            prompt,
            max_tokens: Some(wire.max_tokens).filter(|most| *most > 0),
            sampling: Sampling {
                temperature: wire.temperature,
                top_k: wire.top_k,
                top_p: wire.top_p,
                min_p: wire.min_p,
                repetition_penalty: wire.repetition_penalty,
                presence_penalty: wire.presence_penalty,
                frequency_penalty: wire.frequency_penalty,
                seed: wire.seed,
                logit_bias: wire.bias_tokens.into_iter().zip(wire.biases).collect(),
            },
            stop: wire.stop,
            logprobs: wire.logprobs.checked_sub(1),
            format,
            ignore_end: wire.ignore_end,
            resume: wire.resume,
            asked: wire.asked,
        };
        generation.check()?;
        Ok(generation)
    }
}

impl From<Delta> for session::Delta {
    fn from(delta: Delta) -> Self {
        let probability = |p: TokenProbability| session::TokenProbability {
            token: p.token,
            bytes: p.bytes.into(),
            logprob: p.logprob,
        };
        let of_token = |token: Vec<TokenProbability>| session::TokenProbabilities {
            tokens: token.into_iter().map(probability).collect(),
        };
        Self {
            position: delta.position,
            tokens: delta.tokens,
            text: delta.text,
            logprobs: delta.logprobs.into_iter().map(of_token).collect(),
            finish: match delta.finish {
                None => session::Finish::Not,
                Some(FinishReason::Stop) => session::Finish::Stop,
                Some(FinishReason::Length) => session::Finish::Length,
            }
            .into(),
            prompt_tokens: delta.prompt_tokens,
            cached_tokens: delta.cached_tokens,
        }
    }
}

impl From<session::Delta> for Delta {
    fn from(wire: session::Delta) -> Self {
        let finish = match wire.finish() {
            session::Finish::Not => None,
            session::Finish::Stop => Some(FinishReason::Stop),
            session::Finish::Length => Some(FinishReason::Length),
        };
        let probability = |p: session::TokenProbability| TokenProbability {
            token: p.token,
            bytes: p.bytes.into(),
            logprob: p.logprob,
        };
        Self {
            position: wire.position,
            tokens: wire.tokens,
            text: wire.text,
            logprobs: wire.logprobs.into_iter().map(|t| t.tokens.into_iter().map(probability).collect()).collect(),
            finish,
            prompt_tokens: wire.prompt_tokens,
            cached_tokens: wire.cached_tokens,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::whole, *};

    #[test]
    fn generations_and_deltas_round_trip() {
        let plain = Generation::new(Prompt::Tokens(vec![1, 2]));
        for sent in [whole(), plain, Generation::new(Prompt::Text("x".into()))] {
            assert_eq!(Generation::try_from(session::Generation::from(&sent)).unwrap(), sent);
        }
        let token = TokenProbability { token: 4, bytes: vec![0xe2], logprob: -0.5 };
        let delta = Delta {
            position: 8,
            tokens: vec![4],
            text: "é".into(),
            logprobs: vec![vec![token]],
            finish: Some(FinishReason::Length),
            prompt_tokens: 3,
            cached_tokens: 2,
        };
        assert_eq!(Delta::from(session::Delta::from(delta.clone())), delta);
    }
}
