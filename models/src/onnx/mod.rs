//! The family `onnx`: any graph of the operators in [`operators`], evaluated on candle's tensors.

use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{Device, Tensor as Computed};
use orion_proto::{Code, Error, InferAnswer, ModelSpec, Payload, Result, ServiceCurve, Tensor};

mod attributes;
mod batch;
mod decoded_bytes;
mod element;
mod evaluator;
mod exchange;
mod fault;
mod file;
mod fuse;
mod graph;
mod inference;
mod load;
mod operators;
mod schema;
mod source;
#[cfg(test)]
mod tests;
mod weight;

use batch::groups;
use evaluator::Evaluator;
use file::OnnxFile;
use graph::Graph;
pub(crate) use source::Source;
use source::{Border, Rows};

use crate::{Model, ModelRequest, unservable};

/// The family's name.
const FAMILY: &str = "onnx";
/// What a typical processor does in a second, where a model cannot be measured before its first request.
const GUESSED_FLOPS: f64 = 1e10;

/// Bytes of values that rows may take while they run together: beyond, they leave the processor's caches.
const BYTES_TOGETHER: usize = 32 << 20;

/// A graph in memory.
pub(crate) struct OnnxModel {
    spec: ModelSpec,
    source: Source,
    evaluator: Evaluator,
    /// The size that a sample has wherever a dimension is open; none if no sample could be made that the graph takes.
    open: Option<usize>,
    /// Bytes that the values of a row take, as far as is known.
    row_bytes: AtomicUsize,
}

impl OnnxModel {
    /// Brings a graph into memory, as it was inspected.
    pub(crate) fn load(spec: ModelSpec, source: &Source, progress: &dyn Fn(f32)) -> Result<Self> {
        let refused = |problem: String| unservable(format!("{}: {problem}", source.path.display()));
        let file = OnnxFile::open(&source.path)?;
        let graph = Graph::read(&file.model, source::folder(&source.path)).map_err(refused)?;
        let now =
            Source::of(&graph, &source.path, file.bytes, source.precision, spec.max_batch_rows).map_err(refused)?;
        if (&now.inputs, &now.outputs, now.rows) != (&source.inputs, &source.outputs, source.rows) {
            return Err(refused("it was changed since it was inspected".into()));
        }
        drop(file);
        let evaluator = Evaluator::load(graph, &Device::Cpu, source.precision, source.limits, progress);
        let evaluator = evaluator.map_err(|error| refused(error.to_string().to_lowercase()))?;
        let mut model = Self { spec, source: source.clone(), evaluator, open: None, row_bytes: 0.into() };
        model.open = source.open_sizes.iter().copied().find(|&open| model.run_whole(&model.typical(1, open)).is_ok());
        Ok(model)
    }

    /// Inputs of zeros.
    fn typical(&self, rows: usize, open: usize) -> Vec<Tensor> {
        let input = |border: &Border| {
            let size = |(at, &size): (usize, &i64)| match size {
                -1 if at == 0 && self.source.rows != Rows::Whole => rows as i64,
                -1 if at == 0 => 1,
                -1 => open as i64,
                size => size,
            };
            let shape: Vec<i64> = border.shape.iter().enumerate().map(size).collect();
            let count = shape.iter().product::<i64>() as usize;
            let data = Payload::from(vec![0; count * border.element.size()]);
            Tensor { name: border.name.clone(), datatype: border.element.datatype(), shape, data }
        };
        self.source.inputs.iter().map(input).collect()
    }

    /// The tensors of several requests, joined along their rows, in the graph's order.
    fn joined(&self, requests: &[&[Tensor]]) -> Result<Vec<Computed>> {
        let input = |border: &Border| {
            let of = |tensors: &&[Tensor]| tensors.iter().find(|tensor| tensor.name == border.name).cloned();
            let tensors: Vec<Tensor> = requests.iter().filter_map(of).collect();
            let payloads: Vec<&Payload> = tensors.iter().map(|tensor| &tensor.data).collect();
            let mut dims: Vec<usize> = tensors.first().map(dimensions).unwrap_or_default();
            if let (Some(leading), 2..) = (dims.first_mut(), tensors.len()) {
                *leading = tensors.iter().map(Tensor::rows).sum();
            }
            if border.scalar {
                dims.clear();
            }
            let bytes = exchange::joined(&payloads);
            exchange::read(&bytes, border.element, &dims, self.source.precision, &self.evaluator.device).map_err(failed)
        };
        self.source.inputs.iter().map(input).collect()
    }

