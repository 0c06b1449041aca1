//! What a training leaves: a folder with weights under their names and a config.json, and how it is served.

use std::path::{Path, PathBuf};

use bytes::{BufMut, BytesMut};
use candle_core::Tensor as Values;
use orion_proto::{
    Code, Datatype, Error, InferAnswer, ModelName, ModelPolicy, ModelSpec, Payload, Result, Tensor, TensorSpec,
    training::Architecture,
};
use safetensors::tensor::TensorView;
use serde::{Deserialize, Serialize};

use super::{
    Network, Progress,
    task::{Parameter, tensors},
};
use crate::{
    Model, ModelRequest,
    checkpoint::{Checkpoint, Element, encode},
    file::read_text,
    unservable,
};

/// What `config.json` names as `model_type`.
pub(crate) const MODEL_TYPE: &str = "orion-network";
/// The family's name.
const FAMILY: &str = "image-network";
const INPUT: &str = "image";
const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Config {
    model_type: String,
    network: Architecture,
    /// Channels, height, width.
    input: [usize; 3],
    classes: usize,
    /// A value of the input is divided by this.
    unit: f32,
    #[serde(default)]
    metrics: Option<Progress>,
}

/// Writes a network with these numbers as a model's folder.
pub(super) fn save(
    network: &Network,
    architecture: &Architecture,
    values: &[f32],
    progress: &Progress,
    folder: &Path,
) -> Result<()> {
    let config = Config {
        model_type: MODEL_TYPE.into(),
        network: architecture.clone(),
        input: network.input,
        classes: network.classes,
        unit: 255.0,
        metrics: Some(progress.clone()),
    };
    write(folder, &written(network.parameters(), values)?, &config)
}

/// Parameters with these numbers.
pub(super) fn written(parameters: &[Parameter], values: &[f32]) -> Result<Vec<Written>> {
    let tensor = |parameter: &Parameter| {
        let values = &values[parameter.start..][..parameter.count()];
        Written::new(parameter.name.clone(), parameter.shape.clone(), Element::F32, values)
    };
    parameters.iter().map(tensor).collect()
}

/// A tensor as it is written.
pub(super) struct Written {
    name: String,
    shape: Vec<usize>,
    element: Element,
    bytes: Vec<u8>,
}

impl Written {
    /// # Errors
    /// INVALID_ARGUMENT naming a value that the type has no room for.
    pub(super) fn new(name: String, shape: Vec<usize>, element: Element, values: &[f32]) -> Result<Self> {
        let own: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let mut bytes = Vec::with_capacity(values.len() * element.size());
        encode(&own, Element::F32, element, &mut bytes)?;
        Ok(Self { name, shape, element, bytes })
    }
}

/// Writes tensors, and a configuration beside them.
pub(super) fn write(folder: &Path, tensors: &[Written], config: &impl Serialize) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| {
        Error::new(Code::Internal, format!("the trained model could not be written: {error}"))
    };
    let views = tensors.iter().map(|Written { name, shape, element, bytes }| {
        TensorView::new(element.safetensors(), shape.clone(), bytes).map(|view| (name.as_str(), view))
    });
    let views = views.collect::<std::result::Result<Vec<_>, _>>().map_err(|error| failed(&error))?;
    let weights = safetensors::serialize(views, None).map_err(|error| failed(&error))?;
    std::fs::write(folder.join(WEIGHTS), weights).map_err(|error| failed(&error))?;
    let text = serde_json::to_string_pretty(config).map_err(|error| failed(&error))?;
    std::fs::write(folder.join(CONFIG), text + "\n").map_err(|error| failed(&error))
}

/// Files that belong to a tokenizer, and what a model that generates has beside it.
pub(super) const TOKENIZER: [&str; 10] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "tokenizer.model",
    "generation_config.json",
    "chat_template.jinja",
];

/// Copies what a base's tokenizer is made of.
pub(super) fn copy_tokenizer(base: &Path, folder: &Path) -> Result<()> {
    for name in TOKENIZER.iter().filter(|name| base.join(name).is_file()) {
        std::fs::copy(base.join(name), folder.join(name))
            .map_err(|error| Error::new(Code::Internal, format!("{name} could not be copied: {error}")))?;
    }
    Ok(())
}

/// The folder of a trained network, whose headers were found to fit its configuration.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    folder: PathBuf,
    network: Network,
    unit: f32,
    weight_bytes: u64,
}

impl Source {
    /// Reads the configuration and the headers of a folder.
    pub(crate) fn inspect(folder: &Path) -> Result<Self> {
        let path = folder.join(CONFIG);
        let refused = |error: &dyn std::fmt::Display| {
            unservable(format!("{} cannot be read: {}", path.display(), error.to_string().to_lowercase()))
        };
        let config: Config = serde_json::from_slice(&read_text(&path)?).map_err(|error| refused(&error))?;
        if config.input.contains(&0) || config.classes == 0 || !(config.unit.is_finite() && config.unit > 0.0) {
            return Err(refused(&"input, classes and unit must be above 0"));
        }
        let network = Network::new(&config.network, config.input, config.classes)?;
        let checkpoint = Checkpoint::open(folder)?;
        for parameter in network.parameters() {
            checkpoint.expect(&parameter.name, &parameter.shape)?;
        }
        Ok(Self { folder: folder.into(), network, unit: config.unit, weight_bytes: checkpoint.file_bytes() })
    }

