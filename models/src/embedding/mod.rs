//! The family `sentence-embedding`: a BERT encoder, the mean of its real tokens, unit length.

use bytes::{BufMut, BytesMut};
use orion_proto::{Code, Datatype, Error, InferAnswer, ModelSpec, Payload, Result, Tensor, encode_bytes_elements};
use rayon::prelude::*;

mod buckets;
mod config;
mod cpu_encoder;
mod source;
mod tensor_encoder;
#[cfg(test)]
mod tests;
mod text;

use buckets::buckets;
pub(crate) use config::BertConfig;
use cpu_encoder::CpuEncoder;
pub(crate) use source::Source;
use tensor_encoder::TensorEncoder;
use text::TextReader;

use crate::{GivenUp, Model, ModelRequest, Precision};

/// The family's name.
const FAMILY: &str = "sentence-embedding";
/// Tokens of a typical sentence: what a manifest's operations per row and a sample are made for.
pub(crate) const TYPICAL_TOKENS: usize = 32;

/// The same computation twice: our own kernels for f32 on the CPU, candle's operations for all the rest.
enum Encoder {
    Cpu(CpuEncoder),
    Tensor(TensorEncoder),
}

/// A loaded sentence-embedding model.
pub(crate) struct Embedder {
    spec: ModelSpec,
    text: TextReader,
    encoder: Encoder,
    hidden: usize,
}

impl Embedder {
    /// Brings tokenizer and weights into memory.
    pub(crate) fn load(spec: ModelSpec, source: &Source, progress: &dyn Fn(f32)) -> Result<Self> {
        let text = TextReader::load(source)?;
        let fast = source.precision == Precision::F32 && CpuEncoder::fits(&source.config);
        let encoder = if fast {
            Encoder::Cpu(CpuEncoder::load(source, progress).map_err(|e| unloadable(source, &e))?)
        } else {
            Encoder::Tensor(TensorEncoder::load(source, progress).map_err(|e| unloadable(source, &e))?)
        };
        Ok(Self { spec, text, encoder, hidden: source.config.hidden_size })
    }

    /// One embedding a row; none of rows that are given up before their bucket is computed.
    fn encode(&self, rows: &[&[u32]], given_up: &[&GivenUp]) -> Result<Vec<Vec<f32>>> {
        let lengths: Vec<usize> = rows.iter().map(|ids| ids.len()).collect();
        let (threads, pads) = match &self.encoder {
            Encoder::Cpu(_) => (rayon::current_num_threads(), false),
            Encoder::Tensor(_) => (1, true),
        };
        let buckets = buckets(&lengths, self.spec.max_batch_rows, threads, pads);
        let encode = |bucket: &Vec<usize>| {
            if bucket.iter().all(|&row| given_up[row].is_set()) {
                return Ok(Vec::new());
            }
            let ids: Vec<&[u32]> = bucket.iter().map(|&row| rows[row]).collect();
            match &self.encoder {
                Encoder::Cpu(encoder) => Ok(encoder.encode(&ids)),
                Encoder::Tensor(encoder) => encoder.encode(&ids),
            }
        };
        let computed: candle_core::Result<Vec<Vec<f32>>> = match &self.encoder {
            Encoder::Cpu(_) => buckets.par_iter().map(encode).collect(),
            Encoder::Tensor(_) => buckets.iter().map(encode).collect(),
        };
        let computed = computed.map_err(|error| Error::new(Code::Internal, format!("the encoder failed: {error}")))?;
        let mut embeddings = vec![Vec::new(); rows.len()];
        for (bucket, values) in buckets.iter().zip(&computed) {
            for (&row, embedding) in bucket.iter().zip(values.chunks_exact(self.hidden)) {
                embeddings[row] = embedding.to_vec();
            }
        }
        Ok(embeddings)
    }

    fn answer(&self, embeddings: &[Vec<f32>], usage_tokens: u64) -> InferAnswer {
        let mut data = BytesMut::with_capacity(embeddings.len() * self.hidden * 4);
        embeddings.iter().flatten().for_each(|value| data.put_f32_le(*value));
        let shape = vec![embeddings.len() as i64, self.hidden as i64];
        let data = Payload::from(data.freeze());
        let output = Tensor { name: "embedding".into(), datatype: Datatype::Fp32, shape, data };
        InferAnswer { outputs: vec![output], usage_tokens, ..InferAnswer::default() }
    }
}

impl Model for Embedder {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn run(&mut self, batch: Vec<ModelRequest>) -> Vec<Result<InferAnswer>> {
        let read = |request: &ModelRequest| {
            self.spec.check_inputs(&request.inputs)?;
            self.text.tokens(request)
        };
        let tokens: Vec<Result<Vec<Vec<u32>>>> = batch.par_iter().map(read).collect();
        let rows: Vec<&[u32]> = tokens.iter().flatten().flatten().map(Vec::as_slice).collect();
        let mut given_up: Vec<&GivenUp> = Vec::with_capacity(rows.len());
        for (tokens, request) in tokens.iter().zip(&batch) {
            given_up.extend(tokens.iter().flatten().map(|_| &request.given_up));
        }
        let computed = self.encode(&rows, &given_up);
        let mut at = 0;
        let answer = |request: &Result<Vec<Vec<u32>>>| {
            let request = request.as_ref().map_err(Error::clone)?;
            let embeddings = computed.as_ref().map_err(Error::clone)?;
            let from = at;
            at += request.len();
            if embeddings[from..at].iter().any(Vec::is_empty) {
                return Err(GivenUp::error());
            }
            Ok(self.answer(&embeddings[from..at], request.iter().map(|ids| ids.len() as u64).sum()))
        };
        tokens.iter().map(answer).collect()
    }

    fn sample(&self, rows: usize) -> ModelRequest {
        // A word of one letter is one token; two more are the special ones.
        let sentence = "a ".repeat(TYPICAL_TOKENS - 2);
        let data = Payload::from(encode_bytes_elements(&vec![sentence; rows]));
        let text = Tensor { name: "text".into(), datatype: Datatype::Bytes, shape: vec![rows as i64], data };
        ModelRequest { inputs: vec![text], truncate: true, ..ModelRequest::default() }
    }
}

fn unloadable(source: &Source, error: &candle_core::Error) -> Error {
    let folder = source.folder.display();
    crate::unservable(format!("the weights in {folder} cannot be loaded: {}", error.to_string().to_lowercase()))
}
