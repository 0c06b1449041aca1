//! The family `magika`: what kind of file a content is, by Google's Magika (`standard_v3`).
//!
//! Labels are those of Magika's own command in its mode of high confidence: a content of no bytes is `empty`, one that is too
//! short for the model `txt` or `unknown`, both with a score of 1; where the model is less sure than its configuration asks for,
//! the label is `txt` or `unknown` too, with the model's score. Which of the two follows from the label that the model was unsure
//! of, by `content_types_kb.min.json` of the package; without that file, from whether the content is UTF-8.

use std::path::Path;

use bytes::Bytes;
use orion_proto::{
    Code, Datatype, Error, InferAnswer, ModelName, ModelSpec, Payload, Result, Tensor, TensorSpec, bytes_elements,
    encode_bytes_elements,
};

mod config;
mod features;

use config::{Config, Labels};
use features::{Seen, seen};

use crate::{Model, ModelRequest, Precision, onnx, unservable};

/// The family's name.
const FAMILY: &str = "magika";

/// A Magika folder before it is loaded.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    labels: Labels,
    pub(crate) graph: onnx::Source,
}

/// Whether a folder without `kind` in its orion.toml holds such a model.
pub(crate) fn is_in(folder: &Path) -> bool {
    folder.join("model.onnx").is_file() && Config::is_in(folder)
}

impl Source {
    /// Reads the configuration and the graph of a folder.
    ///
    /// # Errors
    /// FAILED_PRECONDITION naming what is missing or does not fit.
    pub(crate) fn inspect(folder: &Path, precision: Precision, max_rows: usize) -> Result<Self> {
        if precision == Precision::F16 {
            // It would answer, and always the same: its norms sum squares to more than 65504.
            return Err(unservable("Magika's sums are beyond f16, its precision must be f32 or bf16"));
        }
        let labels = Labels::read(folder)?;
        let path = folder.join("model.onnx");
        let graph = onnx::Source::inspect(&path, precision, max_rows)?;
        let source = Self { labels, graph };
        let spec = source.inner_spec(max_rows)?;
        let Config { beg_size, end_size, target_labels_space, .. } = &source.labels.config;
        let bytes = TensorSpec::new("bytes", Datatype::Int32, [-1, (beg_size + end_size) as i64]);
        let scores = TensorSpec::new("target_label", Datatype::Fp32, [-1, target_labels_space.len() as i64]);
        match (spec.inputs.as_slice(), spec.outputs.as_slice()) {
            ([input], [output]) if *input == bytes && *output == scores => Ok(source),
            _ => Err(unservable(format!(
                "{}: its graph must take 'bytes' as INT32 {:?} and give 'target_label' as FP32 {:?}, as {} says",
                path.display(),
                bytes.shape,
                scores.shape,
                config::FILE
            ))),
        }
    }

    fn inner_spec(&self, max_rows: usize) -> Result<ModelSpec> {
        Ok(self.graph.spec(&ModelName::new(FAMILY)?, "1".into(), max_rows))
    }

    /// What it takes and gives once it is loaded.
    pub(crate) fn spec(&self, name: &ModelName, version: String, max_rows: usize) -> ModelSpec {
        ModelSpec {
            family: FAMILY.into(),
            inputs: vec![TensorSpec::new("content", Datatype::Bytes, [-1])],
            outputs: vec![
                TensorSpec::new("label", Datatype::Bytes, [-1]),
                TensorSpec::new("score", Datatype::Fp32, [-1]),
            ],
            ..self.graph.spec(name, version, max_rows)
        }
    }
}

/// A loaded Magika model.
pub(crate) struct Magika {
    spec: ModelSpec,
    labels: Labels,
    graph: onnx::OnnxModel,
}

impl Magika {
    /// Brings the graph into memory.
    pub(crate) fn load(spec: ModelSpec, source: &Source, progress: &dyn Fn(f32)) -> Result<Self> {
        let inner = source.inner_spec(spec.max_batch_rows)?;
        let graph = onnx::OnnxModel::load(inner, &source.graph, progress)?;
        Ok(Self { spec, labels: source.labels.clone(), graph })
    }

    /// The contents of a request.
    fn contents(&self, request: &ModelRequest) -> Result<Vec<Bytes>> {
        self.spec.check_inputs(&request.inputs)?;
        let content = request.inputs.first().ok_or_else(|| Error::invalid("input 'content' is missing"))?;
        bytes_elements(&content.name, &content.data.contiguous(), content.rows())
    }