    pub(crate) fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }

    /// Floating-point operations for one image.
    pub(crate) fn flops(&self) -> f64 {
        self.network.flops()
    }

    /// What it takes and gives once it is loaded.
    pub(crate) fn spec(&self, name: &ModelName, version: String, max_batch_rows: usize) -> ModelSpec {
        let [channels, height, width] = self.network.input.map(|size| size as i64);
        ModelSpec {
            name: name.clone(),
            version,
            family: FAMILY.into(),
            inputs: vec![TensorSpec::new(INPUT, Datatype::Fp32, [-1, channels, height, width])],
            outputs: vec![
                TensorSpec::new("logits", Datatype::Fp32, [-1, self.network.classes as i64]),
                TensorSpec::new("class", Datatype::Int32, [-1]),
            ],
            max_batch_rows,
            memory_bytes: (self.network.count() * 4) as u64 + (self.network.values() * 4 * max_batch_rows * 4) as u64,
            inline: false,
            policy: ModelPolicy::default(),
            generator: None,
        }
    }
}

/// A trained network in memory.
pub(crate) struct Classifier {
    spec: ModelSpec,
    network: Network,
    unit: f32,
    tensors: Vec<Values>,
}

impl Classifier {
    /// Brings the weights into memory.
    pub(crate) fn load(spec: ModelSpec, source: &Source, progress: &dyn Fn(f32)) -> Result<Self> {
        let checkpoint = Checkpoint::open(&source.folder)?;
        let mut values = Vec::with_capacity(source.network.count());
        for parameter in source.network.parameters() {
            values.extend(checkpoint.floats(&parameter.name, &parameter.shape)?);
            progress(values.len() as f32 / source.network.count() as f32);
        }
        let tensors = tensors(source.network.parameters(), &values, false)?;
        Ok(Self { spec, network: source.network.clone(), unit: source.unit, tensors })
    }

    /// The values of a request's images, as the network takes them.
    fn values(&self, request: &ModelRequest) -> Result<Vec<f32>> {
        self.spec.check_inputs(&request.inputs)?;
        let image = request.inputs.first().ok_or_else(|| Error::invalid("input 'image' is missing"))?;
        let bytes = image.data.contiguous();
        let floats = bytes.chunks_exact(4).map(|v| f32::from_le_bytes([v[0], v[1], v[2], v[3]]) / self.unit);
        Ok(floats.collect())
    }

    fn answers(&self, values: Vec<Result<Vec<f32>>>) -> Result<Vec<Result<InferAnswer>>> {
        let all: Vec<f32> = values.iter().flatten().flatten().copied().collect();
        let rows = all.len() / self.network.values();
        let logits: Vec<Vec<f32>> = match rows {
            0 => Vec::new(),
            _ => {
                let logits = self.network.logits(&self.tensors, all, None)?;
                logits.to_vec2().map_err(|error| super::failed(&error))?
            }
        };
        let mut logits = logits.into_iter();
        let mut of_request = |values: Vec<f32>| {
            let rows: Vec<Vec<f32>> = logits.by_ref().take(values.len() / self.network.values()).collect();
            self.answer(&rows)
        };
        Ok(values.into_iter().map(|values| values.map(&mut of_request)).collect())
    }

    fn answer(&self, rows: &[Vec<f32>]) -> InferAnswer {
        let mut logits = BytesMut::with_capacity(rows.len() * self.network.classes * 4);
        rows.iter().flatten().for_each(|value| logits.put_f32_le(*value));
        let greatest = |row: &Vec<f32>| {
            let later = |best: usize, (at, value): (usize, &f32)| if *value > row[best] { at } else { best };
            row.iter().enumerate().fold(0, later) as i32
        };
        let class: Vec<u8> = rows.iter().flat_map(|row| greatest(row).to_le_bytes()).collect();
        let tensor = |name: &str, datatype, shape: &[usize], data: Payload| Tensor {
            name: name.into(),
            datatype,
            shape: shape.iter().map(|&size| size as i64).collect(),
            data,
        };
        let outputs = vec![
            tensor("logits", Datatype::Fp32, &[rows.len(), self.network.classes], Payload::from(logits.freeze())),
            tensor("class", Datatype::Int32, &[rows.len()], Payload::from(class)),
        ];
        InferAnswer { outputs, ..InferAnswer::default() }
    }
}

impl Model for Classifier {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn run(&mut self, batch: Vec<ModelRequest>) -> Vec<Result<InferAnswer>> {
        let values = batch.iter().map(|request| self.values(request)).collect();
        self.answers(values).unwrap_or_else(|error| batch.iter().map(|_| Err(error.clone())).collect())
    }

    fn sample(&self, rows: usize) -> ModelRequest {
        let [channels, height, width] = self.network.input;
        let count = rows * self.network.values();
        let data: Vec<u8> = (0..count).flat_map(|index| ((index * 37 % 256) as f32).to_le_bytes()).collect();
        let shape = [rows, channels, height, width].map(|size| size as i64).to_vec();
        let image = Tensor { name: INPUT.into(), datatype: Datatype::Fp32, shape, data: Payload::from(data) };
        ModelRequest { inputs: vec![image], ..ModelRequest::default() }
    }
}
