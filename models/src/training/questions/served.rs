//! What such a training leaves: a folder, and how it is served.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use candle_core::Tensor as Values;
use orion_proto::{
    Datatype, Error, InferAnswer, ModelName, ModelPolicy, ModelSpec, Payload, Result, Tensor, TensorSpec,
    bytes_elements, encode_bytes_elements, training::ImageQuestion,
};
use serde::{Deserialize, Serialize};

use super::{Network, Picture, Questions, Words};
use crate::{
    Model, ModelRequest,
    checkpoint::Checkpoint,
    file::read_json,
    imaging::sample_photo,
    training::{
        Progress, failed,
        task::{count, tensors},
        trained::{write, written},
    },
    unservable,
};

/// What `config.json` names as `model_type`.
pub(crate) const MODEL_TYPE: &str = "orion-image-question";
const FAMILY: &str = "image-question";
const INPUTS: [&str; 2] = ["image", "question"];
/// Pixels of a side, and answers.
const MOST: usize = 1 << 16;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Config {
    model_type: String,
    network: ImageQuestion,
    image: Picture,
    /// That are told apart.
    words: BTreeSet<String>,
    answers: Vec<String>,
    #[serde(default)]
    metrics: Option<Progress>,
}

/// Writes a network with these numbers as a model's folder.
pub(super) fn save(questions: &Questions, values: &[f32], progress: &Progress, folder: &Path) -> Result<()> {
    let config = Config {
        model_type: MODEL_TYPE.into(),
        network: questions.network.architecture().clone(),
        image: questions.picture.clone(),
        words: questions.words.all().iter().cloned().collect(),
        answers: questions.labels.clone(),
        metrics: Some(progress.clone()),
    };
    write(folder, &written(questions.network.parameters(), values)?, &config)
}

/// The folder of such a network, whose headers were found to fit its configuration.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    folder: PathBuf,
    network: Network,
    picture: Picture,
    words: Words,
    answers: Vec<String>,
    weight_bytes: u64,
}

impl Source {
    /// Reads the configuration and the headers of a folder.
    pub(crate) fn inspect(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        let Config { network, image: picture, words, answers, .. } = read_json(&path)?;
        let sound = [picture.height, picture.width, answers.len()].iter().all(|size| (1..=MOST).contains(size));
        let sound = sound && picture.deviation.iter().all(|deviation| deviation.is_finite() && *deviation > 0.0);
        let sound = sound && network.kernel % 2 == 1 && network.kernel < 64 && (1..=MOST).contains(&network.hidden);
        if !sound || network.channels.iter().any(|size| !(1..=MOST).contains(size)) {
            return Err(unservable(format!("{}: its sizes must be 1 to {MOST}, and its kernel odd", path.display())));
        }
        let words = Words::new(words)?;
        let network = Network::new(&network, picture.shape(), words.count(), answers.len())?;
        let checkpoint = Checkpoint::open(folder)?;
        for parameter in network.parameters() {
            checkpoint.expect(&parameter.name, &parameter.shape)?;
        }
        let weight_bytes = checkpoint.file_bytes();
        Ok(Self { folder: folder.into(), network, picture, words, answers, weight_bytes })
    }

    pub(crate) fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }

    /// Floating-point operations for one question.
    pub(crate) fn flops(&self) -> f64 {
        self.network.flops()
    }

    /// What it takes and gives once it is loaded.
    pub(crate) fn spec(&self, name: &ModelName, version: String, max_batch_rows: usize) -> ModelSpec {
        let numbers = count(self.network.parameters()) + 2 * self.network.values() * max_batch_rows;
        ModelSpec {
            name: name.clone(),
            version,
            family: FAMILY.into(),
            inputs: INPUTS.map(|name| TensorSpec::new(name, Datatype::Bytes, [-1])).into(),
            outputs: vec![
                TensorSpec::new("logits", Datatype::Fp32, [-1, self.answers.len() as i64]),
                TensorSpec::new("answer", Datatype::Bytes, [-1]),
                TensorSpec::new("score", Datatype::Fp32, [-1]),
            ],
            max_batch_rows,
            memory_bytes: 4 * numbers as u64,
            inline: false,
            policy: ModelPolicy::default(),
            generator: None,
        }
    }
}

/// Such a network in memory.
pub(crate) struct Answerer {
    spec: ModelSpec,
    source: Source,
    tensors: Vec<Values>,
    /// For warm-up.
    photo: Vec<u8>,
}

/// A request's rows as the network takes them.
struct Asked {
    pixels: Vec<f32>,
    words: Vec<f32>,
    rows: usize,
}

