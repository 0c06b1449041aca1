//! Keys and values that are kept, and the attention of new tokens over them.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{
    attention::softmax,
    output::Output,
    panels::{MOST_ROWS, MOST_WIDTH, MachineWidth, Panels, Tile, even_pieces, multiply, tile_rows, width},
};

/// The keys and values of one layer over one sequence, packed by heads.
pub(crate) struct Cache {
    heads: Vec<Head>,
    /// Columns of one head.
    size: usize,
    capacity: usize,
    length: usize,
}

struct Head {
    /// `[size, capacity]`
    keys: Panels,
    /// `[capacity, size]`
    values: Panels,
}

impl Cache {
    /// Makes room for `capacity` tokens; `size` is the columns of one head.
    pub(crate) fn new(heads: usize, size: usize, capacity: usize) -> Self {
        let width = Arch::new().dispatch(MachineWidth);
        let head = || {
            let mut head = Head { keys: Panels::default(), values: Panels::default() };
            head.keys.reshape(size, capacity, width);
            head.values.reshape(capacity, size, width);
            head
        };
        Self { heads: (0..heads).map(|_| head()).collect(), size, capacity, length: 0 }
    }

    /// Tokens whose keys and values are here.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Forgets all tokens, keeping the memory.
    pub(crate) fn clear(&mut self) {
        self.length = 0;
    }

    /// Appends tokens: `keys` and `values` begin with the first token's, `stride` lies between a token and the next.
    pub(crate) fn append(&mut self, keys: &[f32], values: &[f32], stride: usize, tokens: usize) {
        assert!(self.length + tokens <= self.capacity, "a cache takes as many tokens as it was made for");
        let (size, first) = (self.size, self.length);
        self.heads.par_iter_mut().enumerate().for_each(|(index, head)| {
            for token in 0..tokens {
                let at = token * stride + index * size;
                head.keys.set_column(first + token, &keys[at..][..size]);
                head.values.set_row(first + token, &values[at..][..size]);
            }
        });
        self.length += tokens;
    }
}

/// Tokens that follow one another and read one cache.
#[derive(Clone, Copy)]
pub(crate) struct Reading<'a> {
    pub(crate) cache: &'a Cache,
    pub(crate) tokens: usize,
    /// Whether they are the cache's last ones, and each sees only those up to itself.
    pub(crate) causal: bool,
}

