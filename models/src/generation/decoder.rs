//! The forward pass of a decoder of the Llama family over the rows of one step.
//!
//! A row is one token of one sequence. What is computed for it depends on its own sequence alone, bit for bit, whichever
//! rows are beside it.

use std::ops::Range;

use super::{
    checkpoint::{DecoderWeights, Layer},
    config::DecoderConfig,
    kernels::{
        Attention, BLOCK_TOKENS, Destination, Gate, Half, Matrix, Normalise, Product, Rope, Round, Rounded, Shared,
        Stored, Unpack, Unpacked, WholeProduct, Write, dispatch, to_halves,
    },
    key_values::{Cache, KeyValues},
    team::{Member, Pieces, together},
};

/// A token to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Below the vocabulary's size.
    pub(crate) token: u32,
    /// In its sequence.
    pub(crate) position: usize,
    /// Which of the step's sequences.
    pub(crate) sequence: usize,
}

/// What one step computes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Step {
    /// Each sequence's rows in the order of their positions; what lies before them is in the cache.
    pub(crate) rows: Vec<Row>,
    /// The blocks of each sequence, enough for its last position.
    pub(crate) blocks: Vec<Vec<u32>>,
    /// Rows whose logits are wanted.
    pub(crate) wanted: Vec<usize>,
}

/// A decoder in memory, with room for the rows of one step.
pub(crate) struct Decoder {
    pub(crate) config: DecoderConfig,
    weights: DecoderWeights,
    turns: Vec<f64>,
    most_rows: usize,
    room: Room,
}

/// The activations of a step.
#[derive(Default)]
struct Room {
    hidden: Vec<f32>,
    normal: Vec<f32>,
    /// Queries, keys and values of each row.
    projected: Vec<f32>,
    attended: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    cosines: Vec<f32>,
    sines: Vec<f32>,
    logits: Vec<f32>,
}

/// What one thread keeps from one piece of work to the next.
#[derive(Default)]
struct Scratch {
    unpacked: Vec<f32>,
    whole: Unpacked,
    /// The rows of this phase's products, rounded; empty before the first that needs them so.
    rounded: Rounded,
    scores: Vec<f32>,
    /// A row's keys and values.
    halves: Vec<Half>,
}

/// The room of one step, shared by its threads.
struct Stage<'a> {
    config: &'a DecoderConfig,
    step: &'a Step,
    cache: Cache<'a>,
    layout: super::key_values::Layout,
    hidden: Shared<'a>,
    normal: Shared<'a>,
    projected: Shared<'a>,
    attended: Shared<'a>,
    gate: Shared<'a>,
    up: Shared<'a>,
    logits: Shared<'a>,
    cosines: &'a [f32],
    sines: &'a [f32],
}

/// Phases of a layer, and of what follows the last.
const LAYER_PHASES: usize = 8;
const LAST_PHASES: usize = 3;

impl Decoder {
    /// With room for steps of so many rows.
    pub(crate) fn new(config: DecoderConfig, weights: DecoderWeights, most_rows: usize) -> Self {
        let turns = config.turns();
        Self { config, weights, turns, most_rows, room: Room::default() }
    }

    /// Bytes of the activations of a step with so many rows, so many of them wanted.
    pub(crate) fn room_bytes(config: &DecoderConfig, rows: usize, wanted: usize) -> u64 {
        let projected = config.queries() + 2 * config.keys();
        let row = 2 * config.hidden + projected + config.queries() + 2 * config.intermediate + config.head_size;
        let logits = wanted.saturating_mul(config.vocabulary);
        (rows.saturating_mul(row).saturating_add(logits) as u64).saturating_mul(4)
    }

    /// Computes a step: writes its rows' keys and values into the cache, and the logits of the wanted rows.
    pub(crate) fn forward(&mut self, step: &Step, cache: &mut KeyValues) {
        let (config, rows) = (&self.config, step.rows.len());
        debug_assert!(rows <= self.most_rows, "a step has at most the rows that it was made for");
        let projected = config.queries() + 2 * config.keys();
        let room = &mut self.room;
        room.turn(step, &self.turns);
        for (values, width) in [
            (&mut room.hidden, config.hidden),
            (&mut room.normal, config.hidden),
            (&mut room.projected, projected),
            (&mut room.attended, config.queries()),
            (&mut room.gate, config.intermediate),
            (&mut room.up, config.intermediate),
        ] {
            values.resize(rows * width, 0.0);
        }
        room.logits.resize(step.wanted.len() * config.vocabulary, 0.0);
        let layout = cache.layout();
        let stage = Stage {
            config,
            step,
            cache: cache.share(),
            layout,
            hidden: Shared::new(&mut room.hidden),
            normal: Shared::new(&mut room.normal),
            projected: Shared::new(&mut room.projected),
            attended: Shared::new(&mut room.attended),
            gate: Shared::new(&mut room.gate),
            up: Shared::new(&mut room.up),
            logits: Shared::new(&mut room.logits),
            cosines: &room.cosines,
            sines: &room.sines,
        };
        let weights = &self.weights;
        together(weights.layers.len() * LAYER_PHASES + LAST_PHASES, |member| stage.run(member, weights));
    }