    /// The model's scores of all labels for each input, in order.
    fn scores(&mut self, inputs: &[&Vec<i32>]) -> Result<Vec<Vec<f32>>> {
        if inputs.is_empty() {
            return Ok(Vec::new());
        }
        let data: Vec<u8> =
            inputs.iter().flat_map(|bytes| bytes.iter().flat_map(|value| value.to_le_bytes())).collect();
        let shape = vec![inputs.len() as i64, inputs[0].len() as i64];
        let bytes = Tensor { name: "bytes".into(), datatype: Datatype::Int32, shape, data: Payload::from(data) };
        let request = ModelRequest { inputs: vec![bytes], ..ModelRequest::default() };
        let answer = self.graph.run(vec![request]).into_iter().next().transpose()?;
        let output = answer.and_then(|answer| answer.outputs.into_iter().next());
        let data = output.map(|output| output.data.contiguous()).unwrap_or_default();
        let scores: Vec<f32> =
            data.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect();
        let labels = self.labels.config.target_labels_space.len();
        match scores.len() == inputs.len() * labels {
            true => Ok(scores.chunks_exact(labels).map(<[f32]>::to_vec).collect()),
            false => Err(Error::new(
                Code::Internal,
                format!("the graph gave {} scores for {} rows", scores.len(), inputs.len()),
            )),
        }
    }

    /// The label and the score of the model's scores; of equal ones the first counts.
    fn verdict(&self, scores: &[f32], could_be_text: bool) -> (String, f32) {
        let better = |best: (usize, f32), (at, &score): (usize, &f32)| if score > best.1 { (at, score) } else { best };
        let (label, score) = scores.iter().enumerate().fold((0, f32::NEG_INFINITY), better);
        (self.labels.answered(label, score, || could_be_text).to_owned(), score)
    }
}

fn answer(verdicts: &[(String, f32)]) -> InferAnswer {
    let rows = verdicts.len() as i64;
    let labels: Vec<&String> = verdicts.iter().map(|(label, _)| label).collect();
    let scores: Vec<u8> = verdicts.iter().flat_map(|(_, score)| score.to_le_bytes()).collect();
    let tensor = |name: &str, datatype, data| Tensor { name: name.into(), datatype, shape: vec![rows], data };
    let label = tensor("label", Datatype::Bytes, Payload::from(encode_bytes_elements(&labels)));
    InferAnswer {
        outputs: vec![label, tensor("score", Datatype::Fp32, Payload::from(scores))],
        ..InferAnswer::default()
    }
}

impl Model for Magika {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn run(&mut self, batch: Vec<ModelRequest>) -> Vec<Result<InferAnswer>> {
        let see = |request: &ModelRequest| {
            let contents = self.contents(request)?;
            Ok(contents.iter().map(|content| seen(content, &self.labels.config)).collect::<Vec<Seen>>())
        };
        let requests: Vec<Result<Vec<Seen>>> = batch.iter().map(see).collect();
        let asked = requests.iter().flatten().flatten().filter_map(|seen| match seen {
            Seen::Bytes(bytes, _) => Some(bytes),
            Seen::Label(_) => None,
        });
        let scores = self.scores(&asked.collect::<Vec<_>>());
        let mut rest = scores.map(Vec::into_iter);
        let answer_of = |seen: Result<Vec<Seen>>| {
            let verdict = |seen: &Seen| match (seen, &mut rest) {
                (Seen::Label(label), _) => Ok(((*label).to_owned(), 1.0)),
                (Seen::Bytes(_, text), Ok(scores)) => Ok(self.verdict(&scores.next().unwrap_or_default(), *text)),
                (Seen::Bytes(..), Err(error)) => Err(error.clone()),
            };
            Ok(answer(&seen?.iter().map(verdict).collect::<Result<Vec<_>>>()?))
        };
        requests.into_iter().map(answer_of).collect()
    }

    fn sample(&self, rows: usize) -> ModelRequest {
        let content = "fn main() { println!(\"hello\"); }\n".repeat(64);
        let data = Payload::from(encode_bytes_elements(&vec![content; rows]));
        let content = Tensor { name: "content".into(), datatype: Datatype::Bytes, shape: vec![rows as i64], data };
        ModelRequest { inputs: vec![content], ..ModelRequest::default() }
    }
}