impl Answerer {
    /// Brings the weights into memory.
    pub(crate) fn load(spec: ModelSpec, source: &Source, progress: &dyn Fn(f32)) -> Result<Self> {
        let checkpoint = Checkpoint::open(&source.folder)?;
        let mut values = Vec::with_capacity(count(source.network.parameters()));
        for parameter in source.network.parameters() {
            values.extend(checkpoint.floats(&parameter.name, &parameter.shape)?);
        }
        progress(1.0);
        let tensors = tensors(source.network.parameters(), &values, false)?;
        Ok(Self { spec, source: source.clone(), tensors, photo: sample_photo(64, 64)? })
    }

    fn asked(&self, request: &ModelRequest) -> Result<Asked> {
        self.spec.check_inputs(&request.inputs)?;
        let input = |name: &str| {
            let tensor = request.inputs.iter().find(|tensor| tensor.name == name);
            let tensor = tensor.ok_or_else(|| Error::invalid(format!("input '{name}' is missing")))?;
            bytes_elements(name, &tensor.data.contiguous(), tensor.rows())
        };
        let (images, questions) = (input(INPUTS[0])?, input(INPUTS[1])?);
        let files: Vec<&[u8]> = images.iter().map(Bytes::as_ref).collect();
        let (mut pixels, mut words) = (Vec::new(), Vec::new());
        for (row, values) in self.source.picture.all(&files).into_iter().enumerate() {
            let named = |why: String| Error::invalid(format!("element {row} of input '{}': {why}", INPUTS[0]));
            pixels.extend(values.map_err(named)?);
        }
        for (row, question) in questions.iter().enumerate() {
            let text = std::str::from_utf8(question).map_err(|error| {
                let from = error.valid_up_to();
                Error::invalid(format!("element {row} of input '{}' is not UTF-8 from byte {from} on", INPUTS[1]))
            })?;
            words.extend(self.source.words.values(text));
        }
        Ok(Asked { pixels, words, rows: images.len() })
    }

    fn answer(&self, rows: &[Vec<f32>]) -> InferAnswer {
        let greatest = |row: &Vec<f32>| {
            let later = |best: usize, (at, value): (usize, &f32)| if *value > row[best] { at } else { best };
            row.iter().enumerate().fold(0, later)
        };
        let share = |row: &Vec<f32>| {
            let most = row[greatest(row)];
            1.0 / row.iter().map(|value| (value - most).exp()).sum::<f32>()
        };
        let floats =
            |values: Vec<f32>| Bytes::from(values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>());
        let answers: Vec<&str> = rows.iter().map(|row| self.source.answers[greatest(row)].as_str()).collect();
        let data = [floats(rows.concat()), encode_bytes_elements(&answers), floats(rows.iter().map(share).collect())];
        let tensor = |(spec, data): (&TensorSpec, Bytes)| Tensor {
            name: spec.name.clone(),
            datatype: spec.datatype,
            shape: std::iter::once(rows.len() as i64).chain(spec.shape.iter().skip(1).copied()).collect(),
            data: Payload::from(data),
        };
        InferAnswer { outputs: self.spec.outputs.iter().zip(data).map(tensor).collect(), ..InferAnswer::default() }
    }

    fn logits(&self, asked: &mut [Result<Asked>]) -> Result<Vec<Vec<f32>>> {
        let (mut pixels, mut words) = (Vec::new(), Vec::new());
        for asked in asked.iter_mut().flatten() {
            pixels.append(&mut asked.pixels);
            words.append(&mut asked.words);
        }
        if words.is_empty() {
            return Ok(Vec::new());
        }
        let logits = self.source.network.logits(&self.tensors, pixels, words, None);
        logits.and_then(|logits| logits.to_vec2()).map_err(|error| failed(&error))
    }
}

impl Model for Answerer {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn run(&mut self, batch: Vec<ModelRequest>) -> Vec<Result<InferAnswer>> {
        let mut asked: Vec<Result<Asked>> = batch.iter().map(|request| self.asked(request)).collect();
        let logits = match self.logits(&mut asked) {
            Ok(logits) => logits,
            Err(error) => return batch.iter().map(|_| Err(error.clone())).collect(),
        };
        let mut logits = logits.into_iter();
        let mut own = |asked: Asked| self.answer(&logits.by_ref().take(asked.rows).collect::<Vec<_>>());
        asked.into_iter().map(|asked| asked.map(&mut own)).collect()
    }

    fn sample(&self, rows: usize) -> ModelRequest {
        let tensor = |name: &str, elements: &[&[u8]]| Tensor {
            name: name.into(),
            datatype: Datatype::Bytes,
            shape: vec![rows as i64],
            data: Payload::from(encode_bytes_elements(elements)),
        };
        let (image, question) = (vec![self.photo.as_slice(); rows], vec![b"what is in the image?".as_slice(); rows]);
        ModelRequest {
            inputs: vec![tensor(INPUTS[0], &image), tensor(INPUTS[1], &question)],
            ..ModelRequest::default()
        }
    }
}
