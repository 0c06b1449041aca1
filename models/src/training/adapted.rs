//! The tensors of a model that is there already, and what of them learns: all, or small additions to some (LoRA; Hu and
//! others, arXiv:2106.09685).

use std::path::Path;

use candle_core::{Device, Tensor};
use orion_proto::{Code, Error, Result, training::Lora};
use rand::{SeedableRng, rngs::StdRng};
use rand_distr::{Distribution, Normal, Uniform};
use serde_json::{Map, Value};

use super::{
    failed,
    operations::{Dense, add_product},
    task::{Parameter, count},
    trained::{TOKENIZER, Written},
};
use crate::{
    checkpoint::{Checkpoint, Element},
    file::{read_json, read_text},
    unservable,
};

/// Of the first weights of layers that the base has not, as BERT's.
const DEVIATION: f32 = 0.02;
const MOST_LAYERS: usize = 96;

/// A tensor of the base.
#[derive(Clone, Debug)]
pub(super) struct BaseTensor {
    /// Its name in the base's files.
    pub(super) name: String,
    /// Its name in what is written.
    pub(super) written: String,
    pub(super) shape: Vec<usize>,
}

/// A base, and what is learnt.
pub(super) struct Adapted {
    checkpoint: Checkpoint,
    base: Vec<BaseTensor>,
    lora: Option<Lora>,
    /// The places of the base's tensors that something is added to.
    added: Vec<usize>,
    /// Tensors behind the base's, that are not its own: as they are written.
    head: usize,
    parameters: Vec<Parameter>,
    /// The base's tensors where they do not learn.
    frozen: Vec<Tensor>,
}

/// The tensors of one look: the base's, and what is added to them; the head's.
pub(super) struct Weights<'a> {
    base: &'a [Tensor],
    added: Vec<Option<[&'a Tensor; 2]>>,
    pub(super) head: &'a [Tensor],
    scale: f64,
}

impl Adapted {
    /// `usual`: the layers that are added to where none are named. `free_bytes`: what it may take of memory.
    ///
    /// # Errors
    /// FAILED_PRECONDITION naming a tensor or a layer that the base has not; RESOURCE_EXHAUSTED where it takes more memory.
    pub(super) fn new(
        checkpoint: Checkpoint,
        base: Vec<BaseTensor>,
        lora: Option<&Lora>,
        usual: [&str; 2],
        head: &[(String, Vec<usize>)],
        free_bytes: u64,
    ) -> Result<Self> {
        if lora.is_some() {
            check_memory(&base, free_bytes)?;
        }
        let added = lora.map(|lora| targets(&base, lora, usual)).transpose()?.unwrap_or_default();
        let mut parameters: Vec<Parameter> = Vec::new();
        let mut learns = |name: String, shape: &[usize]| {
            let start = count(&parameters);
            parameters.push(Parameter { name, shape: shape.into(), seen: 0, start });
        };
        match lora {
            None => base.iter().for_each(|tensor| learns(tensor.written.clone(), &tensor.shape)),
            Some(lora) => {
                for &at in &added {
                    let (layer, shape) = (layer_of(&base[at].written).unwrap_or_default(), &base[at].shape);
                    learns(format!("{layer}.lora_A.weight"), &[lora.rank, shape[1]]);
                    learns(format!("{layer}.lora_B.weight"), &[shape[0], lora.rank]);
                }
            }
        }
        head.iter().for_each(|(name, shape)| learns(name.clone(), shape));
        let load = |tensor: &BaseTensor| {
            let values = checkpoint.floats(&tensor.name, &tensor.shape)?;
            Tensor::from_vec(values, tensor.shape.as_slice(), &Device::Cpu).map_err(|error| failed(&error))
        };
        let frozen = if lora.is_some() { base.iter().map(load).collect::<Result<_>>()? } else { Vec::new() };
        Ok(Self { checkpoint, base, lora: lora.cloned(), added, head: head.len(), parameters, frozen })
    }

