//! The artifacts of a node: whole files that are mapped where models are loaded, their chunks as they were encoded, and what is
//! on its way.
//!
//! Several processes may use one store: what they change is renamed into place, an artifact that is being fetched or used is
//! locked, and locks end with their process.

mod chunks;
mod commit;
pub mod evict;
mod incoming;
mod layout;
mod missing;
mod publish;
mod reference;
mod remove;
mod staging;
#[cfg(test)]
mod tests;
mod verify;

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use blake3::Hash;
use orion_proto::{Code, Error, Result};
use parking_lot::Mutex;

use self::layout::Layout;
pub use self::{
    chunks::Chunks,
    evict::Policy,
    incoming::{Incoming, Refused},
    publish::Publication,
    reference::Reference,
    staging::Staging,
    verify::Damage,
};
use crate::artifact::{Artifact, Pieces};

/// How much a store may hold, and what leaves it first.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    /// Bytes on the disk; none: as many as there are.
    pub bytes: Option<u64>,
    /// Which artifact leaves first.
    pub policy: Policy,
}

impl Default for Quota {
    fn default() -> Self {
        Self { bytes: None, policy: Policy::Adaptive }
    }
}

/// A node's artifacts.
#[derive(Debug)]
pub struct Store {
    layout: Layout,
    quota: Quota,
    /// Manifests that were read, since they may have a million chunks.
    known: Mutex<HashMap<Hash, Arc<Stored>>>,
}

/// An artifact and its pieces.
#[derive(Debug)]
pub struct Stored {
    /// The artifact.
    pub artifact: Artifact,
    /// Its pieces.
    pub pieces: Pieces,
}

impl Stored {
    pub(crate) fn new(artifact: Artifact) -> Self {
        Self { pieces: Pieces::of(&artifact.manifest), artifact }
    }
}

/// An artifact as the store lists it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What it is, and its pieces.
    pub stored: Arc<Stored>,
    /// Bytes on the disk, of what other artifacts have too as well.
    pub disk_bytes: u64,
    /// Whether somebody uses it now.
    pub pinned: bool,
}

