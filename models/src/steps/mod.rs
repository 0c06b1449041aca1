//! Steps before and after models: what `orion_proto::step` names. To everything else each is a model without weights.

mod choose;
mod image;
mod pool;
mod sound;
mod tensors;
#[cfg(test)]
mod tests;
mod texts;
mod values;

use orion_proto::{
    Datatype, InferAnswer, ModelName, ModelPolicy, ModelSpec, Payload, Result, Tensor, TensorSpec,
    encode_bytes_elements, step::Run,
};

use crate::{GivenUp, Model, ModelRequest};

/// The family's name.
const FAMILY: &str = "step";
/// Rows that one batch may hold.
const MOST_ROWS: usize = 64;
/// Values of a typical row, for warm-up.
const TYPICAL: usize = 256;

/// A step that is ready.
pub(crate) struct StepModel {
    spec: ModelSpec,
    run: Run,
}

/// What a step takes and gives.
pub(crate) fn spec(name: &ModelName, run: &Run) -> ModelSpec {
    let any = |name: &str, datatype| TensorSpec::new(name, datatype, []);
    let fp32 = |name: &str| any(name, Datatype::Fp32);
    let (inputs, outputs) = match run {
        Run::Softmax {} | Run::Sigmoid {} | Run::UnitLength {} | Run::Normalize { .. } => {
            (vec![fp32("x")], vec![fp32("y")])
        }
        Run::Threshold { .. } => (vec![fp32("x")], vec![any("y", Datatype::Bool)]),
        Run::TopK { labels, .. } => {
            let mut outputs = vec![fp32("values"), any("indices", Datatype::Int64)];
            outputs.extend((!labels.is_empty()).then(|| any("labels", Datatype::Bytes)));
            (vec![fp32("x")], outputs)
        }
        Run::Pool { .. } => (
            vec![
                TensorSpec::new("x", Datatype::Fp32, [-1, -1, -1]),
                TensorSpec::optional("mask", Datatype::Int64, [-1, -1]),
            ],
            vec![TensorSpec::new("y", Datatype::Fp32, [-1, -1])],
        ),
        Run::Image { width, height, .. } => {
            let shape = [-1, 3, *height as i64, *width as i64];
            (vec![any("image", Datatype::Bytes)], vec![TensorSpec::new("y", Datatype::Fp32, shape)])
        }
        Run::Nms { most, .. } => (
            vec![
                TensorSpec::new("boxes", Datatype::Fp32, [-1, -1, 4]),
                TensorSpec::new("scores", Datatype::Fp32, [-1, -1]),
            ],
            vec![TensorSpec::new("indices", Datatype::Int64, [-1, *most as i64])],
        ),
        Run::Resample { .. } => {
            (vec![TensorSpec::new("x", Datatype::Fp32, [-1, -1])], vec![TensorSpec::new("y", Datatype::Fp32, [-1, -1])])
        }
        Run::LogMel { mels } => (
            vec![TensorSpec::new("x", Datatype::Fp32, [-1, -1])],
            vec![TensorSpec::new("y", Datatype::Fp32, [-1, *mels as i64, -1])],
        ),
        Run::Tokenize { .. } => {
            let int64 = |name| TensorSpec::new(name, Datatype::Int64, [-1, -1]);
            (vec![any("text", Datatype::Bytes)], ["ids", "mask", "types"].map(int64).to_vec())
        }
        Run::Detokenize { .. } => {
            let ids = TensorSpec::new("ids", Datatype::Int64, [-1, -1]);
            let mask = TensorSpec::optional("mask", Datatype::Int64, [-1, -1]);
            (vec![ids, mask], vec![TensorSpec::new("text", Datatype::Bytes, [-1])])
        }
        // One row becomes many: a request is one, whatever its rows.
        Run::Chunk { size, .. } => (
            vec![TensorSpec::new("x", Datatype::Fp32, [1, -1])],
            vec![TensorSpec::new("y", Datatype::Fp32, [-1, *size as i64])],
        ),
    };
    ModelSpec {
        name: name.clone(),
        version: "1".into(),
        family: FAMILY.into(),
        inputs,
        outputs,
        max_batch_rows: most_rows(run),
        memory_bytes: 0,
        inline: false,
        policy: ModelPolicy::default(),
        generator: None,
    }
}

/// Rows that one batch may hold: fewer of large images.
fn most_rows(run: &Run) -> usize {
    match run {
        Run::Image { width, height, .. } => {
            (tensors::MOST_VALUES / 16 / (3 * width * height).max(1)).clamp(1, MOST_ROWS)
        }
        _ => MOST_ROWS,
    }
}

impl StepModel {
    pub(crate) fn of(name: &ModelName, run: Run) -> Self {
        Self { spec: spec(name, &run), run }
    }

