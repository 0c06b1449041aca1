//! One worker of a machine measures at a time: two would each measure half a machine.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::gate::Gate;

/// How long to wait before asking for the lock again.
const PAUSE: Duration = Duration::from_millis(100);

/// The lock file of this machine, whichever data folders its workers have.
pub(super) fn machine_wide() -> PathBuf {
    std::env::temp_dir().join("orion-measure.lock")
}

/// Locks the file until the result is dropped; `None` when another process held it until the gate's deadline.
///
/// # Errors
/// When the file cannot be opened or made, or is a link or no ordinary file.
pub(super) fn acquire(path: &Path, gate: &Gate<'_>) -> io::Result<Option<File>> {
    let file = open(path)?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) if gate.pause(PAUSE) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// In a folder that everyone may write, Linux refuses O_CREAT on another user's file, so an existing one is opened
/// without it; a lock needs no more than reading. Links are not followed, and a pipe does not block.
fn open(path: &Path) -> io::Result<File> {
    let mut existing = OpenOptions::new();
    existing.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = match existing.open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let mut fresh = OpenOptions::new();
            let made = fresh.read(true).write(true).create_new(true).mode(0o666).open(path);
            match made {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => existing.open(path),
                made => made,
            }
        }
        opened => opened,
    }?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "not an ordinary file"));
    }
    Ok(file)
}
