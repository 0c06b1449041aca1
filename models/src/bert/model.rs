//! A loaded model: requests of texts to answers.

use orion_proto::{Error, InferAnswer, ModelSpec, Result};
use rayon::prelude::*;

use super::{
    Source, answer,
    network::Network,
    task::Task,
    text::{TextReader, Tokens},
};
use crate::{GivenUp, Model, ModelRequest};

/// A BERT model: tokenizer, encoder and what follows it.
pub(crate) struct Bert {
    pub(super) spec: ModelSpec,
    pub(super) text: TextReader,
    pub(super) network: Network,
    pub(super) task: Task,
}

impl Bert {
    /// Brings tokenizer and weights into memory.
    pub(crate) fn load(spec: ModelSpec, source: &Source, progress: &dyn Fn(f32)) -> Result<Self> {
        let text = TextReader::load(source)?;
        let network = Network::load(source, spec.max_batch_rows, progress)?;
        Ok(Self { spec, text, network, task: source.task.clone() })
    }
}

impl Model for Bert {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn run(&mut self, batch: Vec<ModelRequest>) -> Vec<Result<InferAnswer>> {
        let read = |request: &ModelRequest| {
            self.spec.check_inputs(&request.inputs)?;
            self.text.tokens(request)
        };
        let tokens: Vec<Result<Vec<Tokens>>> = batch.par_iter().map(read).collect();
        let rows: Vec<&Tokens> = tokens.iter().flatten().flatten().collect();
        let mut given_up: Vec<&GivenUp> = Vec::with_capacity(rows.len());
        for (tokens, request) in tokens.iter().zip(&batch) {
            given_up.extend(tokens.iter().flatten().map(|_| &request.given_up));
        }
        let computed = self.network.compute(&rows, &given_up);
        let mut at = 0;
        let answer = |request: &Result<Vec<Tokens>>| {
            let request = request.as_ref().map_err(Error::clone)?;
            let numbers = computed.as_ref().map_err(Error::clone)?;
            let from = at;
            at += request.len();
            if numbers[from..at].iter().any(Vec::is_empty) {
                return Err(GivenUp::error());
            }
            let outputs = answer::tensors(&self.task, &self.spec.outputs, &numbers[from..at]);
            let usage_tokens = request.iter().map(|tokens| tokens.ids.len() as u64).sum();
            Ok(InferAnswer { outputs, usage_tokens, ..InferAnswer::default() })
        };
        tokens.iter().map(answer).collect()
    }

    fn sample(&self, rows: usize) -> ModelRequest {
        ModelRequest { inputs: answer::sample(&self.task, rows), truncate: true, ..ModelRequest::default() }
    }
}
