//! Prefill: what a replica is predicted to take for a prompt before its first token, less what it has cached.

use super::{Core, Nanos, cost::Cost, prefix_cache::PrefixCache, replica::Replica, request::Request};

/// Tokens of a byte of text, until a generation has told.
const TOKENS_PER_BYTE: f64 = 0.25;
/// Tokens of an answer, until one was told: as many as warm-up's curve is for.
const ANSWER_TOKENS: f64 = 64.0;
/// Believed tokens that count as found before any were told.
const TRUSTED: f64 = 1000.0;
/// What was told before keeps so much of its weight.
const KEPT: f64 = 0.92;

/// A quotient of sums in which the newest counts most.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ratio {
    over: f64,
    under: f64,
}

impl Ratio {
    pub(super) fn add(&mut self, over: f64, under: f64) {
        *self = Self { over: self.over * KEPT + over, under: self.under * KEPT + under };
    }

    fn value(self) -> Option<f64> {
        (self.under > 0.0).then(|| self.over / self.under)
    }
}

/// What generations have told of a model's prompts and answers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OfModel {
    /// Tokens of a byte of text.
    pub tokens: Ratio,
    /// Tokens of an answer.
    pub answer: Ratio,
    /// Time of a prompt's token as a share of a step's: for replicas that have not told.
    pub share: Ratio,
}

impl OfModel {
    pub(super) fn tokens_per_byte(&self) -> f64 {
        self.tokens.value().unwrap_or(TOKENS_PER_BYTE)
    }
}

/// What they have told of a replica.
#[derive(Debug)]
pub(super) struct OfReplica {
    pub cache: PrefixCache,
    /// Nanoseconds of a prompt's token.
    pub time: Ratio,
    /// Tokens that were cached of those that were believed to be.
    pub cached: Ratio,
    /// When a prompt was last begun or ended.
    pub read: Nanos,
    /// Predicted prefill of what was given to it and has not begun to answer.
    pub reading: Nanos,
}

impl Default for OfReplica {
    fn default() -> Self {
        let cached = Ratio { over: TRUSTED, under: TRUSTED };
        Self { cache: PrefixCache::default(), time: Ratio::default(), cached, read: 0, reading: 0 }
    }
}

/// A prompt on a replica, as predicted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Prefill {
    pub tokens: f64,
    /// Of these, cached.
    pub cached: f64,
    /// Of the others.
    pub time: Nanos,
    /// What the cached ones would have taken.
    pub saved: Nanos,
}

impl<T, L: Clone> Core<T, L> {
    /// What a request's prompt takes on a replica; nothing where it is no generation.
    pub(super) fn prefill(&self, id: usize, request: &Request<T>) -> Prefill {
        let Some(generated) = &request.generated else { return Prefill::default() };
        let (replica, prefix) = (&self.replicas[id], &generated.prefix);
        let per_byte = self.models[replica.model].prompts.tokens_per_byte();
        // One at least is computed, for what follows it.
        let tokens = (prefix.tokens(per_byte) + generated.sent() as f64).max(1.0);
        let known = replica.prompts.cache.known(prefix.beginnings());
        let believed = prefix.tokens_of(known.chunks, per_byte).min(tokens - 1.0);
        let cached = believed * replica.prompts.cached.value().unwrap_or(1.0);
        let time = self.prompt_token_time(replica);
        let nanos = |tokens: f64| (tokens * time) as Nanos;
        Prefill { tokens, cached, time: nanos(tokens - cached), saved: nanos(cached) }
    }

    /// Nanoseconds of a prompt's token on a replica: as it has told, or as those of its model that have; else 0.
    pub(super) fn prompt_token_time(&self, replica: &Replica) -> f64 {
        let step = self.step_time(replica) as f64;
        let of_others = || self.models[replica.model].prompts.share.value().map(|share| share * step);
        replica.prompts.time.value().or_else(of_others).unwrap_or(0.0)
    }

    /// A step of a replica, as its curve says.
    pub(super) fn step_time(&self, replica: &Replica) -> Nanos {
        (self.generation_time(replica) as f64 / self.answer_tokens(replica.model)) as Nanos
    }

    /// A generation of the usual length on a replica. What was promised is of as many tokens as warm-up takes, what was seen of
    /// the usual ones.
    pub(super) fn generation_time(&self, replica: &Replica) -> Nanos {
        let time = replica.line(0).predict(1);
        match replica.curve().was_observed() {
            true => time,
            false => (time as f64 * self.answer_tokens(replica.model) / ANSWER_TOKENS) as Nanos,
        }
    }

    /// Tokens of a usual answer.
    fn answer_tokens(&self, model: usize) -> f64 {
        self.models[model].prompts.answer.value().unwrap_or(ANSWER_TOKENS).max(1.0)
    }

    /// Until a generation's first token is there if it is given to a replica now.
    pub(super) fn first_token_cost(&self, now: Nanos, id: usize, request: &Request<T>) -> Cost {
        let replica = &self.replicas[id];
        let places = self.models[replica.model].places().max(1);
        let shared = self.generation_time(replica).saturating_mul(replica.running as Nanos) / places as Nanos;
        Cost {
            work: self.turns_in(now, replica).saturating_add(shared),
            load: 0,
            carriage: self.carriage(replica.device, request.bytes),
            prefill: self.prefill(id, request).time,
            service: self.step_time(replica),
            answer: self.lead(replica.device),
        }
    }

    /// Until a replica turns to a prompt that is given to it now.
    pub(super) fn turns_in(&self, now: Nanos, replica: &Replica) -> Nanos {
        self.available(now, replica.device).saturating_sub(now).saturating_add(replica.prompts.reading)
    }
}
