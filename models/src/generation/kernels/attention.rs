//! Attention of one query position over the blocks that hold its sequence's keys and values.
//!
//! A block holds sixteen tokens of one layer and one key-value head: the keys transposed, `[head size, 16]`, so that the
//! scores of a block are the lanes of one vector, then the values, `[16, head size]`. Scores and their exponentials are
//! those of the position alone; sums run from the first position to the last.

use super::{
    lanes::{Kernel, LANES, Lanes},
    math::exp,
    matrix::LINE_BYTES,
    stored::Stored,
};

/// Tokens of a block: as many as there are lanes.
pub(crate) const BLOCK_TOKENS: usize = LANES;
/// Query heads that are computed together.
const MOST_HEADS: usize = 4;

/// Sums that stay in registers.
const fn sums<L: Lanes>() -> usize {
    L::TILE_ROWS * L::TILE_COLUMNS
}

/// The call for a count of heads that is known only now.
macro_rules! for_heads {
    ($count:expr, $name:ident => $call:expr) => {
        match $count {
            1 => {
                const $name: usize = 1;
                $call
            }
            2 => {
                const $name: usize = 2;
                $call
            }
            3 => {
                const $name: usize = 3;
                $call
            }
            _ => {
                const $name: usize = MOST_HEADS;
                $call
            }
        }
    };
}

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

impl<'b, E: Stored, C: Fn(usize) -> &'b [E]> Kernel for Attention<'_, C> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Self { queries, head_size, block, first, last, scores, out } = self;
        let (first_block, blocks) = (first / BLOCK_TOKENS, last / BLOCK_TOKENS + 1);
        let width = (blocks - first_block) * BLOCK_TOKENS;
        let heads = queries.len() / head_size;
        scores.resize(heads * width, 0.0);
        let mut head = 0;
        while head < heads {
            let group = (heads - head).min(MOST_HEADS);
            let scorer =
                Scorer { queries: &queries[head * head_size..], block: &block, head_size, first_block, blocks };
            let scores = &mut scores[head * width..][..group * width];
            for_heads!(group, H => scorer.score::<L, H>(lanes, scores));
            head += group;
        }
        let scale = 1.0 / (head_size as f32).sqrt();
        let mut shares = [0.0; MOST_HEADS];
        for (scores, out) in scores.chunks_mut(MOST_HEADS * width).zip(out.chunks_mut(MOST_HEADS * head_size)) {
            for (scores, share) in scores.chunks_exact_mut(width).zip(&mut shares) {
                scores[..first % BLOCK_TOKENS].fill(f32::NEG_INFINITY);
                scores[last + 1 - first_block * BLOCK_TOKENS..].fill(f32::NEG_INFINITY);
                *share = 1.0 / soften(lanes, scores, scale);
            }
            let values = Values { block: &block, head_size, first, last, scores, width, shares: &shares };
            for_heads!(out.len() / head_size, H => values.weigh_all::<L, H>(lanes, out));
        }
    }
}

/// The query heads that share a key-value head, a few of them.
struct Scorer<'a, C> {
    /// Head after head.
    queries: &'a [f32],
    block: &'a C,
    head_size: usize,
    /// The first block that is looked at, and the one after the last.
    first_block: usize,
    blocks: usize,
}

impl<'b, E: Stored, C: Fn(usize) -> &'b [E]> Scorer<'_, C> {
    /// Each head's scores, not yet scaled; of two blocks at a time, so that no sum waits for the one before.
    #[inline(always)]
    fn score<L: Lanes, const H: usize>(&self, lanes: L, scores: &mut [f32]) {
        let mut index = self.first_block;
        while index < self.blocks {
            if index + 2 <= self.blocks && 2 * H <= sums::<L>() {
                self.score_blocks::<L, H, 2>(lanes, index, scores);
                index += 2;
            } else {
                self.score_blocks::<L, H, 1>(lanes, index, scores);
                index += 1;
            }
        }
    }

    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "with iterators the sums leave their registers")]
    fn score_blocks<L: Lanes, const H: usize, const B: usize>(&self, lanes: L, index: usize, scores: &mut [f32]) {
        let head_size = self.head_size;
        assert!(self.queries.len() >= H * head_size, "the heads lie inside the slice");
        let mut keys: [&[[E; LANES]]; B] = [&[]; B];
        for (next, keys) in keys.iter_mut().enumerate() {
            *keys = &(self.block)(index + next).as_chunks::<LANES>().0[..head_size];
        }
        // The keys of the next block, where there is one.
        let ahead = (self.block)((index + B).min(self.blocks - 1)).as_ptr();
        let mut sums = [[lanes.splat(0.0); B]; H];
        for at in 0..head_size {
            if (at * LANES * size_of::<E>()).is_multiple_of(LINE_BYTES) {
                lanes.prefetch(ahead.wrapping_add(at * LANES).cast());
            }
            let mut key = [lanes.splat(0.0); B];
            for next in 0..B {
                key[next] = E::lanes(lanes, &keys[next][at]);
            }
            for head in 0..H {
                // SAFETY: at < head_size and head < H, which the assertion covers.
                let query = lanes.splat(unsafe { *self.queries.get_unchecked(head * head_size + at) });
                for next in 0..B {
                    sums[head][next] = lanes.fma(query, key[next], sums[head][next]);
                }
            }
        }
        let width = (self.blocks - self.first_block) * BLOCK_TOKENS;
        for head in 0..H {
            for next in 0..B {
                let at = head * width + (index + next - self.first_block) * BLOCK_TOKENS;
                if let Some(to) = scores[at..].first_chunk_mut() {
                    lanes.store(sums[head][next], to);
                }
            }
        }
    }
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

