//! A language model in memory: requests in, steps out.

use std::sync::atomic::{AtomicU32, Ordering};

use orion_proto::{
    Code, Delta, Error, FinishReason, Format, Generation, ModelSpec, Priority, Prompt, Result, TokenProbability,
};

use super::{
    answer::Answer,
    decoder::{Decoder, Row, Step},
    format::{Constraint, Grammars},
    kernels::BLOCK_TOKENS,
    key_values::KeyValues,
    sampling::{Chooser, log_probabilities},
    schedule::{Chunk, Schedule},
    sequence::Sequence,
    text::{Conversation, Vocabulary},
};
use crate::{Generator, GeneratorLoad};

/// A decoder with its vocabulary and its cache.
pub(crate) struct LanguageModel {
    pub(super) spec: ModelSpec,
    pub(super) vocabulary: Vocabulary,
    pub(super) decoder: Decoder,
    pub(super) cache: KeyValues,
    pub(super) schedule: Schedule,
    pub(super) chooser: Chooser,
    /// Made when the first answer must be JSON.
    pub(super) grammars: Option<Grammars>,
    /// Sequences that have ended before they began.
    pub(super) over: Vec<(u64, Delta)>,
    pub(super) arrivals: u64,
    /// Makes each sample another.
    pub(super) samples: AtomicU32,
}

impl LanguageModel {
    /// The most tokens that a prompt and its answer may have together.
    fn most_tokens(&self) -> usize {
        self.spec.generator.map_or(0, |generator| generator.context_tokens as usize)
    }

    fn prompt(&self, generation: &Generation) -> Result<Vec<u32>> {
        let most = self.most_tokens();
        let tokens = match &generation.prompt {
            Prompt::Text(text) => self.vocabulary.encode(text, most)?,
            Prompt::Tokens(tokens) => tokens.clone(),
            Prompt::Chat { messages, tools } => {
                let conversation = Conversation { messages, tools: tools.as_deref(), asked: generation.asked };
                self.vocabulary.encode_chat(conversation, most)?
            }
        };
        if tokens.is_empty() {
            return Err(Error::invalid("the prompt has no tokens, it must have one or more"));
        }
        Ok(tokens)
    }

    /// Refuses a token that the model does not know.
    fn check_tokens<'t>(&self, what: &str, tokens: impl IntoIterator<Item = &'t u32>) -> Result<()> {
        let count = self.decoder.config.vocabulary;
        match tokens.into_iter().find(|token| **token as usize >= count) {
            Some(token) => {
                Err(Error::invalid(format!("{what} has the token {token}, the model knows 0 to {}", count - 1)))
            }
            None => Ok(()),
        }
    }

    /// Tokens that an answer may have.
    fn most_answer(&self, prompt: usize, generation: &Generation) -> Result<usize> {
        let (most, resumed) = (self.most_tokens(), generation.resume.len());
        let wanted = generation.max_tokens.map_or(1, |tokens| tokens as usize).max(resumed);
        if prompt.saturating_add(wanted) > most {
            return Err(Error::invalid(format!(
                "the prompt has {prompt} tokens and {wanted} are to be generated, the model holds {most} together"
            )));
        }
        Ok(generation.max_tokens.map_or(most - prompt, |tokens| tokens as usize))
    }

    /// The constraint of a format. What all need is made for the first.
    fn constraint(&mut self, format: &Format) -> Result<Option<Constraint>> {
        if *format == Format::Text {
            return Ok(None);
        }
        let count = self.decoder.config.vocabulary;
        let grammars = match self.grammars.take() {
            Some(grammars) => grammars,
            None => Grammars::new(&self.vocabulary, count)?,
        };
        self.grammars.insert(grammars).constraint(format)
    }

    /// The news of a sequence whose last token's logits these are.
    fn next(&mut self, index: usize, logits_at: usize) -> Result<Delta> {
        let Self { decoder, chooser, schedule, vocabulary, .. } = self;
        let (sequence, count) = (&mut schedule.running[index], decoder.config.vocabulary);
        let logits = &decoder.logits()[logits_at * count..][..count];
        let answer = &mut sequence.answer;
        let position = answer.tokens;
        let allowed = answer.constraint.as_mut().map(Constraint::allowed).transpose()?;
        let chosen = chooser.choose(logits, &answer.sampling, &answer.counts, position as u64, allowed.as_ref());
        let token =
            chosen.ok_or_else(|| Error::new(Code::Internal, "the model computed no token that can be chosen"))?;
        let logprobs = answer.logprobs.map(|alternatives| {
            let probability =
                |(token, logprob)| TokenProbability { token, bytes: vocabulary.bytes(token).to_vec(), logprob };
            log_probabilities(logits, token, alternatives).into_iter().map(probability).collect()
        });
        let text = answer.push(token, vocabulary)?;
        sequence.tokens.push(token);
        Ok(Delta {
            tokens: vec![token],
            text,
            logprobs: logprobs.into_iter().collect(),
            position: position as u32,
            finish: answer.finish,
            prompt_tokens: sequence.prompt as u32,
            cached_tokens: sequence.cached.unwrap_or(0) as u32,
        })
    }

    fn step_of(&self, plan: &[Chunk]) -> Step {
        let mut step = Step::default();
        for (number, chunk) in plan.iter().enumerate() {
            let sequence = &self.schedule.running[chunk.sequence];
            let positions = sequence.computed..sequence.computed + chunk.tokens;
            let rows = sequence.tokens[positions.clone()].iter().zip(positions);
            step.rows.extend(rows.map(|(token, position)| Row { token: *token, position, sequence: number }));
            step.blocks.push(sequence.blocks.clone());
            if sequence.pending() == chunk.tokens {
                step.wanted.push(step.rows.len() - 1);
            }
        }
        step
    }
}

