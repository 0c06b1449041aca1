//! What generations tell of their prompts: tokens, those that were cached, the time to the first; it corrects what is
//! believed of a replica's cache and speed.

use orion_proto::{Delta, InferAnswer};

use super::{
    Core, Nanos, RequestKey, decode_time::DecodeTime, dispatch::Running, prefix::Prefix, prefix_cache::Known,
    replica::Replica,
};

/// Fewer uncached tokens than this say nothing of what one takes.
const TELLING: f64 = 32.0;
/// So many times more than was expected, one generation alone is not believed.
const CREDIBLE: f64 = 4.0;
/// A belief was wrong where less than this share of it was cached: it is in chunks of bytes, the cache in blocks of tokens.
const WRONG: f64 = 0.5;

/// What was believed when a generation was given to a replica.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun {
    at: Nanos,
    /// Predicted until the replica turns to it.
    ahead: Nanos,
    /// Tokens that were sent before.
    resumed: usize,
    known: Known,
}

/// A prompt's chunks with their tokens.
fn chunks(prefix: &Prefix, per_byte: f64) -> impl DoubleEndedIterator<Item = (u64, u32)> {
    let tokens = move |at| (prefix.tokens_of(at + 1, per_byte) - prefix.tokens_of(at, per_byte)).ceil() as u32;
    prefix.beginnings().iter().enumerate().map(move |(at, hash)| (*hash, tokens(at)))
}

impl<T, L: Clone> Core<T, L> {
    /// A generation was given to a replica, which will have its prompt.
    pub(super) fn begin_prefill(&mut self, now: Nanos, id: usize, key: RequestKey) {
        let Some(request) = self.request(key) else { return };
        let (time, ahead) = (self.prefill(id, request).time, self.turns_in(now, &self.replicas[id]));
        let (batch, model) = (request.running.map(|(batch, _)| batch), request.model);
        let (budget, per_byte) = (self.cache_tokens(model), self.models[model].prompts.tokens_per_byte());
        let Some(generated) = self.requests[key.place].generated.as_mut() else { return };
        let prompts = &mut self.replicas[id].prompts;
        let known = prompts.cache.known(generated.prefix.beginnings());
        generated.decode = DecodeTime::default();
        generated.begun = Some(Begun { at: now, ahead, resumed: generated.sent(), known });
        prompts.cache.read(chunks(&generated.prefix, per_byte), false, budget);
        prompts.read = now;
        if let Some(running) = batch.and_then(|batch| self.batches.get_mut(&batch)) {
            running.prefill = time;
            prompts.reading = prompts.reading.saturating_add(time);
            running.reading = prompts.reading;
        }
    }

    /// The first step of a generation has come.
    pub(super) fn end_prefill(&mut self, now: Nanos, key: RequestKey, batch: u64, first: &Delta) {
        let Some(running) = self.batches.get_mut(&batch) else { return };
        let time = std::mem::take(&mut running.prefill);
        let Some(running) = self.batches.get(&batch) else { return };
        let Some(id) = self.replica_of(running) else { return };
        let prompts = &mut self.replicas[id].prompts;
        (prompts.reading, prompts.read) = (prompts.reading.saturating_sub(time), now);
        self.learn_prompt(now, key, (id, batch), first);
    }

    /// A step of a generation has come: what its tokens take is learned where no prompt is read beside it.
    pub(super) fn note_step(&mut self, now: Nanos, key: RequestKey, batch: u64, tokens: usize) {
        let replica = self.batches.get(&batch).and_then(|running| self.replica_of(running));
        let Some(prompts) = replica.map(|id| &self.replicas[id].prompts) else { return };
        let read = if prompts.reading > 0 { now } else { prompts.read };
        let generated = self.request_mut(key).and_then(|request| request.generated.as_mut());
        generated.into_iter().for_each(|generated| generated.decode.step(now, tokens, read));
    }

