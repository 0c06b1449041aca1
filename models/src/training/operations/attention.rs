//! Attention of texts that lie one after the other, without padding between them.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::{
    product::{Matrix, multiply},
    slice, values,
};

/// Of queries `[tokens, heads · width]`, and of keys and values `[tokens, key heads · width]`.
pub(in crate::training) struct Attention {
    /// Tokens of each text, which see no other text.
    pub(in crate::training) lengths: Vec<usize>,
    pub(in crate::training) heads: usize,
    /// Each is looked at by as many heads.
    pub(in crate::training) key_heads: usize,
    /// A token sees those before it, and itself.
    pub(in crate::training) causal: bool,
}

/// Scratch of one text: its columns of one head, and the weights of each pair of tokens.
struct Head {
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    weights: Vec<f32>,
}

/// Where the columns of a head lie in rows of a text.
#[derive(Clone, Copy)]
struct Columns {
    tokens: usize,
    row: usize,
    from: usize,
    width: usize,
}

impl Columns {
    fn take(&self, rows: &[f32]) -> Vec<f32> {
        rows.chunks_exact(self.row).flat_map(|row| &row[self.from..][..self.width]).copied().collect()
    }

    /// Adds them to what is there.
    fn put(&self, columns: &[f32], rows: &mut [f32]) {
        for (row, columns) in rows.chunks_exact_mut(self.row).zip(columns.chunks_exact(self.width)) {
            row[self.from..][..self.width].iter_mut().zip(columns).for_each(|(sum, value)| *sum += value);
        }
    }

    fn matrix<'a>(&self, columns: &'a [f32]) -> Matrix<'a> {
        Matrix::new(columns, self.tokens, self.width)
    }

    fn scale(&self) -> f32 {
        (self.width as f32).sqrt().recip()
    }
}

/// Shares of what stands there, times `scale`.
fn softmax(row: &mut [f32], scale: f32) {
    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    row.iter_mut().for_each(|value| *value = ((*value - most) * scale).exp());
    let all: f32 = row.iter().sum();
    row.iter_mut().for_each(|value| *value /= all);
}

impl Attention {
    /// Of each head, where its queries lie, and its keys.
    fn columns(&self, tokens: usize, width: usize) -> impl Iterator<Item = [Columns; 2]> {
        let (heads, key_heads) = (self.heads, self.key_heads);
        (0..heads).map(move |head| {
            let of = |head: usize, heads: usize| Columns { tokens, row: heads * width, from: head * width, width };
            [of(head, heads), of(head / (heads / key_heads), key_heads)]
        })
    }

    fn head(&self, [of_query, of_key]: [Columns; 2], [query, key, value]: [&[f32]; 3]) -> Head {
        let (query, key, value) = (of_query.take(query), of_key.take(key), of_key.take(value));
        let mut weights = vec![0.0; of_query.tokens * of_query.tokens];
        multiply(of_query.matrix(&query), of_key.matrix(&key).across(), &mut weights, false);
        for (at, row) in weights.chunks_exact_mut(of_query.tokens).enumerate() {
            let (seen, unseen) = row.split_at_mut(if self.causal { at + 1 } else { of_query.tokens });
            softmax(seen, of_query.scale());
            unseen.fill(0.0);
        }
        Head { query, key, value, weights }
    }

