//! What a scheduler keeps between its processes, a file of JSON each: what batches have taught, and what operators made of
//! nodes.

use std::{
    collections::BTreeMap,
    fs,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use orion_proto::{Code, Error};
use serde::{Serialize, de::DeserializeOwned};

use crate::core::Cordon;

/// A file with more bytes than this is not one of ours.
const LARGEST: u64 = 64 << 20;
/// The file of measured curves.
pub(crate) const CURVES: &str = "curves.json";
/// The file of cordoned and drained nodes.
const NODES: &str = "nodes.json";

/// Cordoned and drained nodes, by name, on disk.
#[derive(Debug)]
pub(crate) struct NodeFile(PathBuf);

impl NodeFile {
    /// The file in this folder, which need not be there.
    pub(crate) fn new(folder: &Path) -> Self {
        Self(folder.join(NODES))
    }

    /// What operators made of nodes. A file that cannot be read is left behind with a warning.
    pub(crate) fn read(&self) -> BTreeMap<String, Cordon> {
        let read = read(&self.0).unwrap_or_else(|error| {
            tracing::warn!(path = %self.0.display(), %error, "nodes_not_read");
            None
        });
        read.unwrap_or_default()
    }

    /// Writes it anew.
    ///
    /// # Errors
    /// INTERNAL where it cannot be written.
    pub(crate) fn write(&self, nodes: &BTreeMap<String, Cordon>) -> orion_proto::Result<()> {
        replace(&self.0, nodes).map_err(|error| {
            let path = self.0.display();
            tracing::warn!(%path, %error, "nodes_not_written");
            let text = format!(
                "it is done, but a scheduler that is started anew would not know: {path} could not be written ({error}); \
                 repeat it once it can be"
            );
            Error::new(Code::Internal, text)
        })
    }
}

/// What a file holds; nothing where there is none.
pub(crate) fn read<V: DeserializeOwned>(path: &Path) -> Result<Option<V>, String> {
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
        Ok(found) if !found.is_file() || found.len() > LARGEST => return Err("it is no file of a scheduler".into()),
        Ok(_) => {}
    }
    let json = fs::read(path).map_err(|error| error.to_string())?;
    serde_json::from_slice(&json).map(Some).map_err(|error| error.to_string())
}

/// Old or new, never half.
pub(crate) fn replace(path: &Path, value: &impl Serialize) -> std::io::Result<()> {
    let beside = path.with_extension("tmp");
    let mut file = fs::File::create(&beside)?;
    file.write_all(&serde_json::to_vec_pretty(value)?)?;
    file.sync_all()?;
    fs::rename(beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_come_back_and_a_broken_file_is_as_good_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = NodeFile::new(folder.path());
        assert!(file.read().is_empty());
        let nodes = BTreeMap::from([("a".to_owned(), Cordon::Cordoned), ("b".to_owned(), Cordon::Draining)]);
        file.write(&nodes).unwrap();
        assert_eq!(file.read(), nodes);
        let nowhere = NodeFile::new(&folder.path().join("not there"));
        assert_eq!(nowhere.write(&nodes).unwrap_err().code, Code::Internal);
        fs::write(folder.path().join(NODES), "{\"a\": \"gone\"}").unwrap();
        assert!(file.read().is_empty());
    }
}
