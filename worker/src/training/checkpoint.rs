//! Checkpoints on this worker's disk. Every member keeps its own: the state is the same on all.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use orion_proto::{Code, Error, Result};

const STATE: &str = "state.safetensors";
/// What no attempt has gone on from for so long is removed: a week, as results of jobs are kept.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// A job, and when it was submitted: another journal may give its number again.
pub(super) type Name = (u64, u64);

fn folder(data: &Path, (job, submitted): Name) -> PathBuf {
    all_of(data, job).join(submitted.to_string())
}

fn all_of(data: &Path, job: u64) -> PathBuf {
    data.join("training").join(job.to_string())
}

/// Keeps a state in place of the one before; it is on disk then.
pub(super) fn keep(data: &Path, name: Name, state: &[u8]) -> Result<()> {
    let folder = folder(data, name);
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
pub(super) fn kept(data: &Path, name: Name) -> Option<Vec<u8>> {
    fs::read(folder(data, name).join(STATE)).ok()
}

/// Takes away what nobody has come back for.
pub(crate) fn sweep(data: &Path) {
    for entry in fs::read_dir(data.join("training")).into_iter().flatten().flatten() {
        let states = fs::read_dir(entry.path()).into_iter().flatten().flatten();
        let changed = states.filter_map(|of| fs::metadata(of.path().join(STATE)).and_then(|data| data.modified()).ok());
        let age = changed.max().and_then(|changed| changed.elapsed().ok());
        if age.is_some_and(|age| age > KEPT) {
            // Whatever keeps it from being removed is met again at the next start.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Takes what was kept away.
pub(super) fn forget(data: &Path, job: u64) {
    if let Err(error) = fs::remove_dir_all(all_of(data, job))
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(job, %error, "checkpoint_not_removed");
    }
}
