//! The family `silero-vad`: whether each window of 512 samples at 16 kHz is speech (Silero VAD v5 and v6).
//!
//! A window is heard after the last samples of the one before it and with the state that the ones before it left. Rows of one
//! request are windows that follow each other; the parameter `sequence_id` lets requests follow each other.

use candle_core::{Device, Tensor as Computed};
use orion_proto::{Code, Datatype, Error, InferAnswer, ModelSpec, Payload, Result, Sequence, Tensor};

mod chains;
mod network;
mod sequences;
mod source;
#[cfg(test)]
mod tests;

use chains::{Chain, chains};
use network::{Cell, Network};
use sequences::{Sequences, State};
pub(crate) use source::Source;

use crate::{Model, ModelRequest};

/// The family's name.
const FAMILY: &str = "silero-vad";
/// Samples of a window.
const WINDOW: usize = 512;
/// Samples before a window that are heard with it.
const CONTEXT: usize = 64;
/// Values of a state, and as many of its cell.
const HIDDEN: usize = 128;
/// Sequences whose states are kept.
const MOST_SEQUENCES: usize = 16_384;
/// Bytes of all their states.
const SEQUENCE_BYTES: u64 = (MOST_SEQUENCES * (CONTEXT + 2 * HIDDEN) * 4) as u64;

/// The network in memory, and what the sequences have heard.
pub(crate) struct SileroVad {
    spec: ModelSpec,
    network: Network,
    sequences: Sequences,
}

impl SileroVad {
    /// Brings the weights into memory.
    pub(crate) fn load(spec: ModelSpec, source: &Source, progress: &dyn Fn(f32)) -> Result<Self> {
        let network = Network::load(source, &Device::Cpu)?;
        progress(1.0);
        Ok(Self { spec, network, sequences: Sequences::new(MOST_SEQUENCES) })
    }

    /// What the windows of all chains are, and the states that the chains leave; windows stand chain after chain.
    fn listen(&self, chains: &[Chain], audio: &[Vec<f32>]) -> candle_core::Result<(Vec<f32>, Vec<State>)> {
        let (mut windows, mut ends) = (Vec::new(), Vec::new());
        for chain in chains {
            let mut context = chain.begin.context.clone();
            for samples in chain.requests.iter().flat_map(|&(request, _)| audio[request].chunks_exact(WINDOW)) {
                windows.extend_from_slice(&context);
                windows.extend_from_slice(samples);
                context.copy_from_slice(&samples[WINDOW - CONTEXT..]);
            }
            ends.push(State { context, ..chain.begin.clone() });
        }
        if windows.is_empty() {
            return Ok((Vec::new(), ends));
        }
        let gates = self.network.gates(windows)?;
        // Longest first, so that those that still go on stand together.
        let mut order: Vec<usize> = (0..chains.len()).filter(|&at| chains[at].windows() > 0).collect();
        order.sort_by_key(|&at| std::cmp::Reverse(chains[at].windows()));
        let firsts = chains.iter().scan(0, |next, chain| {
            *next += chain.windows();
            Some(*next - chain.windows())
        });
        let firsts: Vec<usize> = firsts.collect();
        let mut state = self.joined(&order, chains)?;
        let (mut hidden, mut places) = (Vec::new(), Vec::new());
        for step in 0..chains[order[0]].windows() {
            let going = order.partition_point(|&at| chains[at].windows() > step);
            let rows: Vec<u32> = order[..going].iter().map(|&at| (firsts[at] + step) as u32).collect();
            let before = Cell { hidden: state.hidden.narrow(0, 0, going)?, cell: state.cell.narrow(0, 0, going)? };
            let said = gates.index_select(&Computed::from_vec(rows.clone(), going, gates.device())?, 0)?;
            state = self.network.step(&said, &before)?;
            for (row, &at) in order[..going].iter().enumerate().filter(|(_, at)| chains[**at].windows() == step + 1) {
                ends[at].hidden = state.hidden.get(row)?.to_vec1()?;
                ends[at].cell = state.cell.get(row)?.to_vec1()?;
            }
            hidden.push(state.hidden.clone());
            places.extend(rows);
        }
        let said = self.network.speech(&Computed::cat(&hidden, 0)?)?;
        let mut speech = vec![0.0; said.len()];
        places.iter().zip(said).for_each(|(&place, value)| speech[place as usize] = value);
        Ok((speech, ends))
    }

