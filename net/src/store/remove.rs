//! What leaves the store: what its user removes, what has no more use, and what is in the way of something new.

use std::{
    collections::{HashMap, HashSet},
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use blake3::Hash;
use orion_proto::{Code, Error, Result};

use super::{
    Entry, Store, Stored, commit::write_whole, evict::Evictor, failed, incoming::has_chunks, lock_file, names,
};
use crate::{artifact::Form, free_disk_bytes};

/// What is on its way and was not touched for so long is given up.
const ABANDONED: Duration = Duration::from_secs(7 * 24 * 3600);

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Artifacts, as `NAME@VERSION`.
    pub artifacts: Vec<String>,
    /// Bytes that the disk has back.
    pub bytes: u64,
}

impl Store {
    /// Removes an artifact.
    ///
    /// # Errors
    /// FAILED_PRECONDITION where it is in use, NOT_FOUND where it is not here.
    pub fn remove(&self, root: &Hash) -> Result<()> {
        let _alone = self.alone()?;
        let stored = self.get(root)?;
        let path = self.layout.pin(root);
        let lock = lock_file(&path)?;
        if lock.try_lock().is_err() {
            let name = &stored.artifact.manifest.name;
            return Err(Error::new(Code::FailedPrecondition, format!("model '{name}' is in use, unload it first")));
        }
        // First of all it is no part of the store any more; what a killed process leaves behind, the next collection takes.
        let artifact = self.layout.artifact(root);
        fs::remove_file(&artifact).map_err(|error| failed("removed", &artifact, &error))?;
        self.known.lock().remove(root);
        self.sweep(&stored);
        let _ = fs::remove_file(&path);
        self.evictor(|evictor, _| evictor.removed(root.to_hex().as_str()))
    }

    /// Takes away an artifact's folder, packs, names and the objects that no other artifact has.
    fn sweep(&self, stored: &Stored) {
        let (root, manifest) = (&stored.artifact.root, &stored.artifact.manifest);
        let _ = fs::remove_dir_all(self.layout.model(root));
        let _ = fs::remove_file(self.layout.encoded(root));
        let _ = fs::remove_file(self.layout.differences(root));
        let version = self.layout.version(manifest.name.as_str(), manifest.version.as_str());
        if fs::read(&version).is_ok_and(|text| text == root.to_hex().as_bytes()) {
            let _ = fs::remove_file(version);
        }
        // Only where no version is left.
        let _ = fs::remove_dir(self.layout.name(manifest.name.as_str()));
        for file in &manifest.files {
            let object = self.layout.object(&file.address());
            if fs::metadata(&object).is_ok_and(|data| data.nlink() == 1) {
                let _ = fs::remove_file(object);
            }
        }
    }

    /// Removes what no manifest names, what was abandoned on its way, what is past its time, and what the quota has no room
    /// for.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED where what is in use is more than the quota.
    pub fn collect(&self) -> Result<Removed> {
        let before = self.used_bytes();
        self.remove_orphans()?;
        let mut removed = Removed::default();
        let entries = self.list();
        let pinned = pinned(&entries);
        let mut leaving = Vec::new();
        self.evictor(|evictor, now| {
            reconcile(evictor, &entries, now);
            leaving = evictor.expired(now, &|key| pinned.contains(key));
        })?;
        self.remove_keys(&leaving, &mut removed.artifacts);
        if let Some(quota) = self.quota.bytes {
            self.evict(quota, 0, &mut removed.artifacts)?;
        }
        removed.bytes = before.saturating_sub(self.used_bytes());
        Ok(removed)
    }

    /// Nobody puts an artifact into place meanwhile.
    fn alone(&self) -> Result<fs::File> {
        let path = self.layout.changes();
        let lock = lock_file(&path)?;
        lock.lock().map_err(|error| failed("locked", &path, &error))?;
        Ok(lock)
    }

    fn remove_orphans(&self) -> Result<()> {
        let _alone = self.alone()?;
        let known: HashSet<String> = names(&self.layout.artifacts()).into_iter().collect();
        let is_orphan = |name: &String| !known.contains(name.split('.').next().unwrap_or_default());
        for folder in ["models", "packs", "pins"].map(|name| self.layout.folder().join(name)) {
            for name in names(&folder).iter().filter(|name| is_orphan(name)) {
                let path = folder.join(name);
                let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            }
        }
        for path in names(&self.layout.objects()).iter().map(|name| self.layout.objects().join(name)) {
            if fs::metadata(&path).is_ok_and(|data| data.nlink() == 1) {
                let _ = fs::remove_file(path);
            }
        }
        for path in names(&self.layout.origins()).iter().map(|name| self.layout.origins().join(name)) {
            if !fs::read_to_string(&path).is_ok_and(|root| known.contains(&root)) {
                let _ = fs::remove_file(path);
            }
        }
        for path in names(&self.layout.all_incoming()).iter().map(|name| self.layout.all_incoming().join(name)) {
            let bitmap = fs::metadata(path.join("bitmap")).or_else(|_| fs::metadata(&path));
            let age = bitmap.and_then(|data| data.modified()).ok().and_then(|then| then.elapsed().ok());
            let is_locked = fs::File::open(path.join("lock")).is_ok_and(|lock| lock.try_lock().is_err());
            let is_empty = path.join("bitmap").exists() && !has_chunks(&path);
            if !is_locked && (is_empty || age.is_some_and(|age| age > ABANDONED)) {
                let _ = fs::remove_dir_all(path);
            }
        }
        Ok(())
    }