    /// One request as it is.
    fn run_whole(&self, inputs: &[Tensor]) -> Result<Vec<Computed>> {
        self.evaluator.run(self.joined(&[inputs])?)
    }

    /// The outputs of joined inputs, in pieces of as many rows as the graph takes at once.
    fn run_rows(&self, inputs: &[Computed], rows: usize) -> Result<Vec<Computed>> {
        let together = BYTES_TOGETHER / self.row_bytes.load(Ordering::Relaxed).max(1);
        let most = match self.source.rows {
            Rows::Alone => 1,
            // Two at least, or a graph that gives one row for any number of them would not be found out.
            _ => together.max(2).min(self.spec.max_batch_rows),
        };
        let run = |inputs: Vec<Computed>, count: usize| {
            let (outputs, bytes) = self.evaluator.run_counted(inputs)?;
            self.row_bytes.store(bytes / count, Ordering::Relaxed);
            Ok(outputs)
        };
        if rows <= most {
            return run(inputs.to_vec(), rows);
        }
        // Even ones, of which none is small.
        let most = rows.div_ceil(rows.div_ceil(most));
        let piece = |from: usize| {
            let count = most.min(rows - from);
            let inputs = inputs.iter().map(|input| input.narrow(0, from, count)?.contiguous());
            run(inputs.collect::<candle_core::Result<_>>().map_err(failed)?, count)
        };
        let pieces = (0..rows).step_by(most).map(piece).collect::<Result<Vec<_>>>()?;
        let takes_all = self.source.rows != Rows::Alone && rows <= self.spec.max_batch_rows;
        if takes_all && !keeps_rows_apart(&pieces, rows, most) {
            // What rows decide together may differ from piece to piece: the whole says what it is.
            return run(inputs.to_vec(), rows);
        }
        let output = |index: usize| {
            let parts: Vec<&Computed> = pieces.iter().filter_map(|outputs| outputs.get(index)).collect();
            Computed::cat(&parts, 0).map_err(failed)
        };
        (0..self.source.outputs.len()).map(output).collect()
    }

    /// The answers of requests that agree in shape, one a request.
    fn run_together(&self, requests: &[&[Tensor]], rows: usize) -> Result<Vec<InferAnswer>> {
        let outputs = self.run_rows(&self.joined(requests)?, rows)?;
        let names = |outputs: &[Computed]| -> Result<()> {
            match outputs.iter().zip(&self.source.outputs).find(|(output, _)| output.dims().first() != Some(&rows)) {
                None => Ok(()),
                Some((output, border)) => Err(Error::invalid(format!(
                    "output '{}' has shape {:?} for {rows} rows: the graph does not keep rows apart",
                    border.name,
                    output.dims()
                ))),
            }
        };
        names(&outputs)?;
        let mut from = 0;
        let answer = |tensors: &&[Tensor]| {
            let count = tensors.first().map_or(1, Tensor::rows);
            let cut =
                outputs.iter().map(|output| output.narrow(0, from, count)).collect::<candle_core::Result<Vec<_>>>();
            from += count;
            self.answer(&cut.map_err(failed)?)
        };
        requests.iter().map(answer).collect()
    }

    fn answer(&self, outputs: &[Computed]) -> Result<InferAnswer> {
        let output = |(output, border): (&Computed, &Border)| {
            let dims = if border.scalar { &[1][..] } else { output.dims() };
            let shape = dims.iter().map(|&size| size as i64).collect();
            let data = Payload::from(exchange::write(output, border.element).map_err(failed)?);
            Ok(Tensor { name: border.name.clone(), datatype: border.element.datatype(), shape, data })
        };
        let outputs = outputs.iter().zip(&self.source.outputs).map(output).collect::<Result<_>>()?;
        Ok(InferAnswer { outputs, ..InferAnswer::default() })
    }