    /// The states that chains begin with, in this order.
    fn joined(&self, order: &[usize], chains: &[Chain]) -> candle_core::Result<Cell> {
        let rows = |part: fn(&State) -> &Vec<f32>| {
            let values: Vec<f32> = order.iter().flat_map(|&at| part(&chains[at].begin).iter().copied()).collect();
            Computed::from_vec(values, (order.len(), HIDDEN), &self.network.device)
        };
        Ok(Cell { hidden: rows(|state| &state.hidden)?, cell: rows(|state| &state.cell)? })
    }

    /// Keeps what the sequences have heard.
    fn keep(&mut self, chains: &[Chain], ends: Vec<State>) {
        for (chain, end) in chains.iter().zip(ends) {
            match chain.key {
                Some(key) if chain.ended => self.sequences.end(key),
                Some(key) => self.sequences.keep(key, end),
                None => {}
            }
        }
    }
}

/// What the tensor library could not do.
fn failed(error: candle_core::Error) -> Error {
    let text = error.to_string().to_lowercase();
    Error::new(Code::Internal, format!("the network failed: {}", text.lines().next().unwrap_or_default()))
}

/// A request's samples.
fn samples(request: &ModelRequest) -> Vec<f32> {
    let bytes = request.inputs.first().map(|tensor| tensor.data.contiguous()).unwrap_or_default();
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect()
}

fn answer(speech: &[f32]) -> InferAnswer {
    let data = Payload::from(speech.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>());
    let shape = vec![speech.len() as i64];
    let output = Tensor { name: "speech".into(), datatype: Datatype::Fp32, shape, data };
    InferAnswer { outputs: vec![output], ..InferAnswer::default() }
}

impl Model for SileroVad {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn run(&mut self, batch: Vec<ModelRequest>) -> Vec<Result<InferAnswer>> {
        let checked: Vec<Result<usize>> = batch.iter().map(|request| self.spec.check_inputs(&request.inputs)).collect();
        let audio: Vec<Vec<f32>> = batch.iter().map(samples).collect();
        let good = batch.iter().zip(&checked).enumerate();
        let good: Vec<(usize, usize, Option<Sequence>)> =
            good.filter_map(|(index, (request, rows))| Some((index, *rows.as_ref().ok()?, request.sequence))).collect();
        let (chains, refused) = chains(&good, &self.sequences);
        let mut answers: Vec<Result<InferAnswer>> = checked.into_iter().map(|rows| rows.map(|_| answer(&[]))).collect();
        refused.into_iter().for_each(|(index, error)| answers[index] = Err(error));
        match self.listen(&chains, &audio) {
            Ok((speech, ends)) => {
                let requests = chains.iter().flat_map(|chain| &chain.requests);
                let mut rest = speech.as_slice();
                for &(index, rows) in requests {
                    let (own, after) = rest.split_at(rows);
                    answers[index] = Ok(answer(own));
                    rest = after;
                }
                self.keep(&chains, ends);
            }
            Err(error) => {
                let failed = failed(error);
                let requests = chains.iter().flat_map(|chain| &chain.requests);
                requests.for_each(|&(index, _)| answers[index] = Err(failed.clone()));
            }
        }
        answers
    }

    fn sample(&self, rows: usize) -> ModelRequest {
        let data = Payload::from(vec![0; rows * WINDOW * 4]);
        let shape = vec![rows as i64, WINDOW as i64];
        let audio = Tensor { name: "audio".into(), datatype: Datatype::Fp32, shape, data };
        ModelRequest { inputs: vec![audio], ..ModelRequest::default() }
    }
}