impl Generator for LanguageModel {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn add(&mut self, sequence: u64, priority: Priority, generation: &Generation) -> Result<()> {
        generation.check()?;
        let prompt = self.prompt(generation)?;
        self.check_tokens("the prompt", &prompt)?;
        self.check_tokens("'resume'", &generation.resume)?;
        self.check_tokens("'logit_bias'", generation.sampling.logit_bias.iter().map(|(token, _)| token))?;
        let most = self.most_answer(prompt.len(), generation)?;
        let mut answer = Answer::new(generation, &prompt, most, &self.vocabulary);
        answer.constraint = self.constraint(&generation.format)?;
        for token in &generation.resume {
            answer.push(*token, &self.vocabulary)?;
        }
        if answer.finish.is_some() {
            let finish = answer.finish.or(Some(FinishReason::Stop));
            let position = generation.resume.len() as u32;
            self.over
                .push((sequence, Delta { position, finish, prompt_tokens: prompt.len() as u32, ..Delta::default() }));
            return Ok(());
        }
        self.arrivals += 1;
        let length = prompt.len();
        let tokens = [prompt, generation.resume.clone()].concat();
        self.schedule.add(Sequence::new(sequence, (priority, self.arrivals), tokens, length, answer));
        Ok(())
    }

    fn cancel(&mut self, sequence: u64) {
        self.over.retain(|(id, _)| *id != sequence);
        self.schedule.cancel(sequence);
    }

    fn step(&mut self) -> Vec<(u64, Result<Delta>)> {
        let mut news: Vec<(u64, Result<Delta>)> = self.over.drain(..).map(|(id, delta)| (id, Ok(delta))).collect();
        let plan = self.schedule.plan();
        if plan.is_empty() {
            return news;
        }
        let step = self.step_of(&plan);
        self.decoder.forward(&step, &mut self.cache);
        let mut ended = Vec::new();
        let mut wanted = 0;
        for chunk in plan {
            self.schedule.computed(chunk);
            if self.schedule.running[chunk.sequence].pending() > 0 {
                continue;
            }
            let delta = self.next(chunk.sequence, wanted);
            wanted += 1;
            if delta.as_ref().map_or(true, |delta| delta.finish.is_some()) {
                ended.push(chunk.sequence);
            }
            news.push((self.schedule.running[chunk.sequence].id, delta));
        }
        // From the back, so that the others keep their places.
        ended.sort_unstable();
        for index in ended.into_iter().rev() {
            self.schedule.remove(index);
        }
        news
    }

    fn load(&self) -> GeneratorLoad {
        let Schedule { running, waiting, blocks, .. } = &self.schedule;
        let bytes = |count: usize| (count * BLOCK_TOKENS) as u64 * self.cache.width().token_bytes(&self.decoder.config);
        GeneratorLoad {
            running: running.len(),
            waiting: waiting.len() + self.over.len(),
            held_tokens: running.iter().map(|sequence| sequence.computed as u64).sum(),
            kept_tokens: (blocks.kept() * BLOCK_TOKENS) as u64,
            cache_bytes: bytes(blocks.total()),
            held_bytes: bytes(blocks.total().saturating_sub(blocks.available())),
            kept_bytes: bytes(blocks.kept()),
        }
    }

    fn sample(&self, prompt_tokens: usize, max_tokens: usize) -> Generation {
        // Each its own, so that none finds its prompt in the cache.
        let first = self.samples.fetch_add(1, Ordering::Relaxed);
        let count = self.decoder.config.vocabulary as u32;
        let tokens = (0..prompt_tokens.max(1) as u32).map(|at| first.wrapping_mul(31).wrapping_add(at * 7) % count);
        let prompt = Prompt::Tokens(tokens.collect());
        Generation { max_tokens: Some(max_tokens.max(1) as u32), ignore_end: true, ..Generation::new(prompt) }
    }
}