    pub(super) fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Where learning begins: the base's weights, additions that add nothing yet, and a head of small random numbers but for
    /// what `known` says of it.
    pub(super) fn initial(
        &self,
        seed: u64,
        known: impl Fn(&Parameter, &Checkpoint) -> Result<Option<Vec<f32>>>,
    ) -> Result<Vec<f32>> {
        let mut values = Vec::with_capacity(count(&self.parameters));
        let mut random = StdRng::seed_from_u64(seed);
        let of_base = if self.lora.is_some() { 0 } else { self.base.len() };
        for tensor in &self.base[..of_base] {
            values.extend(self.checkpoint.floats(&tensor.name, &tensor.shape)?);
        }
        for parameter in &self.parameters[of_base..] {
            if let Some(known) = known(parameter, &self.checkpoint)? {
                values.extend(known);
                continue;
            }
            let numbers = 0..parameter.count();
            match parameter.shape.as_slice() {
                [_, inputs] if parameter.name.ends_with("lora_A.weight") => {
                    let most = 1.0 / (*inputs as f32).sqrt();
                    let even = Uniform::new_inclusive(-most, most).map_err(|error| unservable(error.to_string()))?;
                    values.extend(numbers.map(|_| even.sample(&mut random)));
                }
                [_, _] if !parameter.name.ends_with("lora_B.weight") => {
                    let normal = Normal::new(0.0, DEVIATION).map_err(|error| unservable(error.to_string()))?;
                    values.extend(numbers.map(|_| normal.sample(&mut random)));
                }
                _ => values.resize(values.len() + numbers.len(), 0.0),
            }
        }
        Ok(values)
    }

    /// The tensors of a look, of those of the parameters.
    pub(super) fn weights<'a>(&'a self, tensors: &'a [Tensor]) -> Weights<'a> {
        let (learnt, head) = tensors.split_at(tensors.len() - self.head);
        let mut added = vec![None; self.base.len()];
        for (&at, pair) in self.added.iter().zip(learnt.chunks_exact(2)) {
            added[at] = Some([&pair[0], &pair[1]]);
        }
        let base = if self.lora.is_some() { &self.frozen } else { learnt };
        Weights { base, added, head, scale: f64::from(self.lora.as_ref().map_or(0.0, Lora::scale)) }
    }

    /// All tensors of the model with these numbers: what is added is part of its weight, in the base's types of numbers.
    pub(super) fn written(&self, values: &[f32]) -> Result<Vec<Written>> {
        let of = |parameter: &Parameter| &values[parameter.start..][..parameter.count()];
        let (learnt, head) = self.parameters.split_at(self.parameters.len() - self.head);
        let mut pairs = self.added.iter().zip(learnt.chunks_exact(2)).peekable();
        let mut written = Vec::with_capacity(self.base.len() + head.len());
        for (at, tensor) in self.base.iter().enumerate() {
            let element = self.checkpoint.expect(&tensor.name, &tensor.shape)?.element;
            let own = match &self.lora {
                None => of(&learnt[at]).to_vec(),
                Some(lora) => {
                    let mut own = self.checkpoint.floats(&tensor.name, &tensor.shape)?;
                    if let Some((_, pair)) = pairs.next_if(|(place, _)| **place == at) {
                        let narrow: Vec<f32> = of(&pair[0]).iter().map(|value| value * lora.scale()).collect();
                        add_product(of(&pair[1]), &narrow, lora.rank, &mut own);
                    }
                    own
                }
            };
            let write = |element| Written::new(tensor.written.clone(), tensor.shape.clone(), element, &own);
            // What learnt more than a half can hold is not lost for that.
            written.push(write(element).or_else(|_| write(Element::F32))?);
        }
        for parameter in head {
            let (name, shape) = (parameter.name.clone(), parameter.shape.clone());
            written.push(Written::new(name, shape, Element::F32, of(parameter))?);
        }
        Ok(written)
    }

    /// Bytes that it takes beside the parameters.
    pub(super) fn held_bytes(&self) -> u64 {
        if self.lora.is_some() { frozen_bytes(&self.base) } else { 0 }
    }

    /// Hashes the base, with what of its folder tells tokens.
    ///
    /// # Errors
    /// FAILED_PRECONDITION where a file cannot be read.
    pub(super) fn hash(&self, folder: &Path, hasher: &mut blake3::Hasher) -> Result<()> {
        for file in self.checkpoint.files() {
            hasher.update(&(file.bytes().len() as u64).to_le_bytes());
            hasher.update(file.bytes());
        }
        for name in TOKENIZER.iter().chain(&["config.json"]).filter(|name| folder.join(name).is_file()) {
            let bytes = read_text(&folder.join(name))?;
            hasher.update(format!("{name} {} ", bytes.len()).as_bytes());
            hasher.update(&bytes);
        }
        Ok(())
    }
}

