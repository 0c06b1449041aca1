//! Checkpoints on this worker's disk. Every member keeps its own: the state is the same on all.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use orion_proto::{Code, Error, Result};

const STATE: &str = "state.safetensors";

fn folder(data: &Path, job: u64) -> PathBuf {
    data.join("training").join(job.to_string())
}

/// Keeps a state in place of the one before; it is on disk then.
pub(super) fn keep(data: &Path, job: u64, state: &[u8]) -> Result<()> {
    let folder = folder(data, job);
    let kept = (|| {
        fs::create_dir_all(&folder)?;
        let mut file = tempfile::NamedTempFile::new_in(&folder)?;
        file.write_all(state)?;
        file.as_file().sync_all()?;
        file.persist(folder.join(STATE))?;
        fs::File::open(&folder)?.sync_all()
    })();
    kept.map_err(|error: std::io::Error| {
        Error::new(Code::Internal, format!("the checkpoint could not be written to {}: {error}", folder.display()))
    })
}

/// The state that was kept last, where there is one.
pub(super) fn kept(data: &Path, job: u64) -> Option<Vec<u8>> {
    fs::read(folder(data, job).join(STATE)).ok()
}

/// Takes what was kept away.
pub(super) fn forget(data: &Path, job: u64) {
    if let Err(error) = fs::remove_dir_all(folder(data, job))
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(job, %error, "checkpoint_not_removed");
    }
}