    /// A generation has ended well: its answer is cached behind its prompt, and both were in use until now.
    pub(super) fn learn_generation(
        &mut self,
        now: Nanos,
        key: RequestKey,
        (running, batch): (&Running, u64),
        answer: &InferAnswer,
    ) {
        let (Some(last), Some(id)) = (&answer.delta, self.replica_of(running)) else { return };
        // Its only step may be the last.
        self.learn_prompt(now, key, (id, batch), last);
        let Some(generated) = self.request(key).and_then(|request| request.generated.as_ref()) else { return };
        let (tokens, prefix) = (generated.sent().saturating_add(last.tokens.len()), generated.prefix.clone());
        let (budget, of_model) = (self.cache_tokens(running.model), &mut self.models[running.model].prompts);
        of_model.answer.add(tokens as f64, 1.0);
        let chunks = chunks(&prefix, of_model.tokens_per_byte());
        let answer = (batch, u32::try_from(tokens).unwrap_or(u32::MAX));
        self.replicas[id].prompts.cache.read(chunks.chain([answer]), true, budget);
    }

    /// The replica that a batch runs on, if it is still there.
    fn replica_of(&self, running: &Running) -> Option<usize> {
        let there = |replica: &&Replica| replica.model == running.model && replica.device == running.device;
        self.replicas.get(running.replica).filter(there).map(|_| running.replica)
    }

    /// Tokens that fit the cache of a model's replicas.
    fn cache_tokens(&self, model: usize) -> u64 {
        self.models[model].spec.as_ref().and_then(|spec| spec.generator).map_or(0, |generator| generator.cache_tokens)
    }

    /// What the first step of a generation says of its prompt; later ones say nothing new.
    fn learn_prompt(&mut self, now: Nanos, key: RequestKey, (id, batch): (usize, u64), told: &Delta) {
        let request = self.requests.get_mut(key.place).filter(|request| request.serial == key.serial);
        let Some(generated) = request.and_then(|request| request.generated.as_mut()) else { return };
        let Some(begun) = generated.begun.take().filter(|_| told.prompt_tokens > 0) else { return };
        let (prefix, model) = (generated.prefix.clone(), self.replicas[id].model);
        let most = self.models[model].spec.as_ref().and_then(|spec| spec.generator).map_or(0, |of| of.context_tokens);
        let tokens = f64::from(told.prompt_tokens.min(most));
        let cached = f64::from(told.cached_tokens).min(tokens);
        // Beside more than it has places for, it may have waited for one.
        if batch > self.replicas[id].crowded {
            self.learn_token_time(now, id, &begun, tokens + begun.resumed as f64 - cached);
        }
        if let Some(bytes) = prefix.text_bytes() {
            self.models[model].prompts.tokens.add(tokens, bytes);
        }
        let budget = self.cache_tokens(model);
        let per_byte = prefix.text_bytes().map_or(0.0, |bytes| tokens / bytes);
        let prompts = &mut self.replicas[id].prompts;
        let believed = prefix.tokens_of(begun.known.chunks, per_byte);
        // What was only on its way to the cache says nothing of what the worker keeps there.
        if begun.known.told && believed > 0.0 {
            prompts.cached.add(cached.min(believed), believed);
            if cached < believed * WRONG {
                // What was used before it went before it.
                prompts.cache.forget_unused_since(begun.known.used);
            }
        }
        prompts.cache.read(chunks(&prefix, per_byte), true, budget);
    }

    /// So many tokens were not cached, and the first token is there now.
    fn learn_token_time(&mut self, now: Nanos, id: usize, begun: &Begun, tokens: f64) {
        if tokens < TELLING {
            return;
        }
        let replica = &self.replicas[id];
        let step = self.step_time(replica).max(1) as f64;
        let others = [begun.ahead, self.step_time(replica), self.lead(replica.device)];
        let took = others.iter().fold(now.saturating_sub(begun.at), |left, other| left.saturating_sub(*other)) as f64;
        let usual = self.prompt_token_time(replica) * tokens;
        let took = if usual > 0.0 { took.min(usual * CREDIBLE) } else { took };
        let model = replica.model;
        self.replicas[id].prompts.time.add(took, tokens);
        self.models[model].prompts.share.add(took / step, tokens);
    }
}