    /// Makes room for an artifact that is fetched, unless it has its room already.
    pub(super) fn make_room(&self, stored: &Stored) -> Result<()> {
        let here = fs::metadata(self.layout.incoming(&stored.artifact.root).join("encoded")).is_ok();
        if here || self.layout.artifact(&stored.artifact.root).exists() {
            return Ok(());
        }
        let encoded =
            stored.pieces.iter().filter_map(|piece| piece.wire(Form::Encoded)).map(|(bytes, _)| u64::from(bytes));
        self.make_room_for(stored.artifact.manifest.bytes().saturating_add(encoded.sum()))
    }

    /// Makes room for so many bytes.
    pub(super) fn make_room_for(&self, bytes: u64) -> Result<()> {
        if let Some(quota) = self.quota.bytes {
            let coming = under(&self.layout.all_incoming());
            self.evict(quota, bytes.saturating_add(coming), &mut Vec::new())?;
        }
        match free_disk_bytes(self.path()) {
            Ok(free) if free < bytes => {
                let path = self.path().display();
                let text =
                    format!("no space left for the store at '{path}': {free} bytes are free, {bytes} are needed");
                Err(Error::new(Code::ResourceExhausted, text))
            }
            _ => Ok(()),
        }
    }

    fn evict(&self, quota: u64, needed: u64, removed: &mut Vec<String>) -> Result<()> {
        let entries = self.list();
        let pinned = pinned(&entries);
        let mut victims = Ok(Vec::new());
        self.evictor(|evictor, now| {
            reconcile(evictor, &entries, now);
            victims = evictor.victims(quota, needed, &|key| pinned.contains(key));
        })?;
        let victims = victims.map_err(|error| {
            let what = format!("the store at '{}' has no room for {needed} more bytes", self.path().display());
            Error::new(Code::ResourceExhausted, format!("{what}: {error}; raise --store-bytes or unload models"))
        })?;
        self.remove_keys(&victims, removed);
        Ok(())
    }

    fn remove_keys(&self, keys: &[String], removed: &mut Vec<String>) {
        for root in keys.iter().filter_map(|key| Hash::from_hex(key).ok()) {
            let Ok(stored) = self.get(&root) else { continue };
            let manifest = &stored.artifact.manifest;
            let name = format!("{}@{}", manifest.name, manifest.version);
            match self.remove(&root) {
                Ok(()) => {
                    tracing::info!(artifact = name, %root, "artifact_evicted");
                    removed.push(name);
                }
                Err(error) => tracing::warn!(artifact = name, %error, "artifact_not_evicted"),
            }
        }
    }

    /// Runs the evictor over its state on the disk; one process at a time.
    pub(super) fn evictor(&self, change: impl FnOnce(&mut Evictor, u64)) -> Result<()> {
        let lock = lock_file(&self.layout.lock())?;
        lock.lock().map_err(|error| failed("locked", &self.layout.lock(), &error))?;
        let path = self.layout.evictor();
        // A file that cannot be read costs only what is remembered of past use.
        let read = fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Evictor>(&text).ok());
        let mut evictor = read.unwrap_or_else(|| Evictor::new(self.quota.policy));
        evictor.set_policy(self.quota.policy);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        change(&mut evictor, now);
        let text = serde_json::to_vec(&evictor).map_err(|error| Error::new(Code::Internal, error.to_string()))?;
        // On a full disk only what is remembered of past use is lost; what is to be removed must still be.
        if let Err(error) = write_whole(&path, &text) {
            tracing::warn!(%error, "past_use_forgotten");
        }
        Ok(())
    }

    /// Bytes of the store on the disk.
    pub fn used_bytes(&self) -> u64 {
        ["objects", "packs", "incoming"].iter().map(|name| under(&self.layout.folder().join(name))).sum()
    }
}

/// Bytes that a folder's files take on the disk.
fn under(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => under(&entry.path()),
        Ok(data) => data.blocks() * 512,
        Err(_) => 0,
    };
    entries.map(bytes).sum()
}

fn pinned(entries: &[Entry]) -> HashSet<String> {
    let pinned = entries.iter().filter(|entry| entry.pinned);
    pinned.map(|entry| entry.stored.artifact.root.to_hex().to_string()).collect()
}

/// Tells the evictor what a process that was killed could not.
fn reconcile(evictor: &mut Evictor, entries: &[Entry], now: u64) {
    let here: HashMap<String, u64> =
        entries.iter().map(|entry| (entry.stored.artifact.root.to_hex().to_string(), entry.disk_bytes)).collect();
    let believed: HashSet<String> = evictor.stored().map(|(key, _)| key.to_owned()).collect();
    believed.iter().filter(|key| !here.contains_key(*key)).for_each(|key| evictor.removed(key));
    here.iter().filter(|(key, _)| !believed.contains(*key)).for_each(|(key, bytes)| evictor.admitted(key, *bytes, now));
}