/// The values of all positions, and what a few heads make of them.
struct Values<'a, C> {
    block: &'a C,
    head_size: usize,
    first: usize,
    last: usize,
    /// Each head's, beginning with those of the first position's block.
    scores: &'a [f32],
    /// Scores of a head.
    width: usize,
    shares: &'a [f32; MOST_HEADS],
}

impl<'b, E: Stored, C: Fn(usize) -> &'b [E]> Values<'_, C> {
    /// Of `H` heads, as many vectors at once as their sums stay in registers.
    #[inline(always)]
    fn weigh_all<L: Lanes, const H: usize>(&self, lanes: L, out: &mut [f32]) {
        let (most, mut vector) = (sums::<L>() / H, 0);
        while vector < self.head_size / LANES {
            let left = (self.head_size / LANES - vector).min(most);
            vector += match left {
                4.. => self.weigh::<L, H, 4>(lanes, vector, out),
                2 | 3 => self.weigh::<L, H, 2>(lanes, vector, out),
                _ => self.weigh::<L, H, 1>(lanes, vector, out),
            };
        }
    }

    /// The sums of `N` vectors, position after position, each weighted by its score, times the head's share; `N`.
    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "with iterators the sums leave their registers")]
    fn weigh<L: Lanes, const H: usize, const N: usize>(&self, lanes: L, vector: usize, out: &mut [f32]) -> usize {
        let (mut sums, first_block) = ([[lanes.splat(0.0); N]; H], self.first / BLOCK_TOKENS);
        for index in first_block..=self.last / BLOCK_TOKENS {
            let values = &(self.block)(index)[self.head_size * BLOCK_TOKENS..];
            let start = self.first.saturating_sub(index * BLOCK_TOKENS);
            let end = (self.last + 1 - index * BLOCK_TOKENS).min(BLOCK_TOKENS);
            let at = (index - first_block) * BLOCK_TOKENS;
            assert!(self.scores.len() >= (H - 1) * self.width + at + end, "the heads lie inside their scores");
            // The values of the next block, where there is one.
            let ahead = &(self.block)((index + 1).min(self.last / BLOCK_TOKENS))[self.head_size * BLOCK_TOKENS..];
            for position in start..end {
                for next in 0..N {
                    let offset = position * self.head_size + (vector + next) * LANES;
                    if (offset * size_of::<E>()).is_multiple_of(LINE_BYTES) {
                        lanes.prefetch(ahead.as_ptr().wrapping_add(offset).cast());
                    }
                }
                let (values, _) = values[position * self.head_size + vector * LANES..].as_chunks::<LANES>();
                let values: &[[E; LANES]] = &values[..N];
                let mut loaded = [lanes.splat(0.0); N];
                for next in 0..N {
                    loaded[next] = E::lanes(lanes, &values[next]);
                }
                for head in 0..H {
                    // SAFETY: position < end and head < H, which the assertion covers.
                    let score = unsafe { *self.scores.get_unchecked(head * self.width + at + position) };
                    let weight = lanes.splat(score);
                    for next in 0..N {
                        sums[head][next] = lanes.fma(weight, loaded[next], sums[head][next]);
                    }
                }
            }
        }
        for head in 0..H {
            let (outs, _) = out[head * self.head_size + vector * LANES..].as_chunks_mut::<LANES>();
            for next in 0..N {
                lanes.store(lanes.mul(sums[head][next], lanes.splat(self.shares[head])), &mut outs[next]);
            }
        }
        N
    }
}
