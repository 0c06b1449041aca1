//! Files of an origin on their way into the store.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use blake3::Hash;
use orion_proto::Result;

use super::{Store, commit::write_whole, failed, lock_file};

/// A folder for one model's files, which no other process works on.
#[derive(Debug)]
pub struct Staging {
    folder: PathBuf,
    /// Locked for as long as this lives.
    _lock: File,
}

impl Store {
    /// The folder for what `key` names, with what an earlier process left in it. Nothing if another process has it now.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED where there is no room for so many `bytes`, others where the disk fails.
    pub fn stage(&self, key: &str, bytes: u64) -> Result<Option<Staging>> {
        let folder =
            self.layout.all_incoming().join(format!("origin-{}", &blake3::hash(key.as_bytes()).to_hex()[..32]));
        let files = folder.join("files");
        if !files.exists() {
            self.make_room_for(bytes)?;
        }
        fs::create_dir_all(&files).map_err(|error| failed("made", &files, &error))?;
        let path = folder.join("lock");
        let lock = lock_file(&path)?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Staging { folder, _lock: lock })),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(failed("locked", &path, &error)),
        }
    }
}

impl Store {
    /// Remembers what a location led to.
    ///
    /// # Errors
    /// What the disk says.
    pub fn came_from(&self, location: &str, root: &Hash) -> Result<()> {
        write_whole(&self.layout.origin(location), root.to_hex().as_bytes())
    }

    /// What a location last led to, if that is here.
    pub fn of_origin(&self, location: &str) -> Option<Hash> {
        let root = Hash::from_hex(fs::read(self.layout.origin(location)).ok()?).ok()?;
        self.layout.artifact(&root).exists().then_some(root)
    }
}

impl Staging {
    /// Where it lies.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where its files lie.
    pub fn files(&self) -> PathBuf {
        self.folder.join("files")
    }

    /// Takes it away: its files are in the store.
    ///
    /// # Errors
    /// What the disk says.
    pub fn remove(self) -> Result<()> {
        fs::remove_dir_all(&self.folder).map_err(|error| failed("removed", &self.folder, &error))
    }
}