    /// What no rows give: outputs of no rows.
    fn nothing(&self) -> InferAnswer {
        let output = |border: &Border| {
            let size = |(at, &size): (usize, &i64)| if at == 0 { 0 } else { size.max(0) };
            let shape = border.shape.iter().enumerate().map(size).collect();
            let data = Payload::default();
            Tensor { name: border.name.clone(), datatype: border.element.datatype(), shape, data }
        };
        InferAnswer { outputs: self.source.outputs.iter().map(output).collect(), ..InferAnswer::default() }
    }

    /// Requests that agree in shape; if they fail together, each alone.
    fn run_group(&self, requests: &[&[Tensor]], rows: usize) -> Vec<Result<InferAnswer>> {
        if rows == 0 {
            return requests.iter().map(|_| Ok(self.nothing())).collect();
        }
        match self.run_together(requests, rows) {
            Ok(answers) => answers.into_iter().map(Ok).collect(),
            Err(error) if requests.len() == 1 => vec![Err(error)],
            Err(_) => {
                let alone = |tensors: &&[Tensor]| self.run_group(&[tensors], tensors.first().map_or(1, Tensor::rows));
                requests.iter().flat_map(alone).collect()
            }
        }
    }
}

/// Whether pieces of so many rows gave as many rows each, alike in all else.
fn keeps_rows_apart(pieces: &[Vec<Computed>], rows: usize, most: usize) -> bool {
    let counts = (0..rows).step_by(most).map(|from| most.min(rows - from));
    pieces.iter().zip(counts).all(|(outputs, count)| {
        outputs.iter().zip(&pieces[0]).all(|(output, first)| {
            output.dims().first() == Some(&count) && output.dims().get(1..) == first.dims().get(1..)
        })
    })
}

fn dimensions(tensor: &Tensor) -> Vec<usize> {
    tensor.shape.iter().map(|&size| usize::try_from(size).unwrap_or(0)).collect()
}

fn failed(error: candle_core::Error) -> Error {
    let text = error.to_string().to_lowercase();
    Error::new(Code::Internal, format!("the graph failed: {}", text.lines().next().unwrap_or_default()))
}

impl Model for OnnxModel {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn run(&mut self, batch: Vec<ModelRequest>) -> Vec<Result<InferAnswer>> {
        let mut answers: Vec<Result<InferAnswer>> = batch
            .iter()
            .map(|request| self.spec.check_inputs(&request.inputs).map(|_| InferAnswer::default()))
            .collect();
        let pairs = batch.iter().zip(&answers);
        let good: Vec<Option<&ModelRequest>> =
            pairs.map(|(request, checked)| checked.is_ok().then_some(request)).collect();
        if self.source.rows == Rows::Whole {
            for (index, request) in good.into_iter().enumerate() {
                if let Some(request) = request {
                    answers[index] = self.run_whole(&request.inputs).and_then(|outputs| self.answer(&outputs));
                }
            }
            return answers;
        }
        let tensors: Vec<Option<&[Tensor]>> = good.iter().map(|request| request.map(|r| r.inputs.as_slice())).collect();
        for group in groups(&tensors, self.spec.max_batch_rows) {
            let requests: Vec<&[Tensor]> = group.members.iter().filter_map(|&index| tensors[index]).collect();
            let given = self.run_group(&requests, group.rows);
            group.members.iter().zip(given).for_each(|(&index, answer)| answers[index] = answer);
        }
        answers
    }

    fn known_curve(&self) -> Option<ServiceCurve> {
        // Without a sample there is no warm-up: the first batches correct the guess.
        let guess = ServiceCurve { base_seconds: 1e-3, per_row_seconds: self.source.flops / GUESSED_FLOPS };
        if self.open.is_none() { Some(guess) } else { None }
    }

    fn sample(&self, rows: usize) -> ModelRequest {
        let open = self.open.or_else(|| self.source.open_sizes.first().copied()).unwrap_or(1);
        ModelRequest { inputs: self.typical(rows, open), ..ModelRequest::default() }
    }
}