/// Keeps an artifact from being removed.
#[derive(Debug)]
pub struct Pin(#[expect(dead_code, reason = "the lock ends when it is closed")] File);

impl Store {
    /// Opens a store, and makes its folder.
    ///
    /// # Errors
    /// INTERNAL where the folder cannot be made.
    pub fn open(folder: impl Into<PathBuf>, quota: Quota) -> Result<Self> {
        let layout = Layout::new(folder.into());
        for folder in layout.folders() {
            fs::create_dir_all(&folder).map_err(|error| failed("made", &folder, &error))?;
        }
        Ok(Self { layout, quota, known: Mutex::default() })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        self.layout.folder()
    }

    /// An artifact that is here as a whole.
    ///
    /// # Errors
    /// NOT_FOUND, or INVALID_ARGUMENT where its manifest was damaged.
    pub fn get(&self, root: &Hash) -> Result<Arc<Stored>> {
        let path = self.layout.artifact(root);
        if !path.exists() {
            self.known.lock().remove(root);
            return Err(Error::new(Code::NotFound, format!("artifact {root} is not in the store")));
        }
        if let Some(known) = self.known.lock().get(root) {
            return Ok(known.clone());
        }
        let bytes = fs::read(&path).map_err(|error| failed("read", &path, &error))?;
        let artifact = Artifact::decode(&bytes)?;
        if artifact.root != *root {
            return Err(Error::invalid(format!("'{}' was damaged: its hash is {}", path.display(), artifact.root)));
        }
        let stored = Arc::new(Stored::new(artifact));
        self.known.lock().insert(*root, stored.clone());
        Ok(stored)
    }

    /// The root of a name's version, or of the version that came last.
    ///
    /// # Errors
    /// NOT_FOUND saying which names or versions there are.
    pub fn find(&self, name: &str, version: Option<&str>) -> Result<Hash> {
        let unknown = |what: String, known: Vec<String>| {
            let known = if known.is_empty() { "there are none".into() } else { known.join(", ") };
            Error::new(Code::NotFound, format!("{what} is not in the store, which has: {known}"))
        };
        let here = |root: &Hash| self.layout.artifact(root).exists();
        if !orion_proto::valid_name(name) {
            return Err(unknown(format!("model '{}'", name.escape_debug()), names(&self.layout.names())));
        }
        let mut versions: Vec<_> = names(&self.layout.name(name))
            .into_iter()
            .filter_map(|own| {
                let path = self.layout.version(name, &own);
                let root = Hash::from_hex(fs::read(&path).ok()?).ok().filter(here)?;
                Some((fs::metadata(&path).and_then(|data| data.modified()).ok(), own, root))
            })
            .collect();
        versions.sort_by(|one, other| (&one.0, &one.1).cmp(&(&other.0, &other.1)));
        let found = match version {
            None => versions.last(),
            Some(version) => versions.iter().find(|(_, own, _)| own == version),
        };
        match found {
            Some((_, _, root)) => Ok(*root),
            None if versions.is_empty() => Err(unknown(format!("model '{name}'"), names(&self.layout.names()))),
            None => {
                let what = format!("version '{}' of model '{name}'", version.unwrap_or_default().escape_debug());
                Err(unknown(what, versions.into_iter().map(|(_, own, _)| own).collect()))
            }
        }
    }

    /// Everything that is here as a whole; what cannot be read is left out and logged.
    pub fn list(&self) -> Vec<Entry> {
        let roots = names(&self.layout.artifacts()).into_iter().filter_map(|name| Hash::from_hex(name).ok());
        let entry = |root: Hash| match self.get(&root) {
            Ok(stored) => {
                let (disk_bytes, pinned) = (self.disk_bytes(&stored), self.is_pinned(&root));
                Some(Entry { stored, disk_bytes, pinned })
            }
            Err(error) => {
                tracing::warn!(%root, %error, "artifact_unreadable");
                None
            }
        };
        let mut entries: Vec<Entry> = roots.filter_map(entry).collect();
        entries.sort_by(|one, other| {
            let key =
                |entry: &Entry| (entry.stored.artifact.manifest.name.clone(), entry.stored.artifact.root.to_hex());
            key(one).0.cmp(&key(other).0).then_with(|| key(one).1.as_str().cmp(key(other).1.as_str()))
        });
        entries
    }

    /// The folder of an artifact that is here as a whole: files that may be mapped.
    pub fn folder(&self, root: &Hash) -> PathBuf {
        self.layout.model(root)
    }

    /// Its chunks, to be sent.
    ///
    /// # Errors
    /// NOT_FOUND or INTERNAL where they cannot be opened.
    pub fn chunks(&self, stored: &Arc<Stored>) -> Result<Chunks> {
        let root = &stored.artifact.root;
        let folder = self.layout.model(root);
        let open = |path: PathBuf| File::open(&path).map_err(|error| failed("opened", &path, &error));
        let files = stored.artifact.manifest.files.iter().map(|file| open(folder.join(&file.path)));
        Ok(Chunks {
            files: files.collect::<Result<_>>()?,
            encoded: File::open(self.layout.encoded(root)).ok(),
            differences: File::open(self.layout.differences(root)).ok(),
            stored: stored.clone(),
        })
    }

    /// Keeps an artifact here for as long as the pin lives.
    ///
    /// # Errors
    /// NOT_FOUND where it is gone.
    pub fn pin(&self, root: &Hash) -> Result<Pin> {
        let path = self.layout.pin(root);
        let lock = lock_file(&path)?;
        lock.lock_shared().map_err(|error| failed("locked", &path, &error))?;
        // It may have left before the lock was taken.
        self.get(root)?;
        self.used(root)?;
        Ok(Pin(lock))
    }

    /// Remembers that an artifact is of use.
    pub(crate) fn used(&self, root: &Hash) -> Result<()> {
        self.evictor(|evictor, now| evictor.used(root.to_hex().as_str(), now))
    }

    /// A version is one model: this one may have its name.
    fn check_name(&self, artifact: &Artifact) -> Result<()> {
        let (name, version) = (&artifact.manifest.name, &artifact.manifest.version);
        match self.find(name.as_str(), Some(version.as_str())) {
            Ok(root) if root != artifact.root => Err(Error::new(
                Code::FailedPrecondition,
                format!(
                    "{name}@{version} is in the store with other contents: give this another version, or remove that one \
                     first with: orion cache rm {name}@{version}"
                ),
            )),
            _ => Ok(()),
        }
    }

    fn is_pinned(&self, root: &Hash) -> bool {
        File::open(self.layout.pin(root)).is_ok_and(|file| file.try_lock().is_err())
    }

    fn disk_bytes(&self, stored: &Stored) -> u64 {
        let root = &stored.artifact.root;
        let packs = [self.layout.encoded(root), self.layout.differences(root)];
        let bytes = |path: &PathBuf| fs::metadata(path).map_or(0, |data| data.len());
        packs.iter().map(bytes).sum::<u64>().saturating_add(stored.artifact.manifest.bytes())
    }
}

/// The names in a folder; none if it cannot be read.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// A file that is there only to be locked.
fn lock_file(path: &Path) -> Result<File> {
    let options = File::options().create(true).truncate(false).read(true).write(true).open(path);
    options.map_err(|error| failed("opened", path, &error))
}

/// What the system says of a path.
fn failed(done: &str, path: &Path, error: &io::Error) -> Error {
    let code = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Code::ResourceExhausted,
        io::ErrorKind::NotFound => Code::NotFound,
        io::ErrorKind::PermissionDenied => Code::PermissionDenied,
        _ => Code::Internal,
    };
    Error::new(code, format!("'{}' could not be {done}: {error}", path.display()))
}
