//! From tokens and encoded audio to the next token's logits.

use orion_proto::Result;

use super::{
    Source, WhisperConfig,
    dense::{Dense, Weight},
    weights::Weights,
};
use crate::{
    generation::kernels::{Matrix, Unpack, dispatch},
    kernels::{Cache, Linear, Norm, Reading, attend_cached},
};

/// Whisper's decoder, over several sequences at once.
pub(super) struct Decoder {
    /// The table of tokens.
    tokens: Matrix,
    /// The same as a layer, which gives the logits.
    logits: Dense,
    positions: Vec<f32>,
    blocks: Vec<Block>,
    norm: Norm,
    d: usize,
    heads: usize,
    inner: usize,
    audio_positions: usize,
    text_positions: usize,
}

struct Block {
    norm: Norm,
    query_key_value: Dense,
    out: Dense,
    cross_norm: Norm,
    cross_query: Dense,
    cross_out: Dense,
    /// Of encoded audio.
    cross_key_value: Linear,
    mlp_norm: Norm,
    up: Dense,
    down: Dense,
}

impl Block {
    fn load(weights: &Weights<'_>, name: &str, config: &WhisperConfig) -> Result<Self> {
        let (d, size) = (config.d_model, config.d_model / config.decoder_attention_heads);
        let (own, cross) = (format!("{name}.attn"), format!("{name}.cross_attn"));
        Ok(Self {
            norm: weights.norm(&format!("{own}_ln"))?,
            query_key_value: weights.dense_projections(&own, &["query", "key", "value"], size)?,
            out: weights.dense(&format!("{own}.out"), d, false)?,
            cross_norm: weights.norm(&format!("{cross}_ln"))?,
            cross_query: weights.dense_projections(&cross, &["query"], size)?,
            cross_out: weights.dense(&format!("{cross}.out"), d, false)?,
            cross_key_value: weights.projections(&cross, &["key", "value"], size)?,
            mlp_norm: weights.norm(&format!("{name}.mlp_ln"))?,
            up: weights.dense(&format!("{name}.mlp.0"), config.decoder_inner(), true)?,
            down: weights.dense(&format!("{name}.mlp.2"), d, false)?,
        })
    }
}

/// What is kept of one sequence, block by block.
pub(super) struct State {
    text: Vec<Cache>,
    audio: Vec<Cache>,
}

/// Tokens that follow those that a state holds: one at least.
pub(super) struct Input<'a> {
    pub(super) tokens: &'a [u32],
    pub(super) state: &'a mut State,
}

impl Decoder {
    /// Finds the weights.
    pub(super) fn load(weights: &Weights<'_>, source: &Source) -> Result<Self> {
        let config = &source.config;
        let (d, heads) = (config.d_model, config.decoder_attention_heads);
        let block = |index: usize| Block::load(weights, &format!("decoder.blocks.{index}"), config);
        let tokens = weights.matrix("decoder.token_embedding.weight", config.vocab_size)?;
        Ok(Self {
            logits: Dense::new(vec![Weight { matrix: tokens.clone(), bias: None, scale: 1.0 }], false),
            tokens,
            positions: weights.floats("decoder.positional_embedding")?,
            blocks: (0..config.decoder_layers).map(block).collect::<Result<_>>()?,
            norm: weights.norm("decoder.ln")?,
            d,
            heads,
            inner: config.decoder_inner(),
            audio_positions: config.max_source_positions,
            text_positions: config.max_target_positions,
        })
    }

    /// Room for one sequence.
    pub(super) fn state(&self) -> State {
        let caches = |length: usize| {
            self.blocks.iter().map(|_| Cache::new(self.heads, self.d / self.heads, length)).collect::<Vec<_>>()
        };
        State { text: caches(self.text_positions), audio: caches(self.audio_positions) }
    }

