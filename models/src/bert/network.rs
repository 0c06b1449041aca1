//! An encoder with its head: rows of tokens to rows of numbers, in buckets of about the same length.

use orion_proto::{Code, Error, Result};
use rayon::prelude::*;

use super::{
    Source, buckets::buckets, cpu_encoder::CpuEncoder, head::Head, task::Task, tensor_encoder::TensorEncoder,
    text::Tokens,
};
use crate::{GivenUp, unservable};

/// The same computation twice: our own kernels on the CPU, candle's operations for sizes that they do not take.
pub(super) enum Encoder {
    Cpu(CpuEncoder),
    Tensor(TensorEncoder),
}

/// A loaded network.
pub(super) struct Network {
    encoder: Encoder,
    head: Option<Head>,
    /// Numbers that it gives for a row.
    width: usize,
    max_rows: usize,
}

impl Network {
    /// Brings the weights into memory. At most `max_rows` rows are computed together.
    pub(super) fn load(source: &Source, max_rows: usize, progress: &dyn Fn(f32)) -> Result<Self> {
        let unloadable = |error: candle_core::Error| {
            let folder = source.folder.display();
            unservable(format!("the weights in {folder} cannot be loaded: {}", error.to_string().to_lowercase()))
        };
        let encoder = match CpuEncoder::fits(&source.config) {
            true => Encoder::Cpu(CpuEncoder::load(source, progress).map_err(unloadable)?),
            false => Encoder::Tensor(TensorEncoder::load(source, progress).map_err(unloadable)?),
        };
        Self::on(encoder, source, max_rows)
    }

    /// The same on an encoder that is loaded.
    pub(super) fn on(encoder: Encoder, source: &Source, max_rows: usize) -> Result<Self> {
        let (head, width) = match &source.task {
            Task::Embedding => (None, source.config.hidden_size),
            task => (Some(Head::load(source)?), task.labels()),
        };
        Ok(Self { encoder, head, width, max_rows })
    }

    /// The numbers of each row; none of rows that are given up before their bucket is computed.
    pub(super) fn compute(&self, rows: &[&Tokens], given_up: &[&GivenUp]) -> Result<Vec<Vec<f32>>> {
        let lengths: Vec<usize> = rows.iter().map(|tokens| tokens.ids.len()).collect();
        let (threads, pads) = match &self.encoder {
            Encoder::Cpu(_) => (rayon::current_num_threads(), false),
            Encoder::Tensor(_) => (1, true),
        };
        let buckets = buckets(&lengths, self.max_rows, threads, pads);
        let compute = |bucket: &Vec<usize>| {
            if bucket.iter().all(|&row| given_up[row].is_set()) {
                return Ok(Vec::new());
            }
            let tokens: Vec<&Tokens> = bucket.iter().map(|&row| rows[row]).collect();
            self.bucket(&tokens)
        };
        let computed: candle_core::Result<Vec<Vec<f32>>> = match &self.encoder {
            Encoder::Cpu(_) => buckets.par_iter().map(compute).collect(),
            Encoder::Tensor(_) => buckets.iter().map(compute).collect(),
        };
        let computed = computed.map_err(|error| Error::new(Code::Internal, format!("the encoder failed: {error}")))?;
        let mut numbers = vec![Vec::new(); rows.len()];
        for (bucket, values) in buckets.iter().zip(&computed) {
            for (&row, own) in bucket.iter().zip(values.chunks_exact(self.width)) {
                numbers[row] = own.to_vec();
            }
        }
        Ok(numbers)
    }

    fn bucket(&self, rows: &[&Tokens]) -> candle_core::Result<Vec<f32>> {
        let pooled = match &self.encoder {
            Encoder::Cpu(encoder) => encoder.encode(rows),
            Encoder::Tensor(encoder) => encoder.encode(rows)?,
        };
        Ok(match &self.head {
            None => pooled,
            Some(head) => head.logits(rows.len(), &pooled),
        })
    }
}
