//! Attention of one query position over the blocks that hold its sequence's keys and values.
//!
//! A block holds sixteen tokens of one layer and one key-value head: the keys transposed, `[head size, 16]`, so that the
//! scores of a block are the lanes of one vector, then the values, `[16, head size]`. Scores and their exponentials are
//! those of the position alone; sums run from the first position to the last.

use super::{
    lanes::{Kernel, LANES, Lanes},
    math::exp,
};

/// Tokens of a block: as many as there are lanes.
pub(crate) const BLOCK_TOKENS: usize = LANES;
/// Vectors of a value that are summed at once.
const VALUE_VECTORS: usize = 4;

/// The query heads that share a key-value head, at one position.
pub(crate) struct Attention<'a, C> {
    /// Head after head.
    pub(crate) queries: &'a [f32],
    pub(crate) head_size: usize,
    /// Keys and values of the block with this index in the sequence.
    pub(crate) block: C,
    /// The first position that is looked at, and the last: the query's own.
    pub(crate) first: usize,
    pub(crate) last: usize,
    /// Room for the scores, kept from one call to the next.
    pub(crate) scores: &'a mut Vec<f32>,
    /// Head after head.
    pub(crate) out: &'a mut [f32],
}

impl<'b, C: Fn(usize) -> &'b [f32]> Kernel for Attention<'_, C> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Self { queries, head_size, block, first, last, scores, out } = self;
        let (first_block, blocks) = (first / BLOCK_TOKENS, last / BLOCK_TOKENS + 1);
        let width = (blocks - first_block) * BLOCK_TOKENS;
        let heads = queries.len() / head_size;
        scores.resize(heads * width, 0.0);
        for index in first_block..blocks {
            let keys = &block(index)[..head_size * BLOCK_TOKENS];
            score_block(lanes, queries, keys, head_size, |head, values| {
                let at = head * width + (index - first_block) * BLOCK_TOKENS;
                if let Some(to) = scores[at..].first_chunk_mut() {
                    lanes.store(values, to);
                }
            });
        }
        let scale = 1.0 / (head_size as f32).sqrt();
        for (scores, out) in scores.chunks_exact_mut(width).zip(out.chunks_exact_mut(head_size)) {
            scores[..first % BLOCK_TOKENS].fill(f32::NEG_INFINITY);
            scores[last + 1 - first_block * BLOCK_TOKENS..].fill(f32::NEG_INFINITY);
            let sum = soften(lanes, scores, scale);
            let share = 1.0 / sum;
            let (outs, _) = out.as_chunks_mut::<LANES>();
            for (chunk, outs) in outs.chunks_mut(VALUE_VECTORS).enumerate() {
                let values = Values { block: &block, head_size, column: chunk * VALUE_VECTORS * LANES, first, last };
                match outs.len() {
                    4 => values.weigh::<L, 4>(lanes, scores, share, outs),
                    3 => values.weigh::<L, 3>(lanes, scores, share, outs),
                    2 => values.weigh::<L, 2>(lanes, scores, share, outs),
                    _ => values.weigh::<L, 1>(lanes, scores, share, outs),
                }
            }
        }
    }
}

/// Each head's scores of a block, not yet scaled.
#[inline(always)]
fn score_block<L: Lanes>(lanes: L, queries: &[f32], keys: &[f32], head_size: usize, mut sink: impl FnMut(usize, L::V)) {
    let heads = queries.len() / head_size;
    let mut head = 0;
    while head < heads {
        let rest = &queries[head * head_size..];
        head += match (heads - head).min(4) {
            1 => score_heads::<L, 1>(lanes, rest, keys, head_size, |next, values| sink(head + next, values)),
            2 => score_heads::<L, 2>(lanes, rest, keys, head_size, |next, values| sink(head + next, values)),
            3 => score_heads::<L, 3>(lanes, rest, keys, head_size, |next, values| sink(head + next, values)),
            _ => score_heads::<L, 4>(lanes, rest, keys, head_size, |next, values| sink(head + next, values)),
        };
    }
}

#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "with iterators the sums leave their registers")]
fn score_heads<L: Lanes, const H: usize>(
    lanes: L,
    queries: &[f32],
    keys: &[f32],
    head_size: usize,
    mut sink: impl FnMut(usize, L::V),
) -> usize {
    assert!(queries.len() >= H * head_size, "the heads lie inside the slice");
    let mut sums = [lanes.splat(0.0); H];
    let (keys, _) = keys.as_chunks::<LANES>();
    for (at, key) in keys.iter().enumerate().take(head_size) {
        let key = lanes.load(key);
        for head in 0..H {
            // SAFETY: at < head_size and head < H, which the assertion covers.
            let query = unsafe { *queries.get_unchecked(head * head_size + at) };
            sums[head] = lanes.fma(lanes.splat(query), key, sums[head]);
        }
    }
    for (head, sum) in sums.into_iter().enumerate() {
        sink(head, sum);
    }
    H
}

/// Turns scores into exp((score − greatest) · scale); their sum.
#[inline(always)]
fn soften<L: Lanes>(lanes: L, scores: &mut [f32], scale: f32) -> f32 {
    let (scores, _) = scores.as_chunks_mut::<LANES>();
    let mut greatest = [f32::NEG_INFINITY; LANES];
    let most = scores.iter().fold(lanes.load(&greatest), |most, scores| lanes.max(lanes.load(scores), most));
    lanes.store(most, &mut greatest);
    let greatest = lanes.splat(greatest.iter().fold(f32::NEG_INFINITY, |most, value| value.max(most)));
    let (scale, mut sum) = (lanes.splat(scale), lanes.splat(0.0));
    for scores in scores {
        let value = exp(lanes, lanes.mul(lanes.sub(lanes.load(scores), greatest), scale));
        lanes.store(value, scores);
        sum = lanes.add(sum, value);
    }
    lanes.sum(sum)
}

/// Some vectors of the values of all positions.
struct Values<'a, C> {
    block: &'a C,
    head_size: usize,
    /// The first value of the vectors.
    column: usize,
    first: usize,
    last: usize,
}

impl<'b, C: Fn(usize) -> &'b [f32]> Values<'_, C> {
    /// The sum of `N` vectors, position after position, each weighted by its score, times `share`. The scores begin with
    /// those of the first position's block.
    #[inline(always)]
    fn weigh<L: Lanes, const N: usize>(&self, lanes: L, scores: &[f32], share: f32, out: &mut [[f32; LANES]]) {
        let mut sums = [lanes.splat(0.0); N];
        let first_block = self.first / BLOCK_TOKENS;
        for index in first_block..=self.last / BLOCK_TOKENS {
            let values = &(self.block)(index)[self.head_size * BLOCK_TOKENS..];
            let scores = &scores[(index - first_block) * BLOCK_TOKENS..][..BLOCK_TOKENS];
            let start = self.first.saturating_sub(index * BLOCK_TOKENS);
            let end = (self.last + 1 - index * BLOCK_TOKENS).min(BLOCK_TOKENS);
            for (weight, values) in scores.iter().zip(values.chunks_exact(self.head_size)).take(end).skip(start) {
                let (weight, (vectors, _)) = (lanes.splat(*weight), values[self.column..].as_chunks::<LANES>());
                assert!(vectors.len() >= N, "the vectors lie inside the values");
                for at in 0..N {
                    sums[at] = lanes.fma(weight, lanes.load(&vectors[at]), sums[at]);
                }
            }
        }
        for (sum, out) in sums.into_iter().zip(out) {
            lanes.store(lanes.mul(sum, lanes.splat(share)), out);
        }
    }
}
