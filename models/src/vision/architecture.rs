//! Which classifier a folder holds, from its `config.json`.

use std::{collections::HashMap, path::Path};

use orion_proto::Result;
use serde::Deserialize;

use super::{Preparation, efficientnet, processor, resnet};
use crate::{convnet::Network, file::read_json, unservable};

/// A classifier before it is loaded: convolutions, the mean of each channel, one dense layer.
#[derive(Clone, Debug)]
pub(crate) struct Architecture {
    pub(super) preparation: Preparation,
    pub(super) network: Network,
    /// The dense layer's name.
    pub(super) head: &'static str,
}

/// What `config.json` says of a classifier; other keys are not needed to run it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Config {
    model_type: Option<String>,
    pub(super) variant: Option<String>,
    num_classes: Option<usize>,
    #[serde(flatten)]
    pub(super) resnet: resnet::Config,
    /// Hugging Face's labels, by the class's number.
    #[serde(default)]
    pub(super) id2label: HashMap<usize, String>,
}

impl Config {
    /// Reads `config.json`.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        read_json(&folder.join("config.json"))
    }

    /// Whether a checkpoint of so many classes is the one that it describes.
    pub(super) fn check_classes(&self, classes: usize) -> std::result::Result<(), String> {
        if classes == 0 {
            return Err("the checkpoint has no classes, it must have one".into());
        }
        let named = (!self.id2label.is_empty()).then_some(self.id2label.len());
        match [("num_classes", self.num_classes), ("the count of id2label", named)]
            .into_iter()
            .find(|(_, count)| count.is_some_and(|count| count != classes))
        {
            Some((key, Some(count))) => Err(format!("{key} is {count}, the checkpoint has {classes} classes")),
            _ => Ok(()),
        }
    }
}

impl Architecture {
    /// The network that the configuration asks for.
    pub(super) fn of(folder: &Path, config: &Config) -> Result<Self> {
        let variant = config.variant.as_deref();
        let described = match config.model_type.as_deref() {
            Some(efficientnet::MODEL_TYPE) => efficientnet::describe(variant),
            Some(resnet::MODEL_TYPE) => resnet::describe(variant, &config.resnet, processor::read(folder)?),
            other => Err(format!("model_type '{}' is no classifier of images", other.unwrap_or_default())),
        };
        described.map_err(|reason| unservable(format!("{}: {reason}", folder.join("config.json").display())))
    }

    /// Channels that the dense layer takes.
    pub(super) fn features(&self) -> usize {
        self.network.layout(self.network.output()).channels
    }

    /// The dense layer's weight and bias for so many classes, with their shapes.
    pub(super) fn head(&self, classes: usize) -> [(String, Vec<usize>); 2] {
        let Self { head, .. } = self;
        [(format!("{head}.weight"), vec![classes, self.features()]), (format!("{head}.bias"), vec![classes])]
    }
}