    /// Has a state listen to encoded audio; the sequence begins anew.
    pub(super) fn listen(&self, audio: &[f32], state: &mut State) {
        state.forget_text();
        let stride = 2 * self.d;
        let mut both = vec![0.0; audio.len() * 2];
        for (block, cache) in self.blocks.iter().zip(&mut state.audio) {
            block.cross_key_value.forward(audio, &mut both);
            cache.clear();
            cache.append(&both, &both[self.d..], stride, audio.len() / self.d);
        }
    }

    /// The logits `[inputs, vocabulary]` of what follows each input's last token.
    pub(super) fn forward(&self, inputs: &mut [Input<'_>]) -> Vec<f32> {
        let d = self.d;
        let rows: usize = inputs.iter().map(|input| input.tokens.len()).sum();
        let (mut x, mut added) = self.embed(inputs);
        let mut normalised = vec![0.0; rows * d];
        let mut attended = vec![0.0; rows * d];
        let mut wide = vec![0.0; rows * self.inner.max(3 * d)];
        for (index, block) in self.blocks.iter().enumerate() {
            block.norm.add_before(&mut x, &added, &mut normalised);
            let all = &mut wide[..rows * 3 * d];
            block.query_key_value.forward(&normalised, all);
            let mut rest: &[f32] = all;
            for Input { tokens, state } in &mut *inputs {
                state.text[index].append(&rest[d..], &rest[2 * d..], 3 * d, tokens.len());
                rest = &rest[tokens.len() * 3 * d..];
            }
            attend_cached(all, 3 * d, &readings(inputs, index, true), &mut attended);
            block.out.forward(&attended, &mut added);

            block.cross_norm.add_before(&mut x, &added, &mut normalised);
            let queries = &mut wide[..rows * d];
            block.cross_query.forward(&normalised, queries);
            attend_cached(queries, d, &readings(inputs, index, false), &mut attended);
            block.cross_out.forward(&attended, &mut added);

            block.mlp_norm.add_before(&mut x, &added, &mut normalised);
            let inner = &mut wide[..rows * self.inner];
            block.up.forward(&normalised, inner);
            block.down.forward(inner, &mut added);
        }
        self.norm.add_before(&mut x, &added, &mut normalised);
        self.logits(inputs, &normalised)
    }

    /// The rows of the table and of the positions.
    fn embed(&self, inputs: &[Input<'_>]) -> (Vec<f32>, Vec<f32>) {
        let places = inputs.iter().flat_map(|Input { tokens, state }| {
            let held = state.text.first().map_or(0, Cache::length);
            tokens.iter().enumerate().map(move |(at, &token)| (token as usize, held + at))
        });
        let (mut words, mut positions) = (Vec::new(), Vec::new());
        for (token, position) in places {
            words.resize(words.len() + self.d, 0.0);
            let from = words.len() - self.d;
            dispatch(Unpack { matrix: &self.tokens, row: token, to: &mut words[from..] });
            positions.extend_from_slice(&self.positions[position * self.d..][..self.d]);
        }
        (words, positions)
    }

    fn logits(&self, inputs: &[Input<'_>], normalised: &[f32]) -> Vec<f32> {
        let ends = inputs.iter().scan(0, |end, input| {
            *end += input.tokens.len();
            Some(*end)
        });
        let last: Vec<f32> = ends.flat_map(|end| &normalised[(end - 1) * self.d..end * self.d]).copied().collect();
        let mut logits = vec![0.0; inputs.len() * self.logits.outputs()];
        self.logits.forward(&last, &mut logits);
        logits
    }
}

/// What the inputs' tokens read in a block: what was said up to them, or all of the audio.
fn readings<'a>(inputs: &'a [Input<'_>], block: usize, said: bool) -> Vec<Reading<'a>> {
    let reading = |input: &'a Input<'_>| {
        let caches = if said { &input.state.text } else { &input.state.audio };
        Reading { cache: &caches[block], tokens: input.tokens.len(), causal: said }
    };
    inputs.iter().map(reading).collect()
}

impl State {
    /// Begins the sequence anew over the same audio.
    pub(super) fn forget_text(&mut self) {
        self.text.iter_mut().for_each(Cache::clear);
    }
}
