//! Which files of a folder hold its weights.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use orion_proto::Result;
use serde::Deserialize;

use crate::{folder::files_ending, unservable};

/// Hugging Face's index of a checkpoint that is cut into several files.
const INDEX: &str = "model.safetensors.index.json";

/// The files, and where an index names them, which of them holds each tensor.
pub(super) struct Shards {
    pub(super) files: Vec<PathBuf>,
    pub(super) index: Option<BTreeMap<String, usize>>,
}

impl Shards {
    /// `model.safetensors` where it is there, else what the index names, else every `*.safetensors`.
    pub(super) fn find(folder: &Path) -> Result<Self> {
        let whole = folder.join("model.safetensors");
        if whole.is_file() {
            return Ok(Self { files: vec![whole], index: None });
        }
        if folder.join(INDEX).is_file() {
            return Self::indexed(folder);
        }
        let files = files_ending(folder, ".safetensors")?;
        if files.is_empty() {
            return Err(unservable(format!("folder {} has no *.safetensors", folder.display())));
        }
        Ok(Self { files, index: None })
    }

    fn indexed(folder: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let path = folder.join(INDEX);
        let text = crate::file::read_text(&path)?;
        let Index { weight_map } = serde_json::from_slice(&text).map_err(|error| {
            unservable(format!("{} cannot be read: {}", path.display(), error.to_string().to_lowercase()))
        })?;
        let names: Vec<&String> = weight_map.values().collect::<BTreeSet<_>>().into_iter().collect();
        // A name with a folder in it could reach any file of the machine.
        if let Some(name) = names.iter().find(|name| Path::new(name).file_name() != Some(name.as_ref())) {
            return Err(unservable(format!("{} names file '{name}', which is not in its folder", path.display())));
        }
        if names.is_empty() {
            return Err(unservable(format!("{} names no file", path.display())));
        }
        let files = names.iter().map(|name| folder.join(name)).collect();
        let place = |file: &String| names.binary_search(&file).unwrap_or_default();
        let index = weight_map.iter().map(|(tensor, file)| (tensor.clone(), place(file))).collect();
        Ok(Self { files, index: Some(index) })
    }
}