    fn one(&self, request: &ModelRequest) -> Result<Vec<Tensor>> {
        if request.given_up.is_set() {
            return Err(GivenUp::error());
        }
        self.spec.check_inputs(&request.inputs)?;
        let x = || tensors::Values::of(&request.inputs, "x");
        let y = |values: Result<tensors::Values>| values.map(|values| vec![values.tensor("y")]);
        match &self.run {
            Run::Softmax {} => y(x().map(values::softmax)),
            Run::Sigmoid {} => y(x().map(values::sigmoid)),
            Run::UnitLength {} => y(x().map(values::unit_length)),
            Run::Normalize { mean, deviation } => y(x().and_then(|x| values::normalize(x, mean, deviation))),
            Run::Threshold { at } => x().map(|x| vec![values::threshold(&x, *at)]),
            Run::TopK { k, labels } => x().and_then(|x| choose::top_k(&x, *k, labels)),
            Run::Pool { of } => y(x().and_then(|x| pool::pool(&x, &request.inputs, *of))),
            Run::Nms { overlap, score, most } => choose::nms(&request.inputs, *overlap, *score, *most),
            Run::Resample { from, to } => y(x().and_then(|x| sound::resample(&x, *from, *to))),
            Run::LogMel { mels } => {
                y(x().map(|x| crate::whisper::log_mel(&x.values, x.shape[0], *mels)).map(|(values, frames)| {
                    tensors::Values { shape: vec![request.inputs[0].rows(), *mels, frames], values }
                }))
            }
            Run::Tokenize { tokenizer, most } => texts::tokens(&request.inputs, tokenizer, *most),
            Run::Detokenize { tokenizer } => texts::text(&request.inputs, tokenizer),
            Run::Chunk { size, step } => y(x().and_then(|x| sound::chunk(&x, *size, *step))),
            // Files of all requests are decoded side by side.
            Run::Image { .. } => Ok(Vec::new()),
        }
    }
}

impl Model for StepModel {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn run(&mut self, batch: Vec<ModelRequest>) -> Vec<Result<InferAnswer>> {
        let answers: Vec<Result<Vec<Tensor>>> = match &self.run {
            Run::Image { width, height, mean, deviation } => {
                image::images(&self.spec, &batch, (*width, *height), mean, deviation)
            }
            _ => batch.iter().map(|request| self.one(request)).collect(),
        };
        let answer =
            |outputs: Result<Vec<Tensor>>| outputs.map(|outputs| InferAnswer { outputs, ..InferAnswer::default() });
        answers.into_iter().map(answer).collect()
    }

    fn sample(&self, rows: usize) -> ModelRequest {
        let input = |spec: &TensorSpec| {
            // Rows, then what is open; a channel for each mean.
            let channels = match &self.run {
                Run::Normalize { mean, deviation } => mean.len().max(deviation.len()),
                Run::TopK { k, labels } if labels.is_empty() => TYPICAL.max(*k),
                Run::TopK { labels, .. } => labels.len(),
                _ => TYPICAL,
            };
            let shape = match (spec.shape.as_slice(), spec.name.as_str()) {
                ([], _) => vec![rows as i64, channels as i64],
                ([1, ..], _) => vec![1, (rows * TYPICAL) as i64],
                (_, "mask") => return None,
                (declared, _) => {
                    let size = |(at, size): (usize, &i64)| match (at, *size) {
                        (0, _) => rows as i64,
                        (_, -1) => 16,
                        (_, size) => size,
                    };
                    declared.iter().enumerate().map(size).collect()
                }
            };
            let count: i64 = shape.iter().product();
            if spec.datatype == Datatype::Bytes {
                let shape = vec![rows as i64];
                let data = Payload::from(encode_bytes_elements(&vec!["a few words of text"; rows]));
                return Some(Tensor { name: spec.name.clone(), datatype: spec.datatype, shape, data });
            }
            if spec.datatype == Datatype::Int64 {
                let data = Payload::from(vec![0; count as usize * 8]);
                return Some(Tensor { name: spec.name.clone(), datatype: spec.datatype, shape, data });
            }
            let data: Vec<u8> = (0..count).flat_map(|at| ((at * 37 % 256) as f32).to_le_bytes()).collect();
            Some(Tensor { name: spec.name.clone(), datatype: spec.datatype, shape, data: Payload::from(data) })
        };
        if let Run::Image { .. } = self.run {
            return crate::imaging::sample(rows, &crate::imaging::sample_photo(640, 480).unwrap_or_default());
        }
        ModelRequest { inputs: self.spec.inputs.iter().filter_map(input).collect(), ..ModelRequest::default() }
    }
}