/// Attention of the readings' tokens, one reading after the other: `queries` (scaled) lie `stride` apart, `out` is
/// `[tokens, hidden]`. A token's result does not depend on which others are computed with it.
pub(crate) fn attend_cached(queries: &[f32], stride: usize, readings: &[Reading<'_>], out: &mut [f32]) {
    let firsts = readings.iter().scan(0, |next, reading| Some(std::mem::replace(next, *next + reading.tokens)));
    let tasks: Vec<(usize, Reading<'_>, usize)> = firsts
        .zip(readings)
        .flat_map(|(first, reading)| (0..reading.cache.heads.len()).map(move |head| (first, *reading, head)))
        .collect();
    let (output, arch) = (Output::new(out), Arch::new());
    tasks.into_par_iter().for_each_init(Vec::new, |scores, (first, reading, head)| {
        arch.dispatch(HeadTask { queries, stride, first, reading, head, output, scores });
    });
}

/// One head of one reading.
struct HeadTask<'a> {
    queries: &'a [f32],
    stride: usize,
    /// The reading's first token in queries and output.
    first: usize,
    reading: Reading<'a>,
    head: usize,
    output: Output,
    scores: &'a mut Vec<f32>,
}

impl WithSimd for HeadTask<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { queries, stride, first, reading: Reading { cache, tokens, causal }, head, output, scores } = self;
        let Cache { heads, size, length, .. } = cache;
        let (hidden, column, Head { keys, values }) = (heads.len() * size, head * size, &heads[head]);
        let mut tile: Tile = [0.0; MOST_ROWS * MOST_WIDTH];
        for (offset, rows) in even_pieces(tokens, tile_rows::<S>()) {
            let visible = |row: usize| if causal { length - tokens + offset + row + 1 } else { *length };
            let most = visible(rows - 1);
            let padded = most.next_multiple_of(width::<S>());
            scores.resize(rows * padded, 0.0);
            let left = &queries[(first + offset) * stride + column..];
            for index in 0..padded / width::<S>() {
                multiply(simd, left, stride, rows, keys.panel(index).0, &mut tile);
                for (row, tile) in tile.chunks_exact(MOST_WIDTH).take(rows).enumerate() {
                    scores[row * padded + index * width::<S>()..][..width::<S>()]
                        .copy_from_slice(&tile[..width::<S>()]);
                }
            }
            for (row, scores) in scores.chunks_exact_mut(padded).take(rows).enumerate() {
                scores[visible(row)..].fill(f32::MIN);
                softmax(simd, scores);
                // Nothing at all, so that it is the same whichever rows share the tile.
                scores[visible(row)..].fill(0.0);
            }
            for index in 0..values.count() {
                let (panel, columns) = values.panel(index);
                multiply(simd, scores, padded, rows, &panel[..most * width::<S>()], &mut tile);
                for (row, tile) in tile.chunks_exact(MOST_WIDTH).take(rows).enumerate() {
                    let at = (first + offset + row) * hidden + column + columns.start;
                    // SAFETY: `attend_cached` holds the slice; each task has its reading's rows and a head's columns.
                    let out = unsafe { output.piece(at, columns.len()) };
                    out.copy_from_slice(&tile[..columns.len()]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    const HEADS: usize = 2;
    const SIZE: usize = 20;
    const HIDDEN: usize = HEADS * SIZE;

    /// Plain attention of one query over so many tokens.
    fn plain(query: &[f32], keys: &[f32], values: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; HIDDEN];
        for head in (0..HIDDEN).step_by(SIZE) {
            let dot = |key: &[f32]| (head..head + SIZE).map(|c| query[c] * key[c]).sum::<f32>().exp();
            let weights: Vec<f32> = keys.chunks_exact(HIDDEN).map(dot).collect();
            let sum: f32 = weights.iter().sum();
            for (weight, value) in weights.iter().zip(values.chunks_exact(HIDDEN)) {
                (head..head + SIZE).for_each(|c| out[c] += weight / sum * value[c]);
            }
        }
        out
    }

    #[test]
    fn each_token_sees_what_it_may_however_it_is_batched() {
        let mut random = StdRng::seed_from_u64(2);
        let mut floats = |n: usize| (0..n).map(|_| random.random::<f32>() - 0.5).collect::<Vec<f32>>();
        let tokens = 75;
        let all = floats(tokens * 3 * HIDDEN);
        let part = |at: usize| -> Vec<f32> {
            all.chunks_exact(3 * HIDDEN).flat_map(|row| row[at * HIDDEN..][..HIDDEN].to_vec()).collect()
        };
        let (queries, keys, values) = (part(0), part(1), part(2));
        let attend = |pieces: &[usize]| {
            let mut cache = Cache::new(HEADS, SIZE, tokens);
            let (mut at, mut out) = (0, vec![f32::NAN; tokens * HIDDEN]);
            for &piece in pieces {
                let rows = &all[at * 3 * HIDDEN..];
                cache.append(&rows[HIDDEN..], &rows[2 * HIDDEN..], 3 * HIDDEN, piece);
                let reading = Reading { cache: &cache, tokens: piece, causal: true };
                attend_cached(rows, 3 * HIDDEN, &[reading], &mut out[at * HIDDEN..][..piece * HIDDEN]);
                at += piece;
            }
            (cache, out)
        };
        let (cache, whole) = attend(&[tokens]);
        for (token, got) in whole.chunks_exact(HIDDEN).enumerate() {
            let seen = (token + 1) * HIDDEN;
            let want = plain(&queries[token * HIDDEN..], &keys[..seen], &values[..seen]);
            let most = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(most < 1e-6, "token {token} differs by {most}");
        }
        assert_eq!(attend(&[1; 75]).1, whole);
        assert_eq!(attend(&[33, 1, 40, 1]).1, whole);

        let three = [3, 5].map(|tokens| Reading { cache: &cache, tokens, causal: false });
        let mut out = vec![f32::NAN; 8 * HIDDEN];
        attend_cached(&queries, HIDDEN, &three, &mut out);
        for (token, got) in out.chunks_exact(HIDDEN).enumerate() {
            let want = plain(&queries[token * HIDDEN..], &keys, &values);
            assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-6), "token {token} over all");
        }
    }
}
