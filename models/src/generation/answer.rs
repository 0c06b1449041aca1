//! What a sequence has answered so far, and when it ends.

use orion_proto::{FinishReason, Generation, Result, Sampling};

use super::{
    format::Constraint,
    sampling::Counts,
    text::{Output, Vocabulary},
};

/// The state of an answer: a function of its generation and its tokens.
pub(crate) struct Answer {
    pub(crate) sampling: Sampling,
    pub(crate) counts: Counts,
    /// What the text must be, if anything.
    pub(crate) constraint: Option<Constraint>,
    /// Alternatives of each token whose probabilities are told.
    pub(crate) logprobs: Option<usize>,
    /// Tokens so far, those that it was resumed from included.
    pub(crate) tokens: usize,
    /// Tokens at most.
    most: usize,
    ignore_end: bool,
    output: Output,
    pub(crate) finish: Option<FinishReason>,
}

impl Answer {
    /// To a prompt of these tokens, of at most so many.
    pub(crate) fn new(generation: &Generation, prompt: &[u32], most: usize, vocabulary: &Vocabulary) -> Self {
        Self {
            sampling: generation.sampling.clone(),
            counts: Counts::new(prompt),
            constraint: None,
            logprobs: generation.logprobs.map(|alternatives| alternatives as usize),
            tokens: 0,
            most,
            ignore_end: generation.ignore_end,
            output: Output::new(generation.stop.clone(), vocabulary.begins_after(prompt)),
            finish: None,
        }
    }

    /// Takes a token; the text that can be given out.
    ///
    /// # Errors
    /// Those of its constraint.
    pub(crate) fn push(&mut self, token: u32, vocabulary: &Vocabulary) -> Result<String> {
        self.tokens += 1;
        self.counts.add(token);
        if vocabulary.is_end(token) && !self.ignore_end {
            self.finish = Some(FinishReason::Stop);
            return Ok(self.output.finish());
        }
        let complete = self.constraint.as_mut().map_or(Ok(false), |constraint| constraint.push(token))?;
        let pushed = self.output.push(vocabulary.bytes(token));
        self.finish = if pushed.stopped || complete {
            Some(FinishReason::Stop)
        } else if self.tokens >= self.most {
            Some(FinishReason::Length)
        } else {
            return Ok(pushed.text);
        };
        Ok(pushed.text + &self.output.finish())
    }
}
