//! Making an artifact part of the store, in steps of which each may be the last: what counts is the manifest, written last.

use std::{
    fs::{self, File, Permissions},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use orion_proto::Result;

use super::{Store, Stored, failed, lock_file};

/// The parts of an artifact on the store's disk.
pub(super) struct Whole {
    /// One for each of the manifest's files.
    pub(super) files: Vec<PathBuf>,
    pub(super) encoded: Option<PathBuf>,
    pub(super) differences: Option<PathBuf>,
    /// Nobody else has it: it must be on the disk before anybody is told. What was fetched is checked when it is used, and
    /// fetched again should the machine have lost its power before.
    pub(super) is_only: bool,
}

impl Store {
    /// Moves the parts of an artifact into place. Done again it repairs what was damaged.
    pub(super) fn commit(&self, stored: &Arc<Stored>, whole: Whole) -> Result<()> {
        let changes = lock_file(&self.layout.changes())?;
        changes.lock_shared().map_err(|error| failed("locked", &self.layout.changes(), &error))?;
        let artifact = &stored.artifact;
        self.check_name(artifact)?;
        let root = &artifact.root;
        let model = self.layout.model(root);
        let staged = model.with_extension("new");
        let _ = fs::remove_dir_all(&staged);
        for (file, path) in artifact.manifest.files.iter().zip(&whole.files) {
            let object = self.layout.object(&file.address());
            if whole.is_only {
                sync(path)?;
            }
            fs::set_permissions(path, Permissions::from_mode(0o444)).map_err(|error| failed("kept", path, &error))?;
            fs::rename(path, &object).map_err(|error| failed("kept", &object, &error))?;
            let linked = staged.join(&file.path);
            let parent = linked.parent().unwrap_or(&staged);
            fs::create_dir_all(parent).map_err(|error| failed("made", parent, &error))?;
            fs::hard_link(&object, &linked).map_err(|error| failed("made", &linked, &error))?;
        }
        fs::create_dir_all(&staged).map_err(|error| failed("made", &staged, &error))?;
        // A repair has written to the files that are there.
        if model.exists() {
            fs::remove_dir_all(&model).map_err(|error| failed("replaced", &model, &error))?;
        }
        fs::rename(&staged, &model).map_err(|error| failed("made", &model, &error))?;
        let packs = [(whole.encoded, self.layout.encoded(root)), (whole.differences, self.layout.differences(root))];
        for (from, to) in packs {
            if let Some(from) = from {
                fs::rename(&from, &to).map_err(|error| failed("kept", &to, &error))?;
            }
        }
        write_whole(&self.layout.artifact(root), &artifact.encode())?;
        let (name, version) = (artifact.manifest.name.as_str(), artifact.manifest.version.as_str());
        let names = self.layout.name(name);
        fs::create_dir_all(&names).map_err(|error| failed("made", &names, &error))?;
        write_whole(&self.layout.version(name, version), root.to_hex().as_bytes())?;
        self.evictor(|evictor, now| evictor.admitted(root.to_hex().as_str(), self.disk_bytes(stored), now))
    }
}

/// Writes a file that is there as a whole or not at all.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|error: std::io::Error| failed("written", path, &error))
}

fn sync(path: &Path) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|error| failed("written", path, &error))
}