    /// The logits of the last step's wanted rows, one after the other.
    pub(crate) fn logits(&self) -> &[f32] {
        &self.room.logits
    }
}

/// The outputs of a product: whole vectors, and none works long while others wait. Of one row the weight comes from memory,
/// which larger pieces have fetched ahead.
fn outputs(rows: usize) -> Pieces {
    Pieces { unit: if rows == 1 { 64 } else { 16 }, most: 512 }
}

impl Room {
    /// Cosines and sines of each row's position.
    fn turn(&mut self, step: &Step, turns: &[f64]) {
        self.cosines.clear();
        self.sines.clear();
        for row in &step.rows {
            for turn in turns {
                let angle = row.position as f64 * turn;
                self.cosines.push(libm::cos(angle) as f32);
                self.sines.push(libm::sin(angle) as f32);
            }
        }
    }
}

// SAFETY of the blocks below: the phases of a step are the same on all threads, and end together. In each of them a value
// is written by the one thread that has taken its piece, and none that another reads.
impl Stage<'_> {
    fn run(&self, member: &mut Member<'_>, weights: &DecoderWeights) {
        let mut scratch = Scratch::default();
        let (rows, hidden) = (self.step.rows.len(), self.config.hidden);
        member.share(rows, Pieces::even(4), |taken| {
            for row in taken {
                let to = unsafe { self.hidden.write(row * hidden, hidden) };
                let token = self.step.rows[row].token as usize;
                dispatch(Unpack { matrix: &weights.embedding, row: token, to });
            }
        });
        for (index, layer) in weights.layers.iter().enumerate() {
            self.attention(member, layer, index, &mut scratch);
            self.gated(member, layer, &mut scratch);
        }
        let wanted = &self.step.wanted;
        member.share(wanted.len(), Pieces::even(1), |taken| {
            for index in taken {
                self.normalise(wanted[index], index, &weights.output_norm);
            }
        });
        let vocabulary = weights.output.outputs;
        scratch.rounded.clear();
        member.share(vocabulary, outputs(wanted.len()), |outputs| {
            let x = unsafe { self.normal.read(0, wanted.len() * hidden) };
            let to = Destination { out: self.logits, column: 0, stride: vocabulary, write: Write::Set(None) };
            self.product(&weights.output, x, outputs, to, &mut scratch);
        });
    }

    /// A row of `hidden` becomes a row of `normal`.
    fn normalise(&self, from: usize, to: usize, weight: &[f32]) {
        let hidden = self.config.hidden;
        let (from, to) = unsafe { (self.hidden.read(from * hidden, hidden), self.normal.write(to * hidden, hidden)) };
        dispatch(Normalise { from, to, weight, epsilon: self.config.epsilon });
    }

    /// Some outputs of the rows `x` times a weight.
    fn product(
        &self,
        matrix: &Matrix,
        x: &[f32],
        outputs: Range<usize>,
        to: Destination<'_>,
        Scratch { unpacked, whole, rounded, .. }: &mut Scratch,
    ) {
        if !matrix.is_whole() {
            return dispatch(Product { matrix, x, outputs, to, scratch: unpacked });
        }
        if rounded.is_empty() {
            dispatch(Round { from: x, to: rounded });
        }
        WholeProduct { matrix, x: rounded, outputs, to, unpacked: whole }.compute();
    }

    fn attention(&self, member: &mut Member<'_>, layer: &Layer, index: usize, scratch: &mut Scratch) {
        let (config, rows) = (self.config, self.step.rows.len());
        let (hidden, queries, keys) = (config.hidden, config.queries(), config.keys());
        let projected = queries + 2 * keys;
        member.share(rows, Pieces::even(4), |taken| {
            taken.for_each(|row| self.normalise(row, row, &layer.attention_norm))
        });
        let parts = [(&layer.query, 0), (&layer.key, queries), (&layer.value, queries + keys)];
        scratch.rounded.clear();
        member.share(projected, outputs(rows), |outputs| {
            let x = unsafe { self.normal.read(0, rows * hidden) };
            for (part, (matrix, column)) in parts.iter().enumerate() {
                let own = outputs.start.max(*column)..outputs.end.min(column + matrix.outputs);
                if !own.is_empty() {
                    let bias = layer.biases.as_ref().map(|biases| biases[part].as_slice());
                    let own = own.start - column..own.end - column;
                    let (out, write) = (self.projected, Write::Set(bias));
                    let to = Destination { out, column: *column, stride: projected, write };
                    self.product(matrix, x, own, to, scratch);
                }
            }
        });
        member.share(rows, Pieces::even(1), |taken| {
            taken.for_each(|row| self.place(row, layer, index, &mut scratch.halves))
        });
        let heads = config.key_value_heads;
        let pieces = Pieces::even(if rows == 1 { 1 } else { heads });
        member.share(rows * heads, pieces, |taken| {
            for task in taken {
                let (task, scores) = ((task / heads, task % heads), &mut scratch.scores);
                match self.cache {
                    Cache::F32(cache) => self.attend(cache, task, index, scores),
                    Cache::F16(cache) => self.attend(cache, task, index, scores),
                }
            }
        });
        scratch.rounded.clear();
        member.share(hidden, outputs(rows), |outputs| {
            let x = unsafe { self.attended.read(0, rows * queries) };
            let to = Destination { out: self.hidden, column: 0, stride: hidden, write: Write::Add };
            self.product(&layer.attention_output, x, outputs, to, scratch);
        });
    }

    /// Turns a row's queries and keys to its position, and brings its keys and values into the cache.
    fn place(&self, row: usize, layer: &Layer, index: usize, halves: &mut Vec<Half>) {
        let config = self.config;
        let (size, pairs) = (config.head_size, config.head_size / 2);
        let width = config.queries() + 2 * config.keys();
        let rope = Rope {
            style: config.rope.style,
            cosines: &self.cosines[row * pairs..][..pairs],
            sines: &self.sines[row * pairs..][..pairs],
        };
        let projected = unsafe { self.projected.write(row * width, width) };
        let turned = &mut projected[..config.queries() + config.keys()];
        for (head, vector) in turned.chunks_exact_mut(size).enumerate() {
            if let Some([query, key]) = &layer.head_norms {
                let weight = if head < config.heads { query } else { key };
                let from = vector.to_vec();
                dispatch(Normalise { from: &from, to: vector, weight, epsilon: config.epsilon });
            }
            rope.turn(vector);
        }
        let own = &projected[config.queries()..];
        match self.cache {
            Cache::F32(cache) => self.put(cache, row, index, own),
            Cache::F16(cache) => {
                to_halves(own, halves);
                self.put(cache, row, index, halves);
            }
        }
    }

    /// A row's keys and values, to their places.
    fn put<E: Stored>(&self, cache: Shared<'_, E>, row: usize, index: usize, own: &[E]) {
        let size = self.config.head_size;
        let Row { position, sequence, .. } = self.step.rows[row];
        let (block, slot) = (self.step.blocks[sequence][position / BLOCK_TOKENS], position % BLOCK_TOKENS);
        let (keys, values) = own.split_at(self.config.keys());
        for (head, (key, value)) in keys.chunks_exact(size).zip(values.chunks_exact(size)).enumerate() {
            let (at, length) = self.layout.head(block, index, head);
            let (to_keys, to_values) = unsafe { cache.write(at, length) }.split_at_mut(size * BLOCK_TOKENS);
            for (key, to) in key.iter().zip(to_keys.chunks_exact_mut(BLOCK_TOKENS)) {
                to[slot] = *key;
            }
            to_values[slot * size..][..size].copy_from_slice(value);
        }
    }

    /// The queries of a row that share one key-value head.
    fn attend<E: Stored>(
        &self,
        cache: Shared<'_, E>,
        (row, head): (usize, usize),
        index: usize,
        scores: &mut Vec<f32>,
    ) {
        let config = self.config;
        let width = config.queries() + 2 * config.keys();
        let group = config.queries() / config.key_value_heads;
        let Row { position, sequence, .. } = self.step.rows[row];
        let blocks = &self.step.blocks[sequence];
        let queries = unsafe { self.projected.read(row * width + head * group, group) };
        let out = unsafe { self.attended.write(row * config.queries() + head * group, group) };
        dispatch(Attention {
            queries,
            head_size: config.head_size,
            block: |block: usize| {
                let (at, length) = self.layout.head(blocks[block], index, head);
                unsafe { cache.read(at, length) }
            },
            first: config.window.map_or(0, |window| (position + 1).saturating_sub(window)),
            last: position,
            scores,
            out,
        });
    }

    fn gated(&self, member: &mut Member<'_>, layer: &Layer, scratch: &mut Scratch) {
        let (config, rows) = (self.config, self.step.rows.len());
        let (hidden, inner) = (config.hidden, config.intermediate);
        member.share(rows, Pieces::even(4), |taken| taken.for_each(|row| self.normalise(row, row, &layer.gate_norm)));
        // Whole vectors, so that the same thread can join what it has computed.
        scratch.rounded.clear();
        member.share(inner, outputs(rows), |outputs| {
            let x = unsafe { self.normal.read(0, rows * hidden) };
            for (matrix, out) in [(&layer.gate, self.gate), (&layer.up, self.up)] {
                let to = Destination { out, column: 0, stride: inner, write: Write::Set(None) };
                self.product(matrix, x, outputs.clone(), to, scratch);
            }
            for row in 0..rows {
                let at = row * inner + outputs.start;
                let (gate, up) = unsafe { (self.gate.write(at, outputs.len()), self.up.read(at, outputs.len())) };
                dispatch(Gate { gate, up });
            }
        });
        scratch.rounded.clear();
        member.share(hidden, outputs(rows), |outputs| {
            let x = unsafe { self.gate.read(0, rows * inner) };
            let to = Destination { out: self.hidden, column: 0, stride: hidden, write: Write::Add };
            self.product(&layer.down, x, outputs, to, scratch);
        });
    }
}