impl<'a> Weights<'a> {
    /// The base's tensor at a place.
    pub(super) fn get(&self, at: usize) -> &'a Tensor {
        &self.base[at]
    }

    /// The product with the weight at a place and what is added to it, and the bias at another.
    pub(super) fn dense(&self, x: &Tensor, weight: usize, bias: Option<usize>) -> candle_core::Result<Tensor> {
        let mut out = x.apply_op2(&self.base[weight], Dense)?;
        if let Some(bias) = bias {
            out = out.broadcast_add(&self.base[bias])?;
        }
        match self.added[weight] {
            None => Ok(out),
            Some([narrow, wide]) => out + (x.apply_op2(narrow, Dense)?.apply_op2(wide, Dense)? * self.scale)?,
        }
    }
}

/// Refuses more layers than the library's walk backwards, a call within a call for each operation, has room for on a thread.
pub(super) fn check_layers(layers: usize) -> Result<()> {
    if layers > MOST_LAYERS {
        return Err(unservable(format!("the base has {layers} layers, {MOST_LAYERS} are at most to learn on")));
    }
    Ok(())
}

/// Bytes of a base that does not learn: it is held once, and twice more when it is written.
fn frozen_bytes(base: &[BaseTensor]) -> u64 {
    let numbers = base.iter().map(|tensor| tensor.shape.iter().map(|size| *size as u64).product::<u64>());
    numbers.fold(0u64, u64::saturating_add).saturating_mul(3 * 4)
}

fn check_memory(base: &[BaseTensor], free_bytes: u64) -> Result<()> {
    let needed = frozen_bytes(base);
    if needed > free_bytes {
        let text = format!("its base takes about {needed} bytes of memory, {free_bytes} are free");
        return Err(Error::new(Code::ResourceExhausted, text));
    }
    Ok(())
}

/// Refuses a base of another family, before its configuration is looked at.
///
/// # Errors
/// FAILED_PRECONDITION saying which family it is of.
pub(super) fn check_family(folder: &Path, known: &[&str], kind: &str) -> Result<()> {
    let path = folder.join("config.json");
    let config: Map<String, Value> = read_json(&path)?;
    match config.get("model_type").and_then(Value::as_str) {
        Some(family) if known.contains(&family) => Ok(()),
        family => {
            let (family, known) = (family.unwrap_or_default(), known.join(", "));
            let text = format!("{}: model_type is '{family}', a {kind} begins with one of {known}", path.display());
            Err(unservable(text))
        }
    }
}

/// A layer's name, of its weight's.
fn layer_of(name: &str) -> Option<&str> {
    name.strip_suffix(".weight")
}

/// The places of the weights of all layers that are named, or whose names end so, as PEFT reads them.
fn targets(base: &[BaseTensor], lora: &Lora, usual: [&str; 2]) -> Result<Vec<usize>> {
    // What lies in no block is no layer that could be added to: embeddings, and the output.
    let layers = || {
        let blocks = base.iter().enumerate().filter(|(_, tensor)| tensor.shape.len() == 2);
        blocks.filter_map(|(at, tensor)| Some((at, layer_of(&tensor.written).filter(|name| name.contains("layer"))?)))
    };
    let named: Vec<&str> = match lora.targets.as_slice() {
        [] => usual.into(),
        named => named.iter().map(String::as_str).collect(),
    };
    let is = |layer: &str, target: &str| {
        layer == target || layer.strip_suffix(target).is_some_and(|rest| rest.ends_with('.'))
    };
    for target in &named {
        if !layers().any(|(_, layer)| is(layer, target)) {
            let mut known: Vec<&str> = layers().filter_map(|(_, layer)| after_number(layer)).collect();
            known.sort_unstable();
            known.dedup();
            let text = format!("model.lora.targets names '{target}', the layers of the base are {}", known.join(", "));
            return Err(unservable(text));
        }
    }
    Ok(layers().filter(|(_, layer)| named.iter().any(|target| is(layer, target))).map(|(at, _)| at).collect())
}

/// A layer's name in its block.
fn after_number(layer: &str) -> Option<&str> {
    let at = layer.find(|of: char| of.is_ascii_digit())?;
    layer[at..].split_once('.').map(|(_, name)| name)
}
