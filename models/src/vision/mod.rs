//! The family `image-classification`: an image file to classes, by EfficientNet-Lite or ResNet.

use bytes::{BufMut, Bytes, BytesMut};
use orion_proto::{Datatype, InferAnswer, ModelSpec, Payload, Result, Tensor, encode_bytes_elements};

mod architecture;
mod efficientnet;
mod labels;
mod preparation;
mod processor;
mod resnet;
mod source;
#[cfg(test)]
mod tests;

pub(crate) use source::Source;

use crate::{
    Model, ModelRequest,
    checkpoint::Checkpoint,
    convnet::Layers,
    imaging::{Refusal, Row, Rows, sample, sample_photo},
    kernels::{Activation, Linear, Threads, mean},
};
use preparation::Preparation;

/// What `config.json` may name as `model_type`.
pub(crate) const MODEL_TYPES: [&str; 2] = [efficientnet::MODEL_TYPE, resnet::MODEL_TYPE];

/// The family's name.
const FAMILY: &str = "image-classification";

/// A loaded classifier of images.
pub(crate) struct Classifier {
    spec: ModelSpec,
    preparation: Preparation,
    layers: Layers,
    /// From the mean of each channel to the logits.
    head: Linear,
    features: usize,
    labels: Vec<String>,
    /// A typical file, for warm-up.
    photo: Vec<u8>,
}

impl Classifier {
    /// Brings the weights into memory.
    pub(crate) fn load(spec: ModelSpec, source: &Source, progress: &dyn Fn(f32)) -> Result<Self> {
        let architecture = &source.architecture;
        let checkpoint = Checkpoint::open(&source.folder)?;
        let layers = Layers::load(architecture.network.clone(), &checkpoint, source.precision, progress)?;
        let (features, classes) = (architecture.features(), source.labels.len());
        let [(weight, _), (bias, _)] = architecture.head(classes);
        let weight = checkpoint.floats(&weight, &[classes, features])?;
        let bias = checkpoint.floats(&bias, &[classes])?;
        Ok(Self {
            spec,
            preparation: architecture.preparation,
            layers,
            head: Linear::held_in(source.precision, &weight, bias, Activation::None),
            features,
            labels: source.labels.clone(),
            photo: sample_photo(640, 480)?,
        })
    }

    /// The mean of each channel that the last layer makes of a file.
    fn features(&self, threads: Threads, row: Row<'_>) -> std::result::Result<Vec<f32>, Refusal> {
        let pixels = self.preparation.pixels(&row.decode()?);
        let mut features = vec![0.0; self.features];
        self.layers.run(threads, |map| self.preparation.fill(&pixels, map), |map| mean(map, &mut features));
        Ok(features)
    }

    /// The logits of every row, or why it has none.
    fn logits(&self, rows: &[Row<'_>]) -> Vec<std::result::Result<Vec<f32>, Refusal>> {
        let features = Threads::share(rows.len(), |row, threads| self.features(threads, rows[row]));
        let good: Vec<f32> = features.iter().flatten().flatten().copied().collect();
        // Of all rows together: the head's weights are read once.
        let mut logits = vec![0.0; good.len() / self.features * self.labels.len()];
        self.head.forward(&good, &mut logits);
        let mut rows = logits.chunks_exact(self.labels.len());
        features.into_iter().map(|row| row.map(|_| rows.next().unwrap_or_default().to_vec())).collect()
    }

    fn answer(&self, rows: &[Vec<f32>]) -> InferAnswer {
        let (count, classes) = (rows.len(), self.labels.len());
        let best: Vec<usize> = rows.iter().map(|logits| greatest(logits)).collect();
        let mut values = BytesMut::with_capacity(count * classes * 4);
        rows.iter().flatten().for_each(|value| values.put_f32_le(*value));
        let class: Vec<u8> = best.iter().flat_map(|&class| (class as i32).to_le_bytes()).collect();
        let labels: Vec<&str> = best.iter().map(|&class| self.labels[class].as_str()).collect();
        let tensor = |name: &str, datatype, shape: &[usize], data: Bytes| Tensor {
            name: name.into(),
            datatype,
            shape: shape.iter().map(|&size| size as i64).collect(),
            data: Payload::from(data),
        };
        let outputs = vec![
            tensor("logits", Datatype::Fp32, &[count, classes], values.freeze()),
            tensor("class", Datatype::Int32, &[count], class.into()),
            tensor("label", Datatype::Bytes, &[count], encode_bytes_elements(&labels)),
        ];
        InferAnswer { outputs, ..InferAnswer::default() }
    }
}

/// The place of the first greatest value.
fn greatest(logits: &[f32]) -> usize {
    let later = |best: usize, (at, value): (usize, &f32)| if *value > logits[best] { at } else { best };
    logits.iter().enumerate().fold(0, later)
}

impl Model for Classifier {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn run(&mut self, batch: Vec<ModelRequest>) -> Vec<Result<InferAnswer>> {
        let rows = Rows::of(&self.spec, &batch);
        let answer = |logits: Result<Vec<Vec<f32>>>| logits.map(|logits| self.answer(&logits));
        rows.by_request(self.logits(&rows.all())).into_iter().map(answer).collect()
    }

    fn sample(&self, rows: usize) -> ModelRequest {
        sample(rows, &self.photo)
    }
}