    /// The rows of each text.
    fn texts<'a>(&self, mut rows: &'a [f32], row: usize) -> Vec<&'a [f32]> {
        let mut take = |tokens: &usize| {
            let (own, rest) = rows.split_at(tokens * row);
            rows = rest;
            own
        };
        self.lengths.iter().map(&mut take).collect()
    }

    fn texts_mut<'a>(&self, rows: &'a mut [f32], row: usize) -> Vec<&'a mut [f32]> {
        let mut left = rows;
        let mut all = Vec::with_capacity(self.lengths.len());
        for tokens in &self.lengths {
            let (own, rest) = left.split_at_mut(tokens * row);
            left = rest;
            all.push(own);
        }
        all
    }

    /// Tokens, values of a row of queries, and of one of keys.
    fn check(&self, dims: [&[usize]; 3]) -> Result<[usize; 3]> {
        let (total, heads, key_heads) = (self.lengths.iter().sum::<usize>(), self.heads, self.key_heads);
        if let [&[tokens, queries], &[_, keys], _] = dims
            && heads.is_multiple_of(key_heads)
            && queries.is_multiple_of(heads)
            && (tokens, keys) == (total, queries / heads * key_heads)
            && [dims[1], dims[2]] == [&[tokens, keys]; 2]
        {
            return Ok([tokens, queries, keys]);
        }
        bail!("{heads} heads over {key_heads} of {total} tokens do not fit {dims:?}")
    }
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        query: &CpuStorage,
        query_at: &Layout,
        key: &CpuStorage,
        key_at: &Layout,
        value: &CpuStorage,
        value_at: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let [tokens, queries, keys] = self.check([query_at.dims(), key_at.dims(), value_at.dims()])?;
        let query = self.texts(slice(query, query_at)?, queries);
        let [key, value] = [slice(key, key_at)?, slice(value, value_at)?].map(|rows| self.texts(rows, keys));
        let mut out = vec![0.0; tokens * queries];
        let texts = self.texts_mut(&mut out, queries).into_par_iter().zip(query).zip(key).zip(value);
        texts.for_each(|(((out, query), key), value)| {
            for [of_query, of_key] in self.columns(out.len() / queries, queries / self.heads) {
                let head = self.head([of_query, of_key], [query, key, value]);
                let weights = Matrix::new(&head.weights, of_query.tokens, of_query.tokens);
                let mut seen = vec![0.0; of_query.tokens * of_query.width];
                multiply(weights, of_key.matrix(&head.value), &mut seen, false);
                of_query.put(&seen, out);
            }
        });
        Ok((CpuStorage::F32(out), Shape::from((tokens, queries))))
    }

    fn bwd(
        &self,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        _out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [tokens, queries, keys] = self.check([query.dims(), key.dims(), value.dims()])?;
        let widths = [queries, keys, keys];
        let seen = [values(query)?, values(key)?, values(value)?];
        let [of_query, of_key, of_value] = [0, 1, 2].map(|at| self.texts(&seen[at], widths[at]));
        let grad = values(grad)?;
        let mut into = widths.map(|width| vec![0.0; tokens * width]);
        let [to_query, to_key, to_value] = &mut into;
        let to = self.texts_mut(to_query, queries).into_par_iter().zip(self.texts_mut(to_key, keys));
        let to = to.zip(self.texts_mut(to_value, keys));
        let from = of_query.into_par_iter().zip(of_key).zip(of_value).zip(self.texts(&grad, queries));
        from.zip(to).for_each(|((((query, key), value), grad), ((to_query, to_key), to_value))| {
            for [of_query, of_key] in self.columns(query.len() / queries, queries / self.heads) {
                let head = self.head([of_query, of_key], [query, key, value]);
                let [by_query, by_key, by_value] = head.gradients(of_query, &of_query.take(grad));
                of_query.put(&by_query, to_query);
                of_key.put(&by_key, to_key);
                of_key.put(&by_value, to_value);
            }
        });
        let [by_query, by_key, by_value] = into;
        let tensor = |rows: Vec<f32>, like: &Tensor| Tensor::from_vec(rows, like.shape(), like.device()).map(Some);
        Ok((tensor(by_query, query)?, tensor(by_key, key)?, tensor(by_value, value)?))
    }
}

impl Head {
    /// By query, key and value, of the gradient by what came out.
    fn gradients(&self, columns: Columns, grad: &[f32]) -> [Vec<f32>; 3] {
        let tokens = columns.tokens;
        let square = |values| Matrix::new(values, tokens, tokens);
        let mut by = [0; 3].map(|_| vec![0.0; tokens * columns.width]);
        let [by_query, by_key, by_value] = &mut by;
        multiply(square(&self.weights).across(), columns.matrix(grad), by_value, false);
        let mut scores = vec![0.0; tokens * tokens];
        multiply(columns.matrix(grad), columns.matrix(&self.value).across(), &mut scores, false);
        for (scores, weights) in scores.chunks_exact_mut(tokens).zip(self.weights.chunks_exact(tokens)) {
            let mean: f32 = scores.iter().zip(weights).map(|(score, weight)| score * weight).sum();
            let both = scores.iter_mut().zip(weights);
            both.for_each(|(score, weight)| *score = weight * (*score - mean) * columns.scale());
        }
        multiply(square(&scores), columns.matrix(&self.key), by_query, false);
        multiply(square(&scores).across(), columns.matrix(&self.query), by_key, false);
        by
    }
}
