//! Where things lie in a store's folder.
//!
//! `objects/HASH` are files, once each whatever models have them; `models/ROOT/` is a model's folder, of hard links to them, so
//! that the file system counts the references; `packs/ROOT.*` are its chunks as they were encoded; `artifacts/ROOT` is its
//! manifest, which is written last and makes it part of the store. `names/NAME/VERSION` holds a root. `incoming/ROOT/` is what
//! is not whole yet, `pins/ROOT` is locked by whoever uses a model, `origins/HASH` the root of what a URL last led to.

use std::path::{Path, PathBuf};

use blake3::Hash;

/// The paths of a store.
#[derive(Clone, Debug)]
pub(super) struct Layout(PathBuf);

impl Layout {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// The folders that must be there.
    pub(super) fn folders(&self) -> [PathBuf; 8] {
        ["objects", "models", "packs", "artifacts", "names", "incoming", "pins", "origins"]
            .map(|name| self.0.join(name))
    }

    pub(super) fn folder(&self) -> &Path {
        &self.0
    }

    pub(super) fn object(&self, address: &Hash) -> PathBuf {
        self.0.join("objects").join(address.to_hex().as_str())
    }

    pub(super) fn objects(&self) -> PathBuf {
        self.0.join("objects")
    }

    pub(super) fn model(&self, root: &Hash) -> PathBuf {
        self.0.join("models").join(root.to_hex().as_str())
    }

    pub(super) fn encoded(&self, root: &Hash) -> PathBuf {
        self.0.join("packs").join(format!("{}.encoded", root.to_hex()))
    }

    pub(super) fn differences(&self, root: &Hash) -> PathBuf {
        self.0.join("packs").join(format!("{}.differences", root.to_hex()))
    }

    pub(super) fn artifact(&self, root: &Hash) -> PathBuf {
        self.0.join("artifacts").join(root.to_hex().as_str())
    }

    pub(super) fn artifacts(&self) -> PathBuf {
        self.0.join("artifacts")
    }

    pub(super) fn name(&self, name: &str) -> PathBuf {
        self.0.join("names").join(name)
    }

    pub(super) fn names(&self) -> PathBuf {
        self.0.join("names")
    }

    pub(super) fn version(&self, name: &str, version: &str) -> PathBuf {
        self.name(name).join(version)
    }

    pub(super) fn incoming(&self, root: &Hash) -> PathBuf {
        self.0.join("incoming").join(root.to_hex().as_str())
    }

    pub(super) fn all_incoming(&self) -> PathBuf {
        self.0.join("incoming")
    }

    /// What came from an origin: its root.
    pub(super) fn origin(&self, location: &str) -> PathBuf {
        self.origins().join(blake3::hash(location.as_bytes()).to_hex().as_str())
    }

    pub(super) fn origins(&self) -> PathBuf {
        self.0.join("origins")
    }

    pub(super) fn pin(&self, root: &Hash) -> PathBuf {
        self.0.join("pins").join(root.to_hex().as_str())
    }

    pub(super) fn evictor(&self) -> PathBuf {
        self.0.join("eviction.json")
    }

    /// Locked by whoever changes what is remembered of past use.
    pub(super) fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    /// Locked, shared, by whoever puts an artifact into place, and alone by whoever removes what has no manifest.
    pub(super) fn changes(&self) -> PathBuf {
        self.0.join("changes")
    }
}
